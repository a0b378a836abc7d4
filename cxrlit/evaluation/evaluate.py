"""``python evaluate.py``: a checkpoint or several on their own split or on other data, or anybody's predictions."""

from collections.abc import Sequence
from pathlib import Path

from cxrlit.config import EvaluateConfig, HomeData
from cxrlit.core.console import say
from cxrlit.core.distributed import after_rank_0, from_rank_0, join_ranks
from cxrlit.core.files import hash_file
from cxrlit.core.labels import LABELS
from cxrlit.core.ranks import rank
from cxrlit.data.dataset import LoadedData, load_data
from cxrlit.data.split import hash_split
from cxrlit.evaluation.finish import Further, finish
from cxrlit.evaluation.measure.assessment import EXTERNAL, HOME, assess
from cxrlit.evaluation.predict import predict_parts
from cxrlit.evaluation.report.changes_section import say_change, show_external, show_recalibration
from cxrlit.evaluation.report.terminal import print_change
from cxrlit.evaluation.subject import Subject, describe_checkpoints, name_folder
from cxrlit.evaluation.third_party.read_predictions import read_foreign
from cxrlit.evaluation.validation.external import assess_elsewhere, name_other_folder
from cxrlit.evaluation.validation.internal import load_home
from cxrlit.training.checkpoint import Checkpoint, read_checkpoint
from cxrlit.training.checks import warn_unfinished
from cxrlit.training.trainer import quiet_lightning


def evaluate(config: EvaluateConfig) -> Path | None:
    """Evaluate what the config names, write the results and print them.

    Returns:
        The folder of the results; None on other ranks than 0, which do no more than their share of the images.

    Raises:
        CXRLitError: Whatever the user can mend; nothing is written then.
    """
    quiet_lightning()
    join_ranks(config.trainer)
    if config.predictions is not None:
        return from_rank_0(lambda: evaluate_predictions(config))
    assert config.ckpt is not None
    checkpoints = [read_checkpoint(Path(name)) for name in config.ckpt]
    for checkpoint in checkpoints:
        warn_unfinished(checkpoint)
    if config.is_external:
        return evaluate_external(checkpoints, config)
    return evaluate_home(checkpoints, config)


def evaluate_home(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path | None:
    """Evaluate checkpoints on the validation and test images of their own split."""
    out = Path(config.out) if config.out else name_folder(checkpoints, config)
    data = after_rank_0(lambda: load_home(checkpoints, config))
    predictions, dropped = predict_parts(
        checkpoints,
        data,
        ("val", "test"),
        tta=config.tta,
        average=config.average,
        machine=config.trainer,
        cache_dir=Path(config.cache_dir),
    )
    if rank() > 0:
        return None
    subject = describe_checkpoints(checkpoints, data, config)
    return finish(assess(predictions, subject, dropped, config), out, config, Further(), checkpoints, data)


def evaluate_external(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path | None:
    """Evaluate checkpoints on other data, beside their test at home."""
    found = assess_elsewhere(checkpoints, config)
    if found is None:
        return None
    out = Path(config.out) if config.out else name_other_folder(checkpoints, config, found.assessment.subject.data)
    labels, data = list(found.assessment.labels), found.assessment.subject.data
    further = Further(tables={"eval_external.csv": found.changes}, headline=say_change(found.changes, data))
    further.sections.append(show_external(found.changes, labels, data, found.shared))
    if found.refitted is not None and found.gains is not None:
        further.tables["eval_recalibration.csv"] = found.gains
        further.points["thresholds_recalibrated.json"] = found.refitted
        further.sections.append(show_recalibration(found.gains, labels, found.fitted_on))
    finish(found.assessment, out, config, further, checkpoints, found.data)
    print_change(found.changes, (HOME, EXTERNAL))
    if found.shared:
        say(f"warning: {found.shared}, and the changes have no interval", style="yellow")
    return out


def evaluate_predictions(config: EvaluateConfig) -> Path:
    """Evaluate a table of predictions, of whatever program made them."""
    assert config.predictions is not None
    path = Path(config.predictions)
    truth: Path | LoadedData | None = Path(config.labels) if config.labels else None
    if not isinstance(config.data, HomeData):
        truth = load_data(config.data, list(config.columns.probs or LABELS), Path(config.cache_dir))
    joined = read_foreign(path, truth, config)
    for note in joined.notes:
        say(note)
    source = truth if isinstance(truth, LoadedData) else None
    subject = Subject(
        name=path.name,
        data=source.name if source else (truth or path).name,
        split_name=source.split_name if source else "given",
        split_hash=hash_split(joined.split),
        facts={"predictions": f"{path.name}, SHA-256 {hash_file(path)[:12]}"},
    )
    out = Path(config.out) if config.out else path.parent / f"{path.name.partition('.')[0]}-eval"
    return finish(assess(joined.parts, subject, joined.dropped, config), out, config, Further())
