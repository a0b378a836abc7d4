"""How an evaluation of checkpoints is called: its checkpoints, its folder, and the words for how it predicted."""

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
"""Settings that say where an evaluation is made, reads and writes."""


def name_checkpoint(checkpoint: Checkpoint) -> str:
    """Phase, id and file of a checkpoint: the same wherever its folder lies."""
    return f"{checkpoint.metadata.name}/{checkpoint.path.name}"


def name_checkpoints(checkpoints: Sequence[Checkpoint]) -> str:
    """The names of several, as one."""
    return " + ".join(map(name_checkpoint, checkpoints))


def hash_checkpoints(checkpoints: Sequence[Checkpoint]) -> str:
    """Id of an ensemble, by the names of its members in their order."""
    return hash_value(list(map(name_checkpoint, checkpoints)), digits=8)


def evaluation_path(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path:
    """Where the results at home go unless ``out`` says: beside the first checkpoint, each way to predict apart."""
    alone = evaluation_folder(checkpoints[0].path)
    name = alone.name
    if len(checkpoints) > 1:
        name += f"-ensemble-{hash_checkpoints(checkpoints)}"
    return alone.parent / f"{name}{name_way(config)}"


def name_way(config: EvaluateConfig) -> str:
    """How images are predicted, as the end of a folder's name."""
    name = "" if config.tta == "none" else f"-{config.tta}"
    if config.average == "logits":
        name += "-logits"
    return f"{name}-bf16" if choose_evaluation_precision(config) == "bf16" else name


def describe_way(config: EvaluateConfig) -> dict[str, str]:
    """How images are predicted: facts for the report."""
    facts = {}
    if config.tta != "none":
        facts["test-time augmentation"] = VIEWS[config.tta]
    if config.is_mean:
        facts["mean of"] = config.average
    return {**facts, "precision of the predictions": choose_evaluation_precision(config)}


def describe_evaluation(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> dict[str, Any]:
    """What determines an evaluation of checkpoints on their own split, as plain types."""
    return {
        "checkpoints": {name_checkpoint(member): hash_file(member.path) for member in checkpoints},
        "predicted": describe_prediction(checkpoints, config),
        "cxrlit": version("cxrlit"),
        "settings": config.model_dump(mode="json", exclude=ELSEWHERE),
    }


def choose_evaluation_precision(config: EvaluateConfig) -> Precision:
    """The precision that checkpoints predict in.

    Raises:
        ConfigError: This machine has no such accelerator.
    """
    return choose_precision(config.trainer.precision, config.trainer.accelerator)


def describe_prediction(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> str:
    """How the probs of checkpoints come about; without any, those of one network of another project.

    The precision is named unless everything is fp32, the training too.
    """
    precision = choose_evaluation_precision(config)
    is_fp32 = {precision, *(member.metadata.precision for member in checkpoints)} == {"fp32"}
    how = describe_mean(len(checkpoints) or 1, config.tta, config.average)
    return f"{how}{'' if is_fp32 else f' in {precision}'}"


def read_precision(predicted: str, trained: Precision) -> EvaluationPrecision:
    """The precision of an evaluation of one checkpoint.

    Args:
        predicted: From ``describe_prediction``. Where an older evaluation names no precision, it had that of the
            training, which was not fp16 then.
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
    """The precision of the evaluation in a folder, of a checkpoint that was trained in ``trained``."""
    path = folder / "eval_summary.csv"
    summary = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()
    return read_precision(str(summary["predicted"].iloc[0]) if "predicted" in summary else "", trained)


def read_way(predicted: str, n_checkpoints: int, folder: Path) -> tuple[TTA, Average]:
    """How an evaluation predicted.

    Args:
        predicted: Its own words (``describe_prediction``); empty where an older one says nothing: each image as it is.
        n_checkpoints: It is of so many.
        folder: Where it is, for messages.

    Raises:
        DataError: These are no words of this version.

    >>> read_way("the mean logits of 2 checkpoints on each image in fp32", 2, Path("eval"))
    ('none', 'logits')
    """
    said = predicted.removesuffix(" in fp32").removesuffix(" in bf16")
    ways = {
        describe_mean(n_checkpoints, tta, average): (tta, average)
        for tta in get_args(TTA)
        for average in reversed(get_args(Average))  # probs last: it stands where nothing is averaged
    }
    if said and said not in ways:
        raise DataError(f"{folder}: it was predicted by {said[:200]}, which this version does not: evaluate anew")
    return ways[said] if said else ("none", "probs")
