"""The curves of a phase: every value is inside its frame, and no legend lies over one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cxrlit.core.labels import LABELS
from cxrlit.training.curves import draw_curves, plot_curves

METRICS = {"auroc": True, "average_precision": True}


def make_table(n_epochs: int, labels: Sequence[str] = LABELS, seed: int = 0) -> pd.DataFrame:
    """As ``metrics.csv`` of a phase: the losses fall, the metrics rise."""
    rng, epochs = np.random.default_rng(seed), np.arange(1, n_epochs + 1)
    loss = 1 / np.sqrt(epochs) + 0.05 * rng.random(n_epochs)
    table = pd.DataFrame({"epoch": epochs, "lr": 1e-3 * 0.5**epochs, "train_loss": loss, "val_loss": 1.2 * loss})
    for metric in METRICS:
        values = pd.DataFrame(1 - 0.5 * loss[:, None] * rng.random((n_epochs, len(labels))), columns=list(labels))
        table[f"val_{metric}_macro"] = values.mean(axis=1)
        table = table.join(values.add_prefix(f"val_{metric}_"))
    return table


def plot(table: pd.DataFrame, labels: Sequence[str] = LABELS, **changes: Any) -> Figure:
    return plot_curves(
        table, **{"metrics": METRICS, "labels": labels, "monitor": "val/auroc_macro", "mode": "max"} | changes
    )


def check_layout(figure: Figure) -> None:
    """Each dot lies whole within its frame; legends and frames lie apart; everything is on the picture."""
    FigureCanvasAgg(figure).draw()
    page = figure.bbox
    panels = [axes for axes in figure.axes if axes.get_visible()]
    for axes in panels:
        for line in axes.get_lines():
            check_points(axes, np.asarray(line.get_xydata(), float))
        legend = axes.get_legend()
        if legend is not None:
            box = legend.get_window_extent()
            assert not any(box.overlaps(other.get_window_extent()) for other in panels)
            assert page.x0 - 1 <= box.x0 < box.x1 <= page.x1 + 1
            assert page.y0 - 1 <= box.y0 < box.y1 <= page.y1 + 1
        for label in axes.get_xticklabels():
            assert not label.get_text() or float(label.get_text()) == int(float(label.get_text()))


def check_points(axes: Axes, points: np.ndarray) -> None:
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) == 0 or set(points[:, 1]) == {0, 1} or set(points[:, 0]) == {0, 1}:  # a line across the panel
        return
    frame, places = axes.get_window_extent(), axes.transData.transform(points)
    assert (places[:, 1] >= frame.y0).all(), axes.get_title()
    assert (places[:, 1] <= frame.y1 - 3).all(), axes.get_title()  # a dot of the topmost value is whole
    assert (places[:, 0] >= frame.x0).all()
    assert (places[:, 0] <= frame.x1).all()


@pytest.mark.parametrize(("n_epochs", "n_labels"), [(1, 8), (2, 40), (3, 1), (10, 14), (60, 8), (60, 40)])
def test_every_value_is_in_its_frame_and_beside_the_legend(n_epochs: int, n_labels: int) -> None:
    labels = [f"Finding {number} of a name that is long" for number in range(n_labels)]
    check_layout(plot(make_table(n_epochs, labels), labels))


def change(**columns: Any) -> pd.DataFrame:
    table = make_table(6)
    for name, value in columns.items():
        table[name] = value
    return table


CHANGES = {
    "the loss rises": change(train_loss=np.linspace(0.1, 3, 6)),
    "one loss is far above the others": change(val_loss=[0.5, 0.5, 80, 0.5, 0.5, 0.5]),
    "losses are equal": change(val_loss=0.5, train_loss=0.5),
    "losses are 0": change(val_loss=0.0, train_loss=0.0),
    "losses are below 0": change(val_loss=np.linspace(-1, -3, 6)),
    "some values are unknown": change(
        val_loss=[np.nan, 1, np.nan, 2, 1, 1], val_auroc_macro=[np.nan, 0.6, 0.7, np.nan, 0.8, 0.7]
    ),
    "no value is known": change(val_loss=np.nan, train_loss=np.nan, val_auroc_macro=np.nan),
    "a loss is infinite": change(val_loss=[np.inf, 2, 1, 1, 1, 1]),
    "a label is undefined": change(val_auroc_Mass=np.nan),
    "the learning rate falls to nearly nothing": change(lr=[4e-5, 1e-3, 9e-4, 5e-4, 1e-5, 4e-9]),
    "the learning rate is 0 at the end": change(lr=[1e-3, 1e-3, 1e-3, 1e-4, 1e-5, 0]),
    "there is no learning rate": change(lr=0.0),
    "training is measured, too": change(train_auroc_macro=np.linspace(0.6, 0.99, 6), train_average_precision_macro=0.9),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("error")
def test_odd_values(name: str) -> None:
    check_layout(plot(CHANGES[name]))


def test_the_file_is_a_picture(tmp_path: Path) -> None:
    draw_curves(make_table(2), METRICS, LABELS, "val/auroc_macro", "max", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        picture.verify()


def test_other_metrics_and_monitors() -> None:
    table = make_table(4).assign(val_own=[0.1, 0.2, 0.3, 0.1])
    check_layout(plot(table, metrics={}, monitor="val/loss", mode="min"))
    check_layout(plot(table, metrics={"own": False}, monitor="val/own"))
    figure = plot(table, metrics={"own": False}, monitor="val/own")
    legends = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert "best: 0.3000, epoch 3" in legends
    assert "learning rate (right)" in legends
