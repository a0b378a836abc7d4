"""``python evaluate.py``: checkpoints on their own split or on other data, weights or predictions of other projects."""

import json
from collections.abc import Sequence
from pathlib import Path

from cxrlit.config import EvaluateConfig, InternalData
from cxrlit.core.console import format_path, say
from cxrlit.core.distributed import join_ranks
from cxrlit.core.files import hash_file, write_json
from cxrlit.core.labels import LABELS
from cxrlit.core.ranks import on_rank_0, rank, rank_0_first
from cxrlit.data.dataset import SplitData, load_data
from cxrlit.data.split import hash_split
from cxrlit.evaluation.finish import Further, finish
from cxrlit.evaluation.measure.assessment import (
    EXTERNAL,
    HOME,
    RECORD,
    EvaluatedModel,
    assess,
    describe_checkpoints,
)
from cxrlit.evaluation.measure.evaluation_names import describe_evaluation, evaluation_path
from cxrlit.evaluation.predict import predict_parts
from cxrlit.evaluation.report.changes_section import (
    build_external_section,
    build_recalibration_section,
    describe_change,
)
from cxrlit.evaluation.report.terminal import print_change
from cxrlit.evaluation.third_party.network import describe_network, load_for_network, network_path, open_network
from cxrlit.evaluation.third_party.read_predictions import read_foreign
from cxrlit.evaluation.validation.external import assess_elsewhere, external_path
from cxrlit.evaluation.validation.internal import load_internal
from cxrlit.model.checkpoint import Checkpoint, read_checkpoint
from cxrlit.training.checks import warn_of_folder
from cxrlit.training.trainer import quiet_lightning


def evaluate(config: EvaluateConfig) -> Path | None:
    """Evaluate what the config names, write the results and print them.

    Returns:
        The folder of the results; None on ranks other than 0, which only predict their share of the images.

    Raises:
        CXRLitError: An error that the user can correct; nothing is written.
    """
    quiet_lightning()
    join_ranks(config.trainer)
    if config.predictions is not None:
        out = on_rank_0(evaluate_predictions)(config)
        return out if rank() == 0 else None
    if config.weights is not None:
        return evaluate_weights(config)
    return evaluate_checkpoints(read_checkpoints(config), config)


def read_checkpoints(config: EvaluateConfig) -> list[Checkpoint]:
    """Read the checkpoints that ``ckpt`` names."""
    assert config.ckpt is not None
    return [read_checkpoint(Path(name)) for name in config.ckpt]


def evaluate_checkpoints(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path | None:
    """Evaluate checkpoints on their own split, or on the data that the config names; returns like ``evaluate``."""
    for checkpoint in checkpoints:
        warn_of_folder(checkpoint)
    if config.is_external:
        return evaluate_external(checkpoints, config)
    return evaluate_internal(checkpoints, config)


def evaluate_internal(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path | None:
    """Evaluate checkpoints on the validation and test images of their own split."""
    out = Path(config.out) if config.out else evaluation_path(checkpoints, config)
    data = rank_0_first(load_internal)(checkpoints, config)
    predictions, dropped = predict_parts(checkpoints, data, ("val", "test"), config)
    if rank() > 0:
        return None
    subject = describe_checkpoints(checkpoints, data, config)
    finish(assess(predictions, subject, dropped, config), out, config, Further(), checkpoints, data)
    write_json(out / RECORD, describe_evaluation(checkpoints, config))
    return out


def evaluate_once(config: EvaluateConfig) -> Path | None:
    """Evaluate a training on its own split, unless that was done with the same settings.

    The process has already joined the distributed group for training. Returns like ``evaluate``.
    """
    checkpoints = read_checkpoints(config)
    out = on_rank_0(find_evaluation)(checkpoints, config)
    if out is None:
        return evaluate_checkpoints(checkpoints, config)
    say(f"Evaluated already: {format_path(out / 'report.html' if config.report else out)}")
    return out


def find_evaluation(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path | None:
    """Find a complete evaluation of the same checkpoints on their own split, with the same settings."""
    out = Path(config.out) if config.out else evaluation_path(checkpoints, config)
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # missing or damaged: evaluate again
        return None
    return out if record == describe_evaluation(checkpoints, config) else None


def evaluate_external(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path | None:
    """Evaluate checkpoints on other data, beside their internal test."""
    found = assess_elsewhere(checkpoints, config)
    if found is None:
        return None
    out = Path(config.out) if config.out else external_path(checkpoints, config, found.assessment.subject.data)
    labels, data = list(found.assessment.labels), found.assessment.subject.data
    further = Further(
        tables={"eval_external.csv": found.changes},
        headline=describe_change(found.changes, data),
        is_answered=found.answers is not None,
    )
    further.sections.append(build_external_section(found.changes, labels, data, found.shared))
    if found.refitted is not None and found.gains is not None:
        further.tables["eval_recalibration.csv"] = found.gains
        further.points["thresholds_recalibrated.json"] = found.refitted
        further.sections.append(build_recalibration_section(found.gains, labels, found.fitted_on))
    finish(found.assessment, out, config, further, checkpoints, found.data)
    print_change(found.changes, (HOME, EXTERNAL))
    if found.shared:
        say(f"warning: {found.shared}, and the changes have no interval", style="yellow")
    return out


def evaluate_weights(config: EvaluateConfig) -> Path | None:
    """Evaluate weights of another project on the validation and test images of a data set."""
    network, data, answers = rank_0_first(load_for_network)(rank_0_first(open_network)(config), config)
    say(f"{config.weights}: {network.start.note}; {network.describe_head(data)}")
    parts = [part for part in ("val", "test") if (data.split["split"] == part).any()]
    predictions, dropped = predict_parts([network], data, parts, config, answers)
    if rank() > 0:
        return None
    out = Path(config.out) if config.out else network_path(network, data, config)
    subject = describe_network(network, data, config, answers)
    further = Further(is_answered=answers is not None)
    return finish(assess(predictions, subject, dropped, config), out, config, further, [network], data)


def evaluate_predictions(config: EvaluateConfig) -> Path:
    """Evaluate a table of predictions from any program."""
    assert config.predictions is not None
    path = Path(config.predictions)
    truth: Path | SplitData | None = Path(config.targets) if config.targets else None
    if truth is None and not isinstance(config.data, InternalData):
        truth = load_data(config.data, list(config.columns.probs or LABELS), Path(config.cache_dir))
    joined = read_foreign(path, truth, config)
    for note in joined.notes:
        say(note)
    source = truth if isinstance(truth, SplitData) else None
    subject = EvaluatedModel(
        name=path.name,
        data=source.name if source else (truth or path).name,
        split_name=source.split_name if source else "given",
        split_hash=hash_split(joined.split),
        facts={"predictions": f"{path.name}, SHA-256 {hash_file(path)[:12]}"},
    )
    out = Path(config.out) if config.out else path.parent / f"{path.name.partition('.')[0]}-eval"
    return finish(assess(joined.parts, subject, joined.dropped, config), out, config, Further())
