"""Names of an evaluation: its checkpoints, its folder, and how it predicted."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from cxrlit.config import TTA, Average, EvaluateConfig, EvaluationPrecision, Precision
from cxrlit.core.errors import DataError
from cxrlit.core.files import hash_file, hash_value
from cxrlit.data.tta import VIEWS, describe_mean
from cxrlit.model.checkpoint import Checkpoint, evaluation_folder
from cxrlit.training.hardware import choose_precision

ELSEWHERE = {"ckpt", "data", "out", "cache_dir", "trainer", "logger", "log_images"}
"""Settings that an evaluation's record omits: places, hardware and loggers."""


def name_checkpoint(checkpoint: Checkpoint) -> str:
    """Name of a checkpoint: phase, id and file, independent of where its folder is."""
    return f"{checkpoint.metadata.name}/{checkpoint.path.name}"


def name_checkpoints(checkpoints: Sequence[Checkpoint]) -> str:
    """Names of several checkpoints, joined."""
    return " + ".join(map(name_checkpoint, checkpoints))


def hash_checkpoints(checkpoints: Sequence[Checkpoint]) -> str:
    """Id of an ensemble, from the names of its members in order."""
    return hash_value(list(map(name_checkpoint, checkpoints)), digits=8)


def evaluation_path(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path:
    """Default folder of an internal evaluation: beside the first checkpoint, one for each way of predicting."""
    alone = evaluation_folder(checkpoints[0].path)
    name = alone.name
    if len(checkpoints) > 1:
        name += f"-ensemble-{hash_checkpoints(checkpoints)}"
    return alone.parent / f"{name}{name_way(config)}"


def name_way(config: EvaluateConfig) -> str:
    """Suffix of a folder's name that says how images are predicted."""
    name = "" if config.tta == "none" else f"-{config.tta}"
    if config.average == "logits":
        name += "-logits"
    return f"{name}-bf16" if choose_evaluation_precision(config) == "bf16" else name


def describe_way(config: EvaluateConfig) -> dict[str, str]:
    """Facts for the report on how images are predicted."""
    facts = {}
    if config.tta != "none":
        facts["test-time augmentation"] = VIEWS[config.tta]
    if config.is_mean:
        facts["mean of"] = config.average
    return {**facts, "precision of the predictions": choose_evaluation_precision(config)}


def describe_evaluation(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> dict[str, Any]:
    """All that determines an evaluation of checkpoints on their own split, in plain types."""
    return {
        "checkpoints": {name_checkpoint(member): hash_file(member.path) for member in checkpoints},
        "predicted": describe_prediction(checkpoints, config),
        "cxrlit": version("cxrlit"),
        "settings": config.model_dump(mode="json", exclude=ELSEWHERE),
    }


def choose_evaluation_precision(config: EvaluateConfig) -> Precision:
    """Choose the precision that checkpoints predict in.

    Raises:
        ConfigError: This machine has no such accelerator.
    """
    return choose_precision(config.trainer.precision, config.trainer.accelerator)


def describe_prediction(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> str:
    """Say how the probs of checkpoints are computed; without checkpoints, those of another project's network.

    The precision is named unless prediction and training are in fp32.
    """
    precision = choose_evaluation_precision(config)
    is_fp32 = {precision, *(member.metadata.precision for member in checkpoints)} == {"fp32"}
    how = describe_mean(len(checkpoints) or 1, config.tta, config.average)
    return f"{how}{'' if is_fp32 else f' in {precision}'}"


def read_precision(predicted: str, trained: Precision) -> EvaluationPrecision:
    """Read the precision of an evaluation of one checkpoint.

    Args:
        predicted: From ``describe_prediction``. An older evaluation that names no precision had that of the training,
            which was never fp16.
        trained: The precision of the training.

    >>> read_precision("one checkpoint on each image in fp32", trained="bf16")
    'fp32'
    >>> read_precision("one checkpoint on each image", trained="bf16")
    'bf16'
    """
    named: dict[str, EvaluationPrecision] = {" in fp32": "fp32", " in bf16": "bf16"}
    unnamed: EvaluationPrecision = "bf16" if trained == "bf16" else "fp32"
    return next((precision for end, precision in named.items() if predicted.endswith(end)), unnamed)


def read_evaluation_precision(folder: Path, trained: Precision) -> EvaluationPrecision:
    """Read the precision of the evaluation in a folder; ``trained`` is that of the checkpoint's training."""
    path = folder / "eval_summary.csv"
    summary = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()
    return read_precision(str(summary["predicted"].iloc[0]) if "predicted" in summary else "", trained)


def read_way(predicted: str, n_checkpoints: int, folder: Path) -> tuple[TTA, Average]:
    """Read how an evaluation predicted.

    Args:
        predicted: Its ``describe_prediction``; empty in an older one, which predicted each image once.
        n_checkpoints: Number of its checkpoints.
        folder: Its folder, for messages.

    Raises:
        DataError: This version does not know the description.

    >>> read_way("the mean logits of 2 checkpoints on each image in fp32", 2, Path("eval"))
    ('none', 'logits')
    """
    said = predicted.removesuffix(" in fp32").removesuffix(" in bf16")
    ways = {
        describe_mean(n_checkpoints, tta, average): (tta, average)
        for tta in get_args(TTA)
        for average in reversed(get_args(Average))  # probs last: it is also the value if nothing is averaged
    }
    if said and said not in ways:
        raise DataError(f"{folder}: it was predicted by {said[:200]}, which this version does not: evaluate anew")
    return ways[said] if said else ("none", "probs")
