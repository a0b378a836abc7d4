"""``report.html`` and its pictures."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrlit.core.console import progress_steps
from cxrlit.core.files import write_bytes, write_text
from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.evaluation.measure.roc_pr_curves import N_REPLICATES, make_curves
from cxrlit.evaluation.predictions import split_arrays
from cxrlit.evaluation.report.decisions_section import build_decisions_section
from cxrlit.evaluation.report.discrimination_section import build_discrimination_section
from cxrlit.evaluation.report.provenance_section import build_data_section, build_provenance_section
from cxrlit.evaluation.report.reliability_section import build_calibration_section
from cxrlit.evaluation.report.section import Picture, Section
from cxrlit.evaluation.report.small_plots import TILE
from cxrlit.evaluation.report.summary_section import DISCLAIMER, summarise
from cxrlit.evaluation.report.table_cells import Grid, make_grid
from cxrlit.evaluation.report.thresholds_section import build_thresholds_section
from cxrlit.html.figures import drawing, embed, encode_png, encode_svg
from cxrlit.html.page import render_page

FOLDER = Path(__file__).parent
NAME = re.compile("[a-z0-9][a-z0-9_-]*")


def write_report(
    assessment: Assessment,
    out: Path,
    extras: Sequence[Section] = (),
    seed: int = 0,
    headline: str = "",
    shared: Path | None = None,
) -> Path:
    """Write ``report.html`` and, as PNG files, its pictures in ``figures/``. The same input gives the same bytes.

    Args:
        assessment: What was found.
        out: The folder of its tables.
        extras: Further sections; they come before those on data and settings.
        seed: Of the resamples behind the bands of the curves.
        headline: The sentence that the summary begins with.
        shared: Where the page goes a second time, without the images of its sections: they show patients.

    Returns:
        The page.

    Raises:
        ValueError: An anchor, the name of a picture or the caption of a table is there twice or cannot be one, or a
            table names a column that it lacks.
    """
    tables, final = assessment.tables(), assessment.final
    n_replicates = min(N_REPLICATES, final.replicates["auroc"].n_replicates)
    with progress_steps(3) as step, drawing():
        step("curves")
        probs, targets = split_arrays(final.predictions)
        curves = make_curves(probs, targets, final.predictions["patient"].to_numpy(), n_replicates, seed)
        step("pictures")
        sections = [
            summarise(assessment, tables, headline),
            build_discrimination_section(assessment, curves, n_replicates),
            build_calibration_section(assessment),
            build_thresholds_section(assessment, tables),
            build_decisions_section(assessment, tables),
            *extras,
            build_data_section(assessment, tables),
            build_provenance_section(assessment, tables),
        ]
        _check_names(sections)
        grids = {table.caption: make_grid(table) for section in _walk(sections) for table in section.tables}
        described = [_describe(section, grids, out / "figures") for section in sections]
        step("page")
        write_text(out / "report.html", _render(assessment, described))
        if shared is not None:
            write_text(shared, _render(assessment, [_drop_images(section) for section in described]))
    return out / "report.html"


def _render(assessment: Assessment, described: Sequence[Mapping[str, Any]]) -> str:
    return render_page(
        FOLDER,
        "report",
        title=f"Evaluation of {assessment.subject.name}",
        subject=assessment.subject,
        disclaimer=DISCLAIMER,
        sections=described,
    )


def _drop_images(described: Mapping[str, Any]) -> dict[str, Any]:
    return {**described, "images": [], "sections": [_drop_images(section) for section in described["sections"]]}


def _check_names(sections: Sequence[Section]) -> None:
    everything = list(_walk(sections))
    anchors = [section.anchor for section in everything]
    pictures = [picture.name for section in everything for picture in section.pictures]
    captions = [table.caption for section in everything for table in section.tables]
    for what, names in (("anchor", anchors), ("picture", pictures), ("table", captions)):
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two sections of the report have the {what} {twice[0]!r}")
        odd = [name for name in names if what != "table" and not NAME.fullmatch(name)]
        if odd:
            raise ValueError(
                f"{odd[0]!r} cannot be the name of a {what}: lower-case letters, digits, hyphens, underscores"
            )


def _walk(sections: Sequence[Section]) -> Iterator[Section]:
    for section in sections:
        yield section
        yield from _walk(section.sections)


def _describe(section: Section, grids: Mapping[str, Grid], figures: Path) -> dict[str, Any]:
    """A section as the template wants it; its pictures are written."""
    return {
        "section": section,
        "tables": [(table, grids[table.caption]) for table in section.tables],
        "pictures": [_describe_picture(picture, figures) for picture in section.pictures],
        "images": [
            {"address": embed(image.path.read_bytes()), "alt": image.alt, "caption": image.caption, "size": None}
            for image in section.images
        ],
        "listings": {name: text.splitlines() for name, text in section.listings.items()},
        "sections": [_describe(below, grids, figures) for below in section.sections],
    }


def _describe_picture(picture: Picture, figures: Path) -> dict[str, Any]:
    write_bytes(figures / f"{picture.name}.png", encode_png(picture.figure))
    width, height = picture.figure.get_size_inches()
    return {
        "address": embed(encode_svg(picture.figure)),
        "alt": picture.alt,
        "caption": picture.caption,
        "kind": "tile" if width <= TILE else "wide",
        "size": (round(96 * width), round(96 * height)),
    }
