"""From predictions tables to an assessment: operating point, metrics, intervals; and its files. No image is needed."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrlit.config import EvaluateConfig
from cxrlit.core.console import show_steps
from cxrlit.core.files import sweep_staged, write_csv
from cxrlit.evaluation.fitting import fit_operating_point
from cxrlit.evaluation.measure.measure import Measured, measure
from cxrlit.evaluation.measure.metric_tables import (
    tabulate_confusion,
    tabulate_labels,
    tabulate_summary,
    tabulate_thresholds,
)
from cxrlit.evaluation.measure.tune_thresholds import Stability, measure_stability
from cxrlit.evaluation.predictions import list_labels, split_arrays, write_predictions
from cxrlit.evaluation.subject import Subject
from cxrlit.metrics.operating_point import OperatingPoint, no_operating_point, read_operating_point

HOME, EXTERNAL = "home", "external"


@dataclass(frozen=True)
class Assessment:
    """What the predictions say of a model.

    Attributes:
        subject: What is evaluated.
        point: Calibration and thresholds.
        stability: Of the thresholds; None where they were not tuned here.
        parts: What was measured, by part; the last one is what counts: test, or external.
        dropped: Images that could not be evaluated: ``image``, ``path``, ``reason``.
    """

    subject: Subject
    point: OperatingPoint
    stability: Stability | None
    parts: Mapping[str, Measured]
    dropped: pd.DataFrame

    @property
    def labels(self) -> tuple[str, ...]:
        return self.point.labels

    @property
    def final(self) -> Measured:
        """The part that counts."""
        return list(self.parts.values())[-1]

    @property
    def is_external(self) -> bool:
        """Whether the part that counts is of other data than those of the training."""
        return self.final.part == EXTERNAL

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of the metrics, by file name."""
        parts, subject = list(self.parts.values()), self.subject
        predicted = {"predicted": subject.predicted} if subject.predicted else {}
        return {
            "eval_summary.csv": tabulate_summary(parts, subject.origin | predicted),
            "eval_per_label_auroc.csv": tabulate_labels(parts),
            "confusion_template.csv": tabulate_confusion(self.final, self.point),
            "eval_thresholds.csv": tabulate_thresholds(self.point, self.stability),
            "eval_metrics.csv": pd.concat([measured.metrics for measured in parts], ignore_index=True),
        }


def assess(
    predictions: Mapping[str, pd.DataFrame], subject: Subject, dropped: pd.DataFrame, config: EvaluateConfig
) -> Assessment:
    """Fix the operating point on validation, and measure every part at it.

    Args:
        predictions: The predictions table of each part, the one that counts last.
        subject: What is evaluated.
        dropped: Images that could not be.
        config: ``calibration``, ``threshold_rule``, ``wanted``, ``thresholds``, ``n_replicates``, ``seed``.

    Raises:
        DataError: ``thresholds`` cannot be read, or lacks a label.
    """
    labels = list_labels(next(iter(predictions.values())))
    with show_steps(1 + len(predictions)) as step:
        step("operating point")
        point, stability = find_operating_point(predictions.get("val"), labels, subject, config)
        parts = {}
        for part, table in predictions.items():
            step(f"metrics of {part}")
            parts[part] = measure(part, table, point, config.n_replicates, config.seed)
    return Assessment(subject, point, stability, parts, dropped)


def find_operating_point(
    validation: pd.DataFrame | None, labels: list[str], subject: Subject, config: EvaluateConfig
) -> tuple[OperatingPoint, Stability | None]:
    """The one that is given, or the one that validation chooses and its stability, or none with the reason."""
    if config.thresholds is not None:
        return read_operating_point(Path(config.thresholds)).only(labels), None
    if validation is None:
        return no_operating_point(labels, "there are no validation images"), None
    point = tune_operating_point(validation, {"tuned_on": "val", **subject.origin}, config)
    probs, targets = split_arrays(validation)
    patients, calibrated = validation["patient"].to_numpy(), point.calibrate(probs)
    stability = measure_stability(point.thresholds, calibrated, targets, patients, config.n_replicates, config.seed)
    return point, stability


def tune_operating_point(
    predictions: pd.DataFrame, origin: Mapping[str, str], config: EvaluateConfig
) -> OperatingPoint:
    """Calibration and thresholds as the config wants them, fitted on a predictions table."""
    probs, targets = split_arrays(predictions)
    return fit_operating_point(
        probs,
        targets,
        list_labels(predictions),
        method=None if config.calibration == "none" else config.calibration,
        rule=config.threshold_rule,
        wanted=config.wanted,
        origin=origin,
    )


def write_assessment(assessment: Assessment, out: Path) -> None:
    """Write predictions, tables and operating point into a folder."""
    for part, measured in assessment.parts.items():
        write_predictions(out / f"predictions_{part}.csv", measured.predictions)
    for name, table in assessment.tables().items():
        write_csv(out / name, table)
    assessment.point.write(out / "thresholds.json")
    write_csv(out / "dropped.csv", assessment.dropped)


OWNED = ("eval_*.csv", "predictions_*.csv", "confusion_template.csv", "thresholds*.json", "dropped.csv", "report.html")
OWNED_FOLDERS = ("figures", "heatmaps")


def clear_evaluation(out: Path) -> None:
    """Remove what an earlier evaluation left in a folder, whole or killed, so that no file of it stays beside the new
    ones.
    """
    if out.is_dir():
        sweep_staged(out, OWNED)
    summary = out / "eval_summary.csv"
    if not summary.is_file():
        return
    for name in OWNED_FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for pattern in OWNED:
        for path in out.glob(pattern):
            if path != summary:
                path.unlink()
    summary.unlink()  # last: it says that the others are an evaluation's
