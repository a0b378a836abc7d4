"""Write ``report.html`` and its pictures."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cxrlit.core.console import progress_steps
from cxrlit.core.files import write_bytes, write_text
from cxrlit.evaluation.measure.assessment import Assessment, EvaluatedModel
from cxrlit.evaluation.measure.roc_pr_curves import N_REPLICATES, make_curves
from cxrlit.evaluation.predictions import split_arrays
from cxrlit.evaluation.report.decision_curves_section import build_decision_curves_section
from cxrlit.evaluation.report.decisions_section import build_decisions_section
from cxrlit.evaluation.report.discrimination_section import build_discrimination_section
from cxrlit.evaluation.report.provenance_section import build_data_section, build_provenance_section
from cxrlit.evaluation.report.reliability_section import build_calibration_section
from cxrlit.evaluation.report.summary_section import summarise
from cxrlit.evaluation.report.thresholds_section import build_thresholds_section
from cxrlit.html.figures import drawing, encode_png
from cxrlit.html.page import render_sections
from cxrlit.html.section import Section, walk


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
        assessment: The assessment.
        out: The folder of its tables.
        extras: Further sections, placed before those on data and settings.
        seed: Seed of the resamples for the bands of the curves.
        headline: First sentence of the summary.
        shared: Path of a second copy of the page, without images of patients.

    Returns:
        Path of the page.

    Raises:
        ValueError: An anchor, the name of a picture or the caption of a table is invalid or occurs twice, or a table
            lacks a column that it names.
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
            build_decision_curves_section(assessment, tables),
            *extras,
            build_data_section(assessment, tables),
            build_provenance_section(assessment, tables),
        ]
        step("page")
        render = partial(_render, assessment.subject)
        page = render(sections)
        for section in walk(sections):
            for picture in section.pictures:
                write_bytes(out / "figures" / f"{picture.name}.png", encode_png(picture.figure))
        write_text(out / "report.html", page)
        if shared is not None:
            write_text(shared, render([_drop_images(section) for section in sections]))
    return out / "report.html"


def _render(subject: EvaluatedModel, sections: Sequence[Section]) -> str:
    split = f", {subject.split_name} split {subject.split_hash}" if subject.split_hash else ""
    return render_sections(f"Evaluation of {subject.name}", [f"{subject.data}{split}"], sections)


def _drop_images(section: Section) -> Section:
    return replace(section, images=(), sections=[_drop_images(below) for below in section.sections])
