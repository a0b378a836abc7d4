"""``README.md`` of a bundle: a model card as Hugging Face reads it, every number of it from the bundle's own tables."""

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cxrlit.config import Precision
from cxrlit.handoff.bundle import TABLES, name_member_files
from cxrlit.handoff.bundle_config import BundleConfig
from cxrlit.handoff.card_text import LIMITS, MISUSES
from cxrlit.handoff.ood_check import MAX_ASPECT, MIN_ASPECT, SHARE
from cxrlit.html.page import make_environment
from cxrlit.metrics.epoch_metrics import describe_monitor
from cxrlit.metrics.operating_point import OperatingPoint

SUMMARY, LABELS, CONFUSION = TABLES
TEST = "test"

MACROS = {
    "AUROC, macro": "auroc_macro",
    "average precision, macro": "average_precision_macro",
    "F1, macro": "f1_macro",
    "F1, micro": "f1_micro",
    "Brier score, macro": "brier_macro",
    "calibration error, macro": "ece_macro",
}

SETTINGS = ["img_size", "batch_size", "lr", "n_unfreeze", "batch_norm", "max_epochs"]
"""Of a phase, that the card shows."""


def write_card(
    config: BundleConfig, point: OperatingPoint, tables: Mapping[str, bytes], trained: Sequence[Precision]
) -> str:
    """The text of the card: ``model_card.md`` with the figures of a bundle.

    Args:
        config: Of the bundle.
        point: Its calibration and thresholds.
        tables: The bytes of ``TABLES``, and of other files, by name.
        trained: The precision of the training, of each member.
    """
    rows = {name: list(csv.DictReader(io.StringIO(tables[name].decode("utf-8")))) for name in TABLES}
    summary = next(row for row in rows[SUMMARY] if row["split"] == TEST)
    fitted, raw = _list_fitted(point), dict(zip(point.labels, point.threshold_probs().tolist(), strict=True))
    template = make_environment(Path(__file__).parent, _escape).get_template("model_card.md")
    return template.render(
        model_index=Markup(json.dumps(_index(config, summary), ensure_ascii=False)),
        config=config,
        point=point,
        misuses=MISUSES,
        limits=LIMITS,
        min_aspect=MIN_ASPECT,
        max_aspect=MAX_ASPECT,
        share=SHARE,
        settings=SETTINGS,
        describe_monitor=describe_monitor,
        graphs=[graph for _, graph in name_member_files(len(config.members))],
        trained=" and ".join(dict.fromkeys(trained)),
        summary=summary,
        macros=MACROS,
        labels=[row for row in rows[LABELS] if row["split"] == TEST],
        decisions=[
            {**row, "fitted": fitted[row["label"]], "threshold_prob": _show_threshold(raw[row["label"]])}
            for row in rows[CONFUSION]
        ],
        show=_show,
        span=_span,
    )


def _index(config: BundleConfig, summary: Mapping[str, str]) -> list[dict[str, Any]]:
    """What Hugging Face reads of the results."""
    named = (("roc_auc", "macro AUROC", summary["auroc_macro"]), ("f1", "macro F1", summary["f1_macro"]))
    metrics = [{"type": kind, "name": name, "value": float(value)} for kind, name, value in named if value]
    result = {
        "task": {"type": "image-classification", "name": "findings in chest radiographs"},
        "dataset": {"name": config.data.name, "type": config.data.name, "split": TEST},
        "metrics": metrics if len(metrics) == len(named) else [],
    }
    return [{"name": config.name, "results": [result]}]


def _list_fitted(point: OperatingPoint) -> dict[str, str]:
    """Slope and intercept of each label, as the card shows them."""
    if point.calibration is None:
        return dict.fromkeys(point.labels, "none")
    fitted = zip(point.labels, point.calibration.slope, point.calibration.intercept, strict=True)
    return {label: "none" if np.isnan(slope) else f"{slope:.3f}, {offset:.3f}" for label, slope, offset in fitted}


def _show(number: str) -> str:
    return f"{float(number):.3f}" if number else ""


def _show_threshold(value: float) -> str:
    """A threshold of raw probs.

    >>> [_show_threshold(value) for value in (0.25, 1.0000000000000002, float("nan"))]
    ['0.250', 'none reaches it', '']
    """
    return "" if np.isnan(value) else "none reaches it" if value > 1 else f"{value:.3f}"


def _span(row: Mapping[str, str], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return f"{float(low):.3f} to {float(high):.3f}" if low and high else ""


def _escape(value: Any) -> Any:
    """A name as text: nothing in it is markup.

    >>> str(_escape("a|<b>"))
    'a&#124;&lt;b&gt;'
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = html.escape(value, quote=False).replace("|", "&#124;").replace("`", "&#96;").replace("\n", " ")
    return Markup(text)
