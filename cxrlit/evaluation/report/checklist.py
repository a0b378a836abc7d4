"""Write ``claim.md``: the CLAIM 2024 and TRIPOD+AI checklists, filled in from config, tables and versions."""

import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cxrlit.config import EvaluateConfig
from cxrlit.core.errors import format_count
from cxrlit.core.files import write_text
from cxrlit.data.dataset import SplitData
from cxrlit.evaluation.measure.assessment import Assessment, EvaluatedModel
from cxrlit.evaluation.measure.measure import Measured
from cxrlit.evaluation.report.provenance_section import PACKAGES, hide_places
from cxrlit.evaluation.report.summary_section import describe_point
from cxrlit.evaluation.report.wording import find_row, format_metric, name_part
from cxrlit.html.markdown import escape_markdown
from cxrlit.html.page import make_environment
from cxrlit.html.text import format_share, list_versions


def write_checklist(assessment: Assessment, out: Path, config: EvaluateConfig, data: SplitData | None) -> None:
    """Write ``claim.md`` from the template of that name.

    Args:
        assessment: The assessment.
        out: The folder with its tables and report.
        config: Settings of the evaluation.
        data: The predicted images, if known.

    Source: Tejani et al., "Checklist for artificial intelligence in medical imaging (CLAIM): 2024 update", Radiology:
        Artificial Intelligence 2024; Collins et al., "TRIPOD+AI statement", BMJ 2024.
    """
    subject, final = assessment.subject, assessment.final
    counts = [_count_part(measured) for measured in assessment.parts.values()]
    if data is not None and subject.config is not None and not assessment.is_external:
        train = data.split[data.split["split"] == "train"]
        counts.insert(0, f"train: {_count(len(train), train[['source', 'patient']].drop_duplicates().shape[0])}")
    template = make_environment(Path(__file__).parent, escape_markdown).get_template("claim.md")
    text = template.render(
        subject=subject,
        facts=_join(f"{name}: {text}" for name, text in subject.facts.items()),
        caveats=_join(subject.caveats),
        part=name_part(final.part),
        labels=", ".join(assessment.labels),
        n_labels=len(assessment.labels),
        counts=_join(counts),
        people=_join(filter(None, map(_describe_people, assessment.parts.values()))),
        unknown=_join(map(_count_unknown, assessment.parts.values())),
        n_dropped=len(assessment.dropped),
        point=assessment.point,
        thresholds=describe_point(assessment.point),
        training=None if subject.config is None else _describe_training(subject),
        is_own_patient=config.patient == "image" or _says_own_patient(subject.config),
        is_external=assessment.is_external,
        n_replicates=final.replicates["auroc"].n_replicates,
        performance=_join(_describe_performance(measured) for measured in assessment.parts.values()),
        subgroups=", ".join(config.subgroups) if (out / "eval_subgroups.csv").is_file() else "",
        localise=config.localise if (out / "heatmaps").is_dir() else "",
        has={name: (out / f"eval_{name}.csv").is_file() for name in ("localisation", "comparison", "recalibration")},
        versions=_join(f"{name.removeprefix('version of ')} {number}" for name, number in list_versions(PACKAGES)),
        platform=f"{platform.system()} {platform.machine()}",
    )
    write_text(out / "claim.md", text)


def _join(texts: Iterable[str]) -> str:
    return "; ".join(texts)


def _count(n_images: int, n_patients: int) -> str:
    return f"{format_count(n_images, 'image')} of {format_count(n_patients, 'patient')}"


def _count_part(measured: Measured) -> str:
    table = measured.predictions
    return f"{name_part(measured.part)}: {_count(len(table), table['patient'].nunique())}"


def _count_unknown(measured: Measured) -> str:
    """For each label with unknown targets, say how many images have none."""
    n_images = len(measured.predictions)
    known = zip(measured.counts["label"], measured.counts["images"], strict=True)
    missing = [f"{label} {n_images - images}" for label, images in known if images < n_images]
    return f"{name_part(measured.part)}, of {format_count(n_images, 'image')}: {', '.join(missing) or 'none'}"


def _describe_people(measured: Measured) -> str:
    """Summarize age, sex and view over the images of a part; empty if unknown."""
    table, said = measured.predictions, []
    if "age" in table:
        low, middle, high = table["age"].quantile([0.25, 0.5, 0.75])
        said.append(f"median age {middle:.0f} years (quartiles {low:.0f} to {high:.0f})")
    for column in ("sex", "view"):
        if column in table:
            shares = table[column].value_counts(normalize=True).sort_index()
            said.append(f"{column} {', '.join(f'{name} {format_share(share)}' for name, share in shares.items())}")
    return f"{name_part(measured.part)}: {', '.join(said)}" if said else ""


def _describe_performance(measured: Measured) -> str:
    n_labels = find_row(measured, "auroc")["n_labels"]
    return (
        f"{name_part(measured.part)}: macro AUROC {format_metric(measured, 'auroc')} and mean average precision "
        f"{format_metric(measured, 'average_precision')} over {format_count(int(n_labels), 'label')}, F1 macro "
        f"{format_metric(measured, 'f1')}"
    )


def _describe_training(subject: EvaluatedModel) -> dict[str, str]:
    """Settings of a training that both guidelines require, as texts; empty if an older config lacks them."""
    config: dict[str, Any] = hide_places(subject.config)
    augment, trained = config.get("augment") or {}, " ".join([subject.name, *subject.facts.values()])
    return {
        "loss": _name_target(config.get("loss")),
        "optimizer": _name_target(config.get("optimizer")),
        "sampler": str((config.get("sampler") or {}).get("name", "")),
        "augment": ", ".join(augment.get("transforms") or {}) or "none",
        "monitor": str(config.get("monitor", "")),
        "seed": str(config.get("seed", "")),
        "phases": _join(
            f"{name}: {phase.get('img_size')} px, batch size {phase.get('batch_size')}, learning rate "
            f"{phase.get('lr')}, at most {format_count(phase.get('max_epochs'), 'epoch')}"
            for name, phase in (config.get("phases") or {}).items()
            if re.search(rf"(?<![\w-]){re.escape(name)}-[0-9a-f]{{8}}", trained)
        ),
    }


def _name_target(section: Any) -> str:
    return str(section.get("_target_", "")) if isinstance(section, Mapping) else ""


def _says_own_patient(config: Mapping[str, Any] | None) -> bool:
    data = (config or {}).get("data")
    return isinstance(data, Mapping) and data.get("patient") == "image"
