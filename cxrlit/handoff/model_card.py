"""Write ``README.md`` of a bundle: a Hugging Face model card, with all numbers from the bundle's own tables."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from cxrlit.config import Precision
from cxrlit.handoff.bundle import TABLES, name_int8_files, name_member_files
from cxrlit.handoff.bundle_config import BundleConfig
from cxrlit.handoff.card_text import LIMITS, MISUSES
from cxrlit.handoff.int8.gate import describe_int8, show_labels
from cxrlit.handoff.ood_check import MAX_ASPECT, MIN_ASPECT, SHARE
from cxrlit.html.markdown import escape_markdown
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

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)

SETTINGS = ["img_size", "batch_size", "lr", "n_unfreeze", "batch_norm", "max_epochs"]
"""Settings of a phase that the card shows."""


def write_card(
    config: BundleConfig,
    point: OperatingPoint,
    tables: Mapping[str, bytes],
    trained: Sequence[Precision],
    license_id: str = "unknown",
) -> str:
    """Write the text of the card: ``model_card.md`` with the figures of a bundle.

    Args:
        config: Config of the bundle.
        point: Its calibration and thresholds.
        tables: The bytes of ``TABLES`` and other files, by name.
        trained: Training precision of each member.
        license_id: The Hub's id of the licence of the weights.
    """
    rows = {name: list(csv.DictReader(io.StringIO(tables[name].decode("utf-8")))) for name in TABLES}
    summary = next(row for row in rows[SUMMARY] if row["split"] == TEST)
    fitted, raw = _list_fitted(point), dict(zip(point.labels, point.threshold_probs().tolist(), strict=True))
    template = make_environment(Path(__file__).parent, escape_markdown).get_template("model_card.md")
    return template.render(
        front=Markup(_write_front(config, summary, license_id)),
        config=config,
        point=point,
        misuses=MISUSES,
        limits=LIMITS,
        min_aspect=MIN_ASPECT,
        max_aspect=MAX_ASPECT,
        share=SHARE,
        settings=SETTINGS,
        describe_monitor=describe_monitor,
        int8_graphs=name_int8_files(len(config.members)),
        describe_int8=describe_int8,
        show_int8=show_labels,
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


def _write_front(config: BundleConfig, summary: Mapping[str, str], license_id: str) -> str:
    """Write the front matter, which the Hub shows beside the card and filters by. Values are JSON, which is YAML too.

    Data sets and base models without a valid id on the Hub are named only in the card.
    """
    known = (("roc_auc", "macro AUROC", "auroc_macro"), ("f1", "macro F1", "f1_macro"))
    metrics = [{"type": kind, "name": name, "value": float(summary[key])} for kind, name, key in known if summary[key]]
    result = {
        "task": {"type": "image-classification", "name": "findings in chest radiographs"},
        "dataset": {"name": config.data.name, "type": config.data.name, "split": TEST},
        "metrics": metrics if len(metrics) == len(known) else [],
    }
    start = config.start.weights.split(", ") if config.start else []
    front = {
        "license": license_id,
        "library_name": "cxrlit",
        "pipeline_tag": "image-classification",
        "tags": ["chest-x-ray", "radiology", "medical", "multi-label-classification", "densenet121"],
        "datasets": [name for name in config.data.name.split("+") if HUB_ID.fullmatch(name)],
        "base_model": [hub_id for hub_id in map(_find_base_model, start) if hub_id],
        "metrics": [kind for kind, _, _ in known],
        "model-index": [{"name": config.name, "results": [result]}],
    }
    return "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items() if value)


def _find_base_model(weights: str) -> str:
    """Find the Hub's id of starting weights; empty if there is none or it is unknown.

    >>> [_find_base_model(name) for name in ("imagenet", "xrv:nih", "timm:densenet121.ra_in1k", "random weights")]
    ['timm/densenet121.tv_in1k', 'torchxrayvision/densenet121-res224-nih', 'timm/densenet121.ra_in1k', '']
    """
    if weights == "imagenet":
        return "timm/densenet121.tv_in1k"  # torchvision's weights, published on the Hub by timm
    source, _, name = weights.partition(":")
    owners = {"xrv": "torchxrayvision/densenet121-res224-", "timm": "timm/"}
    return f"{owners[source]}{name}" if source in owners and HUB_ID.fullmatch(name) else ""


def _list_fitted(point: OperatingPoint) -> dict[str, str]:
    """List slope and intercept of each label for the card."""
    if point.calibration is None:
        return dict.fromkeys(point.labels, "none")
    fitted = zip(point.labels, point.calibration.slope, point.calibration.intercept, strict=True)
    return {label: "none" if np.isnan(slope) else f"{slope:.3f}, {offset:.3f}" for label, slope, offset in fitted}


def _show(number: str) -> str:
    return f"{float(number):.3f}" if number else ""


def _show_threshold(value: float) -> str:
    """Format a threshold of raw probs.

    >>> [_show_threshold(value) for value in (0.25, 1.0000000000000002, float("nan"))]
    ['0.250', 'none reaches it', '']
    """
    return "" if np.isnan(value) else "none reaches it" if value > 1 else f"{value:.3f}"


def _span(row: Mapping[str, str], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return f"{float(low):.3f} to {float(high):.3f}" if low and high else ""
