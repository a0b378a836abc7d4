"""Compare a phase with the weights that it started from, and choose which checkpoint it hands on."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from cxrlit.config import CompareConfig, PhaseConfig, TrainConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.core.command_line import format_command
from cxrlit.core.console import format_path, say
from cxrlit.core.errors import name_some
from cxrlit.core.files import replace_file
from cxrlit.metrics.epoch_metrics import describe_monitor, drop_undefined, read_monitored
from cxrlit.model.checkpoint import Checkpoint, evaluation_folder, find_checkpoint
from cxrlit.model.module import CXRModule
from cxrlit.training.phase_folder import REJECTED, Result, find_own_best

COMPARED = ("labels", "split", "rows", "monitor")
"""Metadata that must match for two checkpoints' validation metrics to be comparable."""


class Baseline(BaseModel):
    """The validation result that a phase must improve on.

    Attributes:
        name: ``finetune-1a2b3c4d``, or the starting weights.
        img_size: Side of the images that it was validated on, pixels.
        scores: Its validation metrics, by name.
        is_recorded: Whether the scores are those of its checkpoint, on the same images and targets; else they were
            measured for this phase, at its img_size.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    img_size: int
    scores: dict[str, float]
    is_recorded: bool = True

    @classmethod
    def of_start(cls, img_size: int, scores: Mapping[str, float]) -> Self:
        """The starting weights, measured at the phase's own size."""
        name = "the starting weights"
        return cls(name=name, img_size=img_size, scores=drop_undefined(scores), is_recorded=False)

    def describe(self, monitor: str) -> str:
        """Name, monitored value and size.

        >>> Baseline(name="finetune-1a2b3c4d", img_size=224, scores={"loss": 0.5}).describe("val/loss")
        'finetune-1a2b3c4d (val/loss 0.5000 at 224 px)'
        """
        value = read_monitored(self.scores, monitor)
        return f"{self.name} ({describe_monitor(monitor)} {value:.4f} at {self.img_size} px)"


def find_baseline(checkpoint: Checkpoint, metadata: Mapping[str, Any], config: TrainConfig) -> Baseline | None:
    """Read the baseline from the checkpoint that a phase starts from, at that checkpoint's image size.

    Args:
        checkpoint: The starting checkpoint.
        metadata: Metadata of the phase's checkpoints.
        config: The resolved config of the chain.

    Returns:
        None if the checkpoint was validated by another metric, or on other labels, images or targets.
    """
    before, theirs = checkpoint.metadata, checkpoint.config
    same = all(getattr(before, key) == metadata[key] for key in COMPARED) and theirs.metrics == config.metrics
    if not same or (config.monitor == "val/loss" and theirs.loss != config.loss):
        return None
    return Baseline(name=before.name, img_size=checkpoint.img_size, scores=before.scores)


def hand_on(folder: Path, previous: Path) -> None:
    """Copy the starting checkpoint to the phase's ``best.ckpt``; its own best epoch is renamed."""
    best = folder / "best.ckpt"
    find_own_best(folder).replace(folder / REJECTED)
    with replace_file(best) as staged:
        shutil.copyfile(find_checkpoint(previous), staged)


def judge(
    name: str,
    settings: PhaseConfig,
    best: Result,
    scores: Mapping[str, float],
    baseline: Baseline,
    previous: Path,
    module: CXRModule,
) -> Result:
    """Compare the best epoch with the baseline, and hand on the baseline if a required improvement is missing.

    Args:
        name: Name of the phase.
        settings: Settings of the phase.
        best: Its best epoch.
        scores: Validation metrics of that epoch, by name.
        baseline: The result to improve on.
        previous: Checkpoint or phase folder of the baseline.
        module: Decides which score is better.

    Returns:
        The best epoch, with ``rejected_for`` set if it is rejected.
    """
    before, at_its_size = baseline.describe(best.monitor), read_monitored(baseline.scores, best.monitor)
    reached = f"{describe_monitor(best.monitor)} {best.best_score:.4f} at {settings.img_size} px"
    if not settings.require_improvement:
        if module.is_better(at_its_size, best.best_score):
            say(
                f"warning: {name} ends at {reached}, worse than {before}: "
                f"phases.{name}.require_improvement=true would hand that on",
                style="yellow",
            )
        return best
    if change := describe_change(baseline.scores, scores, module.labels):
        say(f"{name} against {baseline.name} at {baseline.img_size} px: {change}")
    is_better = module.is_better(best.best_score, at_its_size)
    if not is_better:
        hand_on(best.folder, previous)
        say(
            f"warning: {name} is rejected: {reached} is not better than {before}, whose checkpoint is its best.ckpt "
            f"now; its own best epoch is {REJECTED}",
            style="yellow",
        )
        best = best._replace(rejected_for=before)
    if baseline.is_recorded:  # on the same images
        say_how_to_compare(previous, best.folder if is_better else best.folder / REJECTED)
    return best


def describe_change(before: Mapping[str, float], after: Mapping[str, float], labels: Sequence[str]) -> str:
    """Answer the questions of ``cxrlit compare`` on validation: improved, not harmed, macro AUROC rose?

    Args:
        before: Validation metrics of the baseline, by name.
        after: Validation metrics of the phase's best epoch, by name.
        labels: The findings, in order.

    Returns:
        A sentence; empty if either macro AUROC is unknown.
    """
    question = compose_defaults("compare", CompareConfig, {"baseline": "before", "candidate": "after"})
    changes = {name: after.get(f"auroc_{name}", math.nan) - before.get(f"auroc_{name}", math.nan)
               for name in ("macro", *labels)}  # fmt: skip
    if math.isnan(changes["macro"]):
        return ""
    asked = [label for label in question.must_improve if not math.isnan(changes.get(label, math.nan))]
    harmed = [label for label in labels if label not in asked and changes[label] < -question.margin]
    shown = [f"macro AUROC {after['auroc_macro']:.4f} ({changes['macro']:+.4f})"]
    shown += [f"{label} {after[f'auroc_{label}']:.3f} ({changes[label]:+.3f})" for label in [*asked, *harmed]]
    improved = all(changes[label] > 0 for label in asked)
    parts = [
        *([f"{name_some(asked)} improved: {'yes' if improved else 'no'}"] if asked else []),
        f"no other fell by more than {question.margin:g}: {'no' if harmed else 'yes'}",
        f"the macro rose: {'yes' if changes['macro'] > 0 else 'no'}",
    ]
    return f"{', '.join(shown)}; {'; '.join(parts)} (validation, without intervals)"


def say_how_to_compare(before: Path, after: Path) -> None:
    """Print the commands that make this comparison on the test part."""
    checkpoints = [find_checkpoint(path) for path in (before, after)]
    commands = [f"evaluate ckpt={format_path(path)}" for path in checkpoints]
    commands.append(f"compare {' '.join(format_path(evaluation_folder(path)) for path in checkpoints)}")
    say("The same on test, with intervals:")
    for command in commands:
        say(f"  {format_command(command)}")
