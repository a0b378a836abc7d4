"""Assess predictions tables: operating point, metrics, intervals, and their files. No images are needed."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlit.config import EvaluateConfig, Precision
from cxrlit.core.console import progress_steps
from cxrlit.core.files import sweep_staged, write_csv
from cxrlit.data.dataset import SplitData
from cxrlit.evaluation.measure.caveats import find_caveats
from cxrlit.evaluation.measure.evaluation_names import (
    choose_evaluation_precision,
    describe_prediction,
    describe_way,
    name_checkpoint,
    name_checkpoints,
)
from cxrlit.evaluation.measure.measure import Measured, measure
from cxrlit.evaluation.measure.metric_tables import (
    tabulate_confusion,
    tabulate_decision_curves,
    tabulate_labels,
    tabulate_summary,
    tabulate_thresholds,
)
from cxrlit.evaluation.measure.tune_thresholds import Stability, fit_operating_point, measure_stability
from cxrlit.evaluation.predictions import list_labels, split_arrays, write_predictions
from cxrlit.metrics.epoch_metrics import describe_monitor
from cxrlit.metrics.operating_point import OperatingPoint, no_operating_point
from cxrlit.metrics.read_operating_point import read_operating_point
from cxrlit.model.checkpoint import Checkpoint
from cxrlit.model.weights.seen import find_own_saw, name_start

HOME, EXTERNAL = "home", "external"


@dataclass(frozen=True)
class EvaluatedModel:
    """The evaluated model and its data.

    Attributes:
        name: ``finetune-1a2b3c4d/best.ckpt``, independent of where the folder is; for an ensemble all names; for
            another program's predictions the name of their file.
        data: Name of the data.
        split_name: Name of the split.
        split_hash: Hash of the split.
        predicted: How the probs were computed, which should be the same for compared models; empty if unknown.
        precision: Precision in which the probs were computed; None if unknown.
        in_training: Validation macro AUROC that the training measured, and its precision; None if the training
            predicted in another way: for ensembles, and with test-time augmentation.
        facts: Further facts for the reader, in order: a name and a text each.
        config: All settings of the training, if known.
        caveats: Sentences that must accompany every number, such as that the starting weights saw the images.
    """

    name: str
    data: str
    split_name: str
    split_hash: str
    predicted: str = ""
    precision: Precision | None = None
    in_training: tuple[float, Precision] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    caveats: tuple[str, ...] = ()

    @property
    def origin(self) -> dict[str, str]:
        """Split and model of the numbers, a column each."""
        return {"split_name": self.split_name, "split_hash": self.split_hash, "checkpoint": self.name}


def describe_checkpoints(checkpoints: Sequence[Checkpoint], data: SplitData, config: EvaluateConfig) -> EvaluatedModel:
    """Describe one checkpoint, or the mean of several, on some data."""
    first = checkpoints[0]
    facts = {}
    for number, member in enumerate(checkpoints, start=1):
        saw = find_own_saw(member.config.model, member.metadata.start_sources)
        facts["checkpoint" if len(checkpoints) == 1 else f"member {number}"] = (
            f"{name_checkpoint(member)}: epoch {member.metadata.epoch}, "
            f"{describe_monitor(member.metadata.monitor)} {member.metadata.score:.4f}, "
            f"{member.img_size} px, "
            f"trained in {member.metadata.precision} from {name_start(member.config.model)}"
            + (f" (trained on {', '.join(saw)})" if saw else "")
        )
        if member.metadata.history:
            facts[f"phases before {member.metadata.name}"] = ", ".join(member.metadata.history)
    facts |= describe_way(config)
    epoch_auroc = first.metadata.scores.get("auroc_macro")
    as_trained = len(checkpoints) == 1 and config.tta == "none"
    return EvaluatedModel(
        name=name_checkpoints(checkpoints),
        data=data.name,
        split_name=data.split_name,
        split_hash=first.metadata.split_hash,
        predicted=describe_prediction(checkpoints, config),
        precision=choose_evaluation_precision(config),
        in_training=(epoch_auroc, first.metadata.precision) if as_trained and epoch_auroc is not None else None,
        facts=facts,
        config=first.metadata.config,
        caveats=find_caveats(checkpoints, data),
    )


@dataclass(frozen=True)
class Assessment:
    """The measurements of a model.

    Attributes:
        subject: The evaluated model and its data.
        point: Calibration and thresholds.
        stability: Stability of the thresholds; None if they were not tuned here.
        parts: Measurements by part; the last is the final one: test, or external.
        dropped: Images that could not be evaluated: ``image``, ``path``, ``reason``.
    """

    subject: EvaluatedModel
    point: OperatingPoint
    stability: Stability | None
    parts: Mapping[str, Measured]
    dropped: pd.DataFrame

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the L labels, in order."""
        return self.point.labels

    @property
    def final(self) -> Measured:
        """The final part: test, or external."""
        return list(self.parts.values())[-1]

    @property
    def dtype(self) -> Any:
        """Type of the probs: float32 from a network, float64 from another program."""
        return split_arrays(self.final.predictions)[0].dtype

    @property
    def is_external(self) -> bool:
        """Whether the final part comes from other data than the training."""
        return self.final.part == EXTERNAL

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of the metrics, by file name."""
        parts, subject = list(self.parts.values()), self.subject
        further = {"predicted": subject.predicted, "caveat": "; ".join(subject.caveats)}
        said = {column: text for column, text in further.items() if text}
        return {
            "eval_summary.csv": tabulate_summary(parts, subject.origin | said),
            "eval_per_label_auroc.csv": tabulate_labels(parts),
            "confusion_template.csv": tabulate_confusion(self.final, self.point),
            "eval_thresholds.csv": tabulate_thresholds(self.point, self.stability, self.dtype),
            "eval_decision_curves.csv": tabulate_decision_curves(self.final, self.point),
            "eval_metrics.csv": pd.concat([measured.metrics for measured in parts], ignore_index=True),
        }


def assess(
    predictions: Mapping[str, pd.DataFrame], subject: EvaluatedModel, dropped: pd.DataFrame, config: EvaluateConfig
) -> Assessment:
    """Fix the operating point on validation, and measure every part at it.

    Args:
        predictions: The predictions table of each part, the final one last.
        subject: The evaluated model and its data.
        dropped: Images that could not be evaluated.
        config: ``calibration``, ``threshold_rule``, ``min_rate``, ``thresholds``, ``n_replicates``, ``seed``.

    Raises:
        DataError: ``thresholds`` cannot be read, or lacks a label.
    """
    labels = list_labels(next(iter(predictions.values())))
    with progress_steps(1 + len(predictions)) as step:
        step("operating point")
        point, stability = find_operating_point(predictions.get("val"), labels, subject, config)
        parts = {}
        for part, table in predictions.items():
            step(f"metrics of {part}")
            parts[part] = measure(part, table, point, config.n_replicates, config.seed)
    return Assessment(subject, point, stability, parts, dropped)


def find_operating_point(
    validation: pd.DataFrame | None, labels: list[str], subject: EvaluatedModel, config: EvaluateConfig
) -> tuple[OperatingPoint, Stability | None]:
    """Return the given operating point, one tuned on validation with its stability, or an empty one with the reason."""
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
    """Fit the calibration and thresholds of the config on a predictions table."""
    probs, targets = split_arrays(predictions)
    return fit_operating_point(
        probs,
        targets,
        list_labels(predictions),
        method=None if config.calibration == "none" else config.calibration,
        rule=config.threshold_rule,
        wanted=config.min_rate,
        origin=origin,
    )


def write_assessment(assessment: Assessment, out: Path) -> None:
    """Write predictions, tables and operating point into a folder."""
    for part, measured in assessment.parts.items():
        write_predictions(out / f"predictions_{part}.csv", measured.predictions, assessment.point)
    for name, table in assessment.tables().items():
        write_csv(out / name, table)
    assessment.point.write(out / "thresholds.json", assessment.dtype)
    write_csv(out / "dropped.csv", assessment.dropped)


RECORD = "evaluation.json"
"""Written last: it marks an evaluation as complete, and records its settings."""
OWNED = (
    "eval_*.csv",
    "predictions_*.csv",
    "confusion_template.csv",
    "thresholds*.json",
    "dropped.csv",
    "report.html",
    "claim.md",
)
OWNED_FOLDERS = ("figures", "heatmaps")


def clear_evaluation(out: Path) -> None:
    """Remove the files of an earlier, complete or interrupted evaluation from a folder."""
    (out / RECORD).unlink(missing_ok=True)
    if out.is_dir():
        sweep_staged(out, (*OWNED, RECORD))
    summary = out / "eval_summary.csv"
    if not summary.is_file():
        return
    for name in OWNED_FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for path in {path for pattern in OWNED for path in out.glob(pattern)} - {summary}:
        path.unlink()
    summary.unlink()  # last: it identifies the other files as an evaluation's
