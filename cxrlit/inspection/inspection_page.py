"""The HTML page of ``cxrlit inspect``: one self-contained file without scripts."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxrlit.config import InspectConfig
from cxrlit.core.errors import format_count
from cxrlit.data.dataset import SplitData
from cxrlit.html.figures import drawing
from cxrlit.html.page import render_sections
from cxrlit.html.section import Section
from cxrlit.html.tables import make_pairs
from cxrlit.html.text import list_versions
from cxrlit.inspection.augment_sheet import AugmentedImage
from cxrlit.inspection.image_sections import (
    build_augmented_section,
    build_contact_sheet,
    build_files_section,
    build_pixels_section,
)
from cxrlit.inspection.sample import Sample
from cxrlit.inspection.survey import Survey
from cxrlit.inspection.table_sections import build_table_sections

PACKAGES = ("cxrlit", "numpy", "pandas", "opencv-python-headless", "albumentations")


def render_survey(
    config: InspectConfig,
    survey: Survey,
    sample: Sample | None,
    concerns: Sequence[str],
    sheet: Sequence[AugmentedImage] | None = None,
) -> str:
    """Render the page. The same data and settings give the same bytes.

    Args:
        config: The settings.
        survey: The survey of the tables.
        sample: The sample of the images, if there are image files.
        concerns: Warnings that the user should check before training.
        sheet: Augmented training images; None: no augmentation, or no image files.
    """
    images, patients = format_count(len(survey.rows), "image"), format_count(survey.counts[0].n_patients, "patient")
    with drawing():
        return render_sections(
            f"{survey.data.name}: what is in the data",
            [f"{images} of {patients}; {survey.describe_split()}"],
            [
                *build_table_sections(survey, concerns),
                build_files_section(survey, sample),
                build_pixels_section(sample),
                build_contact_sheet(survey, sample),
                build_augmented_section(survey, sheet, bool(config.augment.transforms)),
                _describe_making(config, survey),
            ],
            names_patients=True,
        )


def _describe_making(config: InspectConfig, survey: Survey) -> Section:
    data = survey.data
    made = [("index hash", data.index_hash)]
    if isinstance(data, SplitData):
        made.append(("split hash", data.split_hash))
    settings = config.model_dump(exclude={"out", "num_workers"})  # these do not affect the page
    return Section(
        "How it was made",
        "made",
        tables=[make_pairs("Hashes, versions and settings", [*made, *list_versions(PACKAGES), *_flatten(settings)])],
        notes=["Made by cxrlit inspect."],
    )


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
