"""``python evaluate.py``: checkpoints on their own split or on other data, weights or predictions of other projects."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrlit.config import EvaluateConfig, InternalData
from cxrlit.core.console import format_path, progress_steps, say
from cxrlit.core.distributed import join_ranks
from cxrlit.core.errors import format_count
from cxrlit.core.files import hash_file, write_csv, write_json
from cxrlit.core.labels import LABELS
from cxrlit.core.ranks import on_rank_0, rank, rank_0_first
from cxrlit.data.dataset import SplitData, load_data
from cxrlit.data.split import hash_split
from cxrlit.evaluation.compare.command import compare_with_baseline
from cxrlit.evaluation.localisation.boxes import collect_boxes
from cxrlit.evaluation.localisation.heatmaps import Method
from cxrlit.evaluation.localisation.localise import localise, print_localisation
from cxrlit.evaluation.log_evaluation import logged_evaluation
from cxrlit.evaluation.measure.assessment import (
    EXTERNAL,
    HOME,
    RECORD,
    Assessment,
    EvaluatedModel,
    assess,
    clear_evaluation,
    describe_checkpoints,
    write_assessment,
)
from cxrlit.evaluation.measure.evaluation_names import describe_evaluation, evaluation_path
from cxrlit.evaluation.predict import PredictingNetwork, load_network, open_images, predict_parts
from cxrlit.evaluation.predictions import PROB
from cxrlit.evaluation.report.changes_section import (
    build_external_section,
    build_recalibration_section,
    describe_change,
)
from cxrlit.evaluation.report.comparison_section import build_comparison_section
from cxrlit.evaluation.report.localisation_section import build_localisation_section
from cxrlit.evaluation.report.report import write_report
from cxrlit.evaluation.report.subgroups_section import build_subgroups_section
from cxrlit.evaluation.report.terminal import print_assessment, print_change
from cxrlit.evaluation.subgroups.gaps import describe_gaps
from cxrlit.evaluation.subgroups.subgroup_metrics import measure_subgroups
from cxrlit.evaluation.third_party.network import describe_network, load_for_network, network_path, open_network
from cxrlit.evaluation.third_party.read_predictions import read_foreign
from cxrlit.evaluation.validation.external import assess_elsewhere, external_path
from cxrlit.evaluation.validation.internal import load_internal, move_data
from cxrlit.html.section import Section
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.model.checkpoint import Checkpoint, read_checkpoint
from cxrlit.training.checks import warn_of_folder
from cxrlit.training.hardware import choose_device
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
        out = on_rank_0(evaluate_predictions)(config)
        return out if rank() == 0 else None
    if config.weights is not None:
        return evaluate_weights(config)
    assert config.ckpt is not None
    checkpoints = [read_checkpoint(Path(name)) for name in config.ckpt]
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
    """Evaluate a checkpoint on its own split, unless that was done with the same settings; returns as ``evaluate``."""
    out = find_evaluation(config)
    if out is None:
        return evaluate(config)
    say(f"Evaluated already: {format_path(out / 'report.html' if config.report else out)}")
    return out


@on_rank_0
def find_evaluation(config: EvaluateConfig) -> Path | None:
    """The folder of a whole evaluation of the same checkpoints on their own split, with the same settings."""
    assert config.ckpt is not None
    checkpoints = [read_checkpoint(Path(name)) for name in config.ckpt]
    out = Path(config.out) if config.out else evaluation_path(checkpoints, config)
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none is there, or it is damaged: it is made anew
        return None
    return out if record == describe_evaluation(checkpoints, config) else None


def evaluate_external(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> Path | None:
    """Evaluate checkpoints on other data, beside their test at home."""
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
    """Evaluate a table of predictions, of whatever program made them."""
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


@dataclass
class Further:
    """What an evaluation says beside its metrics.

    Attributes:
        tables: By file name.
        sections: Of the report, in order.
        points: Further operating points, by file name.
        headline: The sentence that the summary begins with.
        is_answered: Whether labels are answered by outputs of other names (``answers.py``).
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    points: dict[str, OperatingPoint] = field(default_factory=dict)
    headline: str = ""
    is_answered: bool = False


