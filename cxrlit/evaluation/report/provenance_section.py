"""Report sections: the data, all tables, settings and versions."""

import platform
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
import yaml

from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.report.wording import name_part
from cxrlit.html.section import Section
from cxrlit.html.tables import Column, Table, make_pairs, make_reasons
from cxrlit.html.text import hide_secrets, list_versions

PACKAGES = ("cxrlit", "torch", "pytorch-lightning", "numpy", "scipy", "pandas", "matplotlib")


def build_data_section(assessment: Assessment, tables: Mapping[str, pd.DataFrame]) -> Section:
    """Show images, patients and positives of each part, and excluded images.

    Args:
        assessment: The assessment.
        tables: Its tables.
    """
    subject, dropped = assessment.subject, assessment.dropped
    counts = pd.DataFrame({"label": list(assessment.labels)})
    columns = [Column("label")]
    for part, measured in assessment.parts.items():
        names = {name: f"{name}_{part}" for name in ("positives", "images", "patients")}
        counts = counts.merge(measured.counts.rename(columns=names), on="label")
        columns += [Column(column, f"{name} {name_part(part)}") for name, column in names.items()]
    return Section(
        "Data",
        "data",
        paragraphs=[] if len(dropped) else ["No image was dropped."],
        tables=[
            make_pairs(
                "Where the images come from",
                [
                    ("data", subject.data),
                    ("split", subject.split_name or "none"),
                    ("split hash", subject.split_hash or "none"),
                ],
            ),
            Table(
                "Images and patients of each part",
                tables["eval_summary.csv"],
                [Column("split", "part"), Column("n_images", "images"), Column("n_patients", "patients")],
            ),
            Table("Positives, images and patients of each label", counts, columns),
            *([make_reasons("Images that could not be evaluated", dropped)] if len(dropped) else []),
        ],
        notes=["Images and patients of a label are those of which it is known."],
    )


def build_provenance_section(assessment: Assessment, tables: Mapping[str, pd.DataFrame]) -> Section:
    """Show all tables, the settings and the versions.

    Args:
        assessment: The assessment.
        tables: Its tables.
    """
    metrics = tables["eval_metrics.csv"]
    config = assessment.subject.config
    columns = [Column("metric"), Column("label"), Column("value", None, "low", "high"), Column("n_labels", "labels")]
    listings = {}
    if config is not None:
        listings["Settings of the training"] = yaml.safe_dump(hide_places(config), sort_keys=False, allow_unicode=True)
    return Section(
        "All numbers, settings and versions",
        "making",
        paragraphs=[
            "The numbers of this page are those of the CSV files beside it, rounded; each is in the page in full, as "
            "the value of its data element. claim.md is a checklist of CLAIM 2024 and TRIPOD+AI, filled in as far as "
            "these files tell."
        ],
        tables=[
            make_pairs(
                "What made this page",
                [*list_versions(PACKAGES), ("platform", f"{platform.system()} {platform.machine()}")],
            ),
            *(
                Table(
                    f"Every metric, {name_part(part)}",
                    metrics[metrics["part"] == part].drop(columns="part").reset_index(drop=True),
                    columns,
                    n_heads=2,
                    folded=True,
                )
                for part in assessment.parts
            ),
        ],
        listings=listings,
        notes=[] if config is not None else ["The settings of the training are not known."],
    )


def hide_places(value: Any) -> Any:
    """Return settings in plain types, without passwords in addresses, and with only the last part of local paths."""
    if isinstance(value, Mapping):
        return {str(key): hide_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide_places(item) for item in value]
    if isinstance(value, str):
        if value.startswith(("/", "~", "file://")):
            return PurePosixPath(value).name
        return hide_secrets(value) if "://" in value else value
    return value if value is None or isinstance(value, bool | int | float) else str(value)
