"""Finish an evaluation: comparison, subgroups, heatmaps, then the folder and the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrlit.config import EvaluateConfig, InternalData
from cxrlit.core.console import format_path, progress_steps, say
from cxrlit.core.errors import format_count
from cxrlit.core.files import write_csv
from cxrlit.data.dataset import SplitData
from cxrlit.evaluation.compare.command import compare_with_baseline
from cxrlit.evaluation.localisation.boxes import collect_boxes
from cxrlit.evaluation.localisation.heatmaps import Method
from cxrlit.evaluation.localisation.localise import localise, print_localisation
from cxrlit.evaluation.log_evaluation import logged_evaluation
from cxrlit.evaluation.measure.assessment import (
    Assessment,
    clear_evaluation,
    write_assessment,
)
from cxrlit.evaluation.predict import PredictingNetwork, load_network, open_images
from cxrlit.evaluation.predictions import PROB
from cxrlit.evaluation.report.checklist import write_checklist
from cxrlit.evaluation.report.comparison_section import build_comparison_section
from cxrlit.evaluation.report.localisation_section import build_localisation_section
from cxrlit.evaluation.report.report import write_report
from cxrlit.evaluation.report.subgroups_section import build_subgroups_section
from cxrlit.evaluation.report.terminal import print_assessment
from cxrlit.evaluation.subgroups.gaps import describe_gaps
from cxrlit.evaluation.subgroups.subgroup_metrics import measure_subgroups
from cxrlit.evaluation.validation.internal import move_data
from cxrlit.html.section import Section
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.model.checkpoint import Checkpoint
from cxrlit.training.hardware import choose_device


@dataclass
class Further:
    """Tables, report sections and operating points that an evaluation adds to its metrics.

    Attributes:
        tables: Tables by file name.
        sections: Sections of the report, in order.
        points: Operating points by file name.
        headline: First sentence of the summary.
        is_answered: Whether outputs of other names answer the labels (``answers.py``).
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
    """Add the optional measurements of the config, write everything into a folder, and print it.

    Args:
        assessment: From ``assess``.
        out: The folder.
        config: The settings.
        further: Tables and sections so far.
        networks: The networks that made the predictions, if known.
        data: The predicted images, if known.
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
            write_checklist(assessment, out, config, data)
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
    """Draw heatmaps of the most certain images of the final part, and score them against boxes.

    They cover the whole image with any ``tta``, as boxes and readers do.
    """
    final, cache_dir = assessment.final, Path(config.cache_dir)
    source = config.data
    if isinstance(source, InternalData):
        assert isinstance(networks[0], Checkpoint)  # the schema guarantees it
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
        CXRLitError: The baseline cannot be read, or has other images or another split.
    """
    baseline = Path(str(config.baseline))
    result, concerns = compare_with_baseline(assessment, out, baseline, config.n_replicates, config.seed)
    further.tables["eval_comparison.csv"] = result.tabulate()
    further.sections.append(build_comparison_section(result, concerns))


def add_subgroups(further: Further, assessment: Assessment, config: EvaluateConfig) -> list[str]:
    """Measure subgroups of the final part; returns sentences on the gaps."""
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