def finish(
    assessment: Assessment,
    out: Path,
    config: EvaluateConfig,
    further: Further,
    networks: Sequence[PredictingNetwork] = (),
    data: SplitData | None = None,
) -> Path:
    """Measure what else is wanted, write everything into a folder, and print it.

    Args:
        assessment: From ``assess``.
        out: The folder.
        config: What is wanted.
        further: What goes with it already.
        networks: What made the predictions, where that is known.
        data: The images behind them.
    """
    gaps: list[str] = []
    if config.baseline is not None:
        add_comparison(further, assessment, out, config)
    if config.subgroups:
        with progress_steps(1) as step:
            step("subgroups")
            gaps = add_subgroups(further, assessment, config)
    clear_evaluation(out)
    write_assessment(assessment, out)
    for name, table in further.tables.items():
        write_csv(out / name, table)
    for name, point in further.points.items():
        point.write(out / name, assessment.dtype)
    if config.localise != "none":
        sizes = list(dict.fromkeys(network.img_size for network in networks))
        if further.is_answered:
            none = "None: the labels are not those of the network's outputs."
            further.sections.append(Section("Heatmaps", "heatmaps", [none]))
        elif len(sizes) == 1 and data is not None:
            add_heatmaps(further, assessment, networks, data, out, config)
        else:
            what = f"these see {' and '.join(map(str, sizes))} pixels" if sizes else "these predictions are a table"
            none = f"None: they are of checkpoints that see images of one size, and {what}."
            further.sections.append(Section("Heatmaps", "heatmaps", [none]))
    checkpoints = [network for network in networks if isinstance(network, Checkpoint)]
    with logged_evaluation(checkpoints, out, config) as shared:
        if config.report:
            write_report(assessment, out, further.sections, config.seed, further.headline, shared)
    print_assessment(assessment)
    for line in gaps:
        say(line)
    if len(assessment.dropped):
        say(
            f"warning: {format_count(len(assessment.dropped), 'image')} "
            f"could not be evaluated: {format_path(out / 'dropped.csv')}",
            style="yellow",
        )
    say(f"The results are in {format_path(out / 'report.html' if config.report else out)}")
    return out


def add_heatmaps(
    further: Further,
    assessment: Assessment,
    networks: Sequence[PredictingNetwork],
    data: SplitData,
    out: Path,
    config: EvaluateConfig,
) -> None:
    """Heatmaps of the most certain images of the part that counts, and their score against boxes; they are drawn.

    They are of the whole image whatever ``tta`` is: boxes lie there, and so does what a reader sees.
    """
    final, cache_dir = assessment.final, Path(config.cache_dir)
    source = config.data
    if isinstance(source, InternalData):
        assert isinstance(networks[0], Checkpoint)  # the config sees to it
        source = move_data(networks[0].config, source, config.cache_dir).data
    datamodule = open_images(networks[0], data, config.trainer, cache_dir)
    method: Method = "gradcam" if config.localise == "gradcam" else "gradcam++"
    calibrated = {f"{PROB}{label}": final.calibrated[:, column] for column, label in enumerate(final.labels)}
    found = localise(
        [load_network(network) for network in networks],
        datamodule,
        final.part,
        final.predictions.assign(**calibrated),
        assessment.point.thresholds,
        collect_boxes(source, cache_dir, datamodule, final.part),
        out,
        method=method,
        n_replicates=config.n_replicates,
        seed=config.seed,
        device=choose_device(config.trainer.accelerator),
    )
    section = build_localisation_section(found, final.labels, method, final.part, len(networks), config.tta)
    further.sections.append(section)
    if found.table["value"].notna().any():
        print_localisation(found.table)


def add_comparison(further: Further, assessment: Assessment, out: Path, config: EvaluateConfig) -> None:
    """Compare with the baseline, on the same images.

    Raises:
        CXRLitError: The baseline cannot be read, or is of other images or another split.
    """
    baseline = Path(str(config.baseline))
    result, concerns = compare_with_baseline(assessment, out, baseline, config.n_replicates, config.seed)
    further.tables["eval_comparison.csv"] = result.tabulate()
    further.sections.append(build_comparison_section(result, concerns))


def add_subgroups(further: Further, assessment: Assessment, config: EvaluateConfig) -> list[str]:
    """Measure subgroups of the part that counts; returns what the gaps say in words."""
    subgroups = measure_subgroups(
        assessment.final.predictions,
        assessment.point,
        config.subgroups,
        config.age_bands,
        config.n_replicates,
        config.seed,
    )
    further.tables |= {
        "eval_subgroups.csv": subgroups.metrics,
        "eval_subgroup_counts.csv": subgroups.counts,
        "eval_gaps.csv": subgroups.gaps,
    }
    further.sections.append(build_subgroups_section(subgroups, list(assessment.labels)))
    return describe_gaps(subgroups.gaps)
