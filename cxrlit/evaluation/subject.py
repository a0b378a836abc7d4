"""What is evaluated: its name, the folder of its results, and what a reader wants to know of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrlit.config import EvaluateConfig
from cxrlit.core.files import hash_value
from cxrlit.data.dataset import LoadedData
from cxrlit.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and on what.

    Attributes:
        name: The model: ``finetune-1a2b3c4d/best.ckpt``, the same wherever the folder lies; of several their names; of
            another program's predictions the name of their file.
        data: Name of the data.
        split_name: How they were split.
        split_hash: Of that split.
        predicted: How its probs came about, which models that are compared should share; empty where it is not known.
        facts: What else a reader wants to know, in order: a name and a text each.
        config: All settings of the training, where they are known.
    """

    name: str
    data: str
    split_name: str
    split_hash: str
    predicted: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None

    @property
    def origin(self) -> dict[str, str]:
        """What stands beside every number."""
        return {"split_name": self.split_name, "split_hash": self.split_hash, "checkpoint": self.name}


def name_checkpoint(checkpoint: Checkpoint) -> str:
    """Phase, id and file of a checkpoint: the same wherever its folder lies."""
    return f"{checkpoint.facts.phase}-{checkpoint.facts.phase_id}/{checkpoint.path.name}"


def name_folder(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path:
    """Where the results at home go unless ``out`` says: beside the first checkpoint, each way to predict apart."""
    first = checkpoints[0]
    name = "eval" if first.path.stem == "best" else f"eval-{first.path.stem}"
    if len(checkpoints) > 1:
        name += f"-ensemble-{hash_value([name_checkpoint(member) for member in checkpoints], digits=8)}"
    if config.tta != "none":
        name += f"-{config.tta}"
    if config.average == "logits":
        name += "-logits"
    return first.path.parent / name


def describe_prediction(n_checkpoints: int, config: EvaluateConfig) -> str:
    """How the probs of checkpoints come about.

    Args:
        n_checkpoints: Of one model.
        config: ``tta`` and ``average``.
    """
    by = "one checkpoint" if n_checkpoints == 1 else f"{n_checkpoints} checkpoints"
    on = "each image and its mirror image" if config.tta == "flip" else "each image"
    is_mean = n_checkpoints > 1 or config.tta != "none"
    return f"{f'the mean {config.average} of ' if is_mean else ''}{by} on {on}"


def describe_checkpoints(checkpoints: Sequence[Checkpoint], data: LoadedData, config: EvaluateConfig) -> Subject:
    """One checkpoint, or the mean of several, on some data."""
    first = checkpoints[0]
    facts = {}
    for number, member in enumerate(checkpoints, start=1):
        phase = member.config.phases.get(member.facts.phase)
        facts["checkpoint" if len(checkpoints) == 1 else f"member {number}"] = (
            f"{name_checkpoint(member)}: epoch {member.facts.epoch + 1}, validation macro AUROC "
            f"{member.facts.val_auroc_macro:.4f}, {phase.img_size} px, {member.facts.precision}"
        )
        if member.facts.history:
            facts[f"phases before {member.facts.phase}-{member.facts.phase_id}"] = ", ".join(member.facts.history)
    if config.tta == "flip":
        facts["test-time augmentation"] = "each image and its mirror image"
    if len(checkpoints) > 1 or config.tta != "none":
        facts["mean of"] = config.average
    return Subject(
        name=" + ".join(name_checkpoint(member) for member in checkpoints),
        data=data.name,
        split_name=data.split_name,
        split_hash=first.facts.split_hash,
        predicted=describe_prediction(len(checkpoints), config),
        facts=facts,
        config=first.facts.config,
    )
