"""The HTML page of ``cxrlit inspect``: one file that loads nothing and runs nothing.

Charts are bars inside tables and one inline SVG: what they show is there as text too, and they follow the reader's
light or dark colours.
"""

import base64
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlit.config import InspectConfig
from cxrlit.data.dataset import SplitData
from cxrlit.html.page import render_page
from cxrlit.html.text import count_reasons, format_number, format_share
from cxrlit.inspection.augment_sheet import N_EPOCHS, SHEET_PX, AugmentedImage
from cxrlit.inspection.charts import (
    AGE_STARTS,
    PATIENT_STARTS,
    chart_bins,
    chart_n_findings,
    chart_prevalence,
    draw_levels,
    heat_matrix,
)
from cxrlit.inspection.counts import UNKNOWN, IndexCounts, compare_prevalence
from cxrlit.inspection.image_check import THUMBNAIL_PX
from cxrlit.inspection.number_lists import (
    Row,
    format_change,
    list_file_facts,
    list_file_sizes,
    list_findings,
    list_patients,
    list_people,
    list_pixels,
)
from cxrlit.inspection.sample import Sample
from cxrlit.inspection.survey import Survey

FOLDER = Path(__file__).parent
PACKAGES = ("cxrlit", "numpy", "pandas", "opencv-python-headless", "albumentations")

MAX_LISTED = 200
"""Images that a list of the page names; it says how many there are."""


def render_survey(
    config: InspectConfig,
    survey: Survey,
    sample: Sample | None,
    concerns: Sequence[str],
    sheet: Sequence[AugmentedImage] | None = None,
) -> str:
    """The page. The same data and settings give the same bytes.

    Args:
        config: The settings.
        survey: What the tables say.
        sample: What the images say, where there are files of them.
        concerns: What a user should look into before training.
        sheet: Training images as they are augmented; None: they are not, or there are no files of them.
    """
    data, parts, labels = survey.data, survey.counts, survey.data.labels
    some_unknown = bool(parts[0].unknown.any())
    return render_page(
        FOLDER,
        "page",
        title=f"{data.name}: what is in the data",
        name=data.name,
        n_images=format_number(len(survey.rows)),
        n_patients=format_number(parts[0].n_patients),
        split=survey.describe_split(),
        concerns=concerns,
        parts=[part.name for part in parts],
        labels=labels,
        sources=_list_sources(survey),
        patients=list_patients(parts),
        per_patient=chart_bins([part.per_patient for part in parts], PATIENT_STARTS),
        people=list_people(parts),
        ages=chart_bins([part.ages for part in parts], AGE_STARTS),
        findings=list_findings(parts),
        n_findings=chart_n_findings(parts),
        some_unknown=some_unknown,
        target_heads=["positive", "negative", *(["unknown"] if some_unknown else []), "patients", "prevalence"],
        targets=[(part.name, _list_targets(part, parts[0], labels)) for part in parts],
        prevalence=chart_prevalence(parts, labels),
        together=[(part.name, heat_matrix(part)) for part in parts],
        reasons=[
            ("dropped", _list_reasons(data.name_rows(data.dropped))),
            ("left out", _list_reasons(data.name_rows(data.excluded))),
        ],
        file_sizes=list_file_sizes(survey.rows["n_bytes"]),
        stores=list(data.stores),
        sample=None if sample is None else _describe_sample(sample, survey),
        augmented=None if sheet is None else [_describe_augmented(image, survey) for image in sheet],
        unaugmented=not config.augment.transforms,
        n_epochs=N_EPOCHS,
        sheet_px=SHEET_PX,
        max_listed=MAX_LISTED,
        thumbnail_px=THUMBNAIL_PX,
        made=_list_making(config, survey),
    )


def _list_sources(survey: Survey) -> list[Row]:
    groups = survey.data.index.groupby("source", sort=False)
    return [(str(name), [format_number(len(rows)), format_number(rows["patient"].nunique())]) for name, rows in groups]


def _list_targets(part: IndexCounts, whole: IndexCounts, labels: Sequence[str]) -> list[Row]:
    change = compare_prevalence(part, whole)
    rows = []
    for row, label in enumerate(labels):
        unknown = [part.unknown[row]] if whole.unknown.any() else []
        numbers = [part.positives[row], part.negatives[row], *unknown, part.patients_with[row]]
        cells = [*(format_number(int(number)) for number in numbers), format_share(part.prevalence[row])]
        rows.append((label, cells if part is whole else [*cells, format_change(change[row])]))
    return rows


def _list_reasons(table: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    return [(reason, format_number(number), images) for reason, number, images in count_reasons(table)]


def _describe_sample(sample: Sample, survey: Survey) -> dict[str, Any]:
    path, highest = draw_levels(sample.levels)
    return {
        "files": list_file_facts(sample),
        "pixels": list_pixels(sample),
        "path": path,
        "highest": format_share(highest),
        "black": format_share(float(sample.levels[0])),
        "white": format_share(float(sample.levels[-1])),
        "corrupt": sample.corrupt,
        "flat": sample.flat,
        "duplicates": sample.duplicates,
        "sheet": [
            (label, [_describe_example(row, sample, survey) for row in rows]) for label, rows in sample.examples.items()
        ],
    }


def _describe_augmented(augmented: AugmentedImage, survey: Survey) -> dict[str, Any]:
    image = survey.rows.iloc[augmented.row]
    return {
        "image": str(image["image"]),
        "findings": _list_findings(image, survey),
        "original": base64.b64encode(augmented.original).decode(),
        "epochs": [base64.b64encode(picture).decode() for picture in augmented.epochs],
    }


def _list_findings(image: pd.Series, survey: Survey) -> str:
    present = [label for label in survey.data.labels if image[label] == 1]
    unknown = sum(pd.isna(image[label]) for label in survey.data.labels)
    findings = ", ".join(present) or "none of these labels present"
    return f"{findings} ({unknown} unknown)" if unknown else findings


def _describe_example(row: int, sample: Sample, survey: Survey) -> dict[str, str]:
    image = survey.rows.iloc[row]
    details = [f"view {image['view']}" if pd.notna(image["view"]) else f"view {UNKNOWN}"]
    if "split" in image:
        details.append(str(image["split"]))
    thumbnail = sample.thumbnails.get(row)
    return {
        "image": str(image["image"]),
        "patient": str(image["patient"]),
        "details": ", ".join(details),
        "findings": _list_findings(image, survey),
        "png": "" if thumbnail is None else base64.b64encode(thumbnail).decode(),
        "fault": sample.faults.get(row, ""),
    }


def _list_making(config: InspectConfig, survey: Survey) -> list[tuple[str, str]]:
    data = survey.data
    made = [("index hash", data.index_hash)]
    if isinstance(data, SplitData):
        made.append(("split hash", data.split_hash))
    made += [(f"version of {name}", version(name)) for name in PACKAGES]
    made.append(("version of Python", platform.python_version()))
    settings = config.model_dump(exclude={"out", "num_workers"})  # they change nothing on the page
    return made + [(key, text) for key, text in _flatten(settings)]


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append((f"{prefix}{key}", ", ".join(map(str, value))))
        elif value is not None:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
