"""Pictures of a report: dots are whole, and no legend lies over a panel or leaves the picture."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from assessed import make_assessment
from matplotlib.figure import Figure

from cxrlit.evaluation.report.decisions_section import build_decisions_section
from cxrlit.evaluation.report.reliability_section import build_calibration_section
from cxrlit.evaluation.report.subgroups_section import build_subgroups_section
from cxrlit.evaluation.report.thresholds_section import build_thresholds_section
from cxrlit.evaluation.subgroups.subgroup_metrics import measure_subgroups
from cxrlit.html.figures import drawing
from cxrlit.html.section import walk

DOT = 1.5
"""Pixels that a dot may reach beyond its place before a frame cuts it."""


def check_layout(figure: Figure) -> None:
    figure.draw_without_rendering()
    legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
    for legend in legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
        assert figure.bbox.x0 - 1 <= box.x0 < box.x1 <= figure.bbox.x1 + 1
        assert box.y0 >= figure.bbox.y0 - 1
        for axes in figure.axes:
            assert not box.overlaps(axes.xaxis.label.get_window_extent()) or not axes.get_xlabel()
    for axes in figure.axes:
        frame = axes.get_window_extent()
        for line in axes.get_lines():
            points = np.asarray(line.get_xydata(), float)
            points = points[np.isfinite(points).all(axis=1)]
            if line.get_marker() in ("None", "", None) or not len(points):
                continue
            places = axes.transData.transform(points)
            assert (places.min(axis=0) >= [frame.x0 + DOT, frame.y0 + DOT]).all()
            assert (places.max(axis=0) <= [frame.x1 - DOT, frame.y1 - DOT]).all()


def keep(tables: dict[str, pd.DataFrame]) -> None:
    """Changes nothing."""


def separate(tables: dict[str, pd.DataFrame]) -> None:
    """Probabilities at both ends of the scale: dots at 0 and at 1."""
    for table in tables.values():
        table["prob_Mass"] = table["target_Mass"].astype(np.float32)
        table["prob_Effusion"] = (0.999 * table["prob_Effusion"].round()).astype(np.float32)


def take_away(tables: dict[str, pd.DataFrame]) -> None:
    """No positive of one label."""
    for table in tables.values():
        table["target_Mass"] = np.float32(0)


@pytest.mark.parametrize("change", [keep, separate, take_away])
@pytest.mark.parametrize("settings", [(), ("calibration=none",)])
@pytest.mark.parametrize("n_images", [12, 150])
def test_pictures_of_labels(
    change: Callable[[dict[str, pd.DataFrame]], None], settings: tuple[str, ...], n_images: int
) -> None:
    labels = ("Effusion", "Mass", "Enlarged cardiomediastinum of unknown origin")
    assessment = make_assessment(labels, ("val", "test"), *settings, change=change, n_images=n_images, n_patients=9)
    tables = assessment.tables()
    with drawing():
        sections = [
            build_calibration_section(assessment),
            build_thresholds_section(assessment, tables),
            build_decisions_section(assessment, tables),
        ]
        for section in walk(sections):
            for picture in section.pictures:
                check_layout(picture.figure)


def test_a_subgroup_without_any_area_has_no_picture() -> None:
    def change(tables: dict[str, pd.DataFrame]) -> None:
        for table in tables.values():
            table["sex"] = np.where(np.arange(len(table)) % 2, "F", "M")
            table[["target_Effusion", "target_Mass"]] = np.float32(0)

    assessment = make_assessment(change=change)
    groups = measure_subgroups(assessment.final.predictions, assessment.point, ["sex"], [18], 100, 0)
    section = build_subgroups_section(groups, list(assessment.labels))
    assert [below.pictures for below in section.sections] == [[]]
