"""``cxrlit compare``: what changed from one model to another, and whether it is what was asked for."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from cxrlit.config import CompareConfig
from cxrlit.core.console import format_path, print_table, say
from cxrlit.core.errors import ConfigError, format_count
from cxrlit.core.files import write_bytes, write_csv, write_json
from cxrlit.evaluation.compare.changes import NAMES, Comparison
from cxrlit.evaluation.compare.changes_plot import draw_changes
from cxrlit.evaluation.compare.inputs import ModelPredictions, find_concerns, read_history, read_model_predictions
from cxrlit.evaluation.compare.models import ComparisonResult, compare_predictions
from cxrlit.evaluation.compare.noninferiority import Question, Verdict, describe_answer, describe_question
from cxrlit.evaluation.measure.assessment import Assessment
from cxrlit.html.figures import drawing, encode_png
from cxrlit.html.text import format_p

EXIT_CODES: dict[Verdict, int] = {"yes": 0, "no": 1, "undecided": 2}
"""Exit code of each verdict; 3 is an error."""


def compare_models(config: CompareConfig) -> int:
    """Compare two models, print the changes and the answer, and write both.

    Returns:
        The exit code of ``EXIT_CODES``.

    Raises:
        CXRLitError: The two cannot be read, or have different images; nothing is written.
    """
    given = config.thresholds
    baseline, candidate = (
        read_model_predictions(Path(path), config.split, Path(thresholds) if thresholds else None)
        for path, thresholds in ((config.baseline, given.baseline), (config.candidate, given.candidate))
    )
    found = None if given.candidate else candidate.thresholds
    if found is not None and found == baseline.thresholds and baseline.path != candidate.path:
        raise ConfigError(f"{found} lies beside both: say thresholds.baseline=PATH and thresholds.candidate=PATH")
    concerns = find_concerns(baseline, candidate, config.split)
    result = compare_predictions(
        baseline.predictions,
        candidate.predictions,
        (baseline.point, candidate.point),
        Question(tuple(config.must_improve), config.margin, config.macro_must_rise),
        config.metric,
        _name_apart(baseline, candidate),
        config.n_replicates,
        config.seed,
    )
    assert result.answer
    out = Path(config.out) if config.out else comparison_path(baseline, candidate, config.split)
    print_result(result, candidate, concerns, config)
    write_result(out, result, (baseline, candidate), concerns, config)
    say(f"Tables and pictures are in {format_path(out)}")
    return EXIT_CODES[result.answer.verdict]


def compare_with_baseline(
    assessment: Assessment, out: Path, baseline: Path, n_replicates: int, seed: int
) -> tuple[ComparisonResult, list[str]]:
    """Compare the final part of an assessment with the same part of a baseline.

    Args:
        assessment: Assessment of the candidate.
        out: The folder of its results.
        baseline: A phase folder, the folder of an evaluation, or a file of predictions.
        n_replicates: Resamples of the patient bootstrap.
        seed: Seed of the resamples.

    Returns:
        The comparison, and its caveats.

    Raises:
        CXRLitError: See ``compare_models``.
    """
    final, subject = assessment.final, assessment.subject
    before = read_model_predictions(baseline, final.part)
    after = ModelPredictions(
        path=out / f"predictions_{final.part}.csv",
        name=subject.name,
        predictions=final.predictions,
        is_evaluation=True,
        thresholds=None,
        point=assessment.point,
        split_name=subject.split_name,
        split_hash=subject.split_hash,
        predicted=subject.predicted or None,
        history=read_history(out.parent / Path(subject.name).name),
        caveat="; ".join(subject.caveats),
    )
    concerns = find_concerns(before, after, final.part)
    result = compare_predictions(
        before.predictions,
        after.predictions,
        (before.point, after.point),
        names=_name_apart(before, after),
        n_replicates=n_replicates,
        seed=seed,
    )
    return result, concerns


def _name_apart(baseline: ModelPredictions, candidate: ModelPredictions) -> tuple[str, str]:
    """Choose distinct names of the two: their names, or their files if the names are equal."""
    names = baseline.name, candidate.name
    return names if len(set(names)) == 2 else (format_path(baseline.path), format_path(candidate.path))


def comparison_path(baseline: ModelPredictions, candidate: ModelPredictions, part: str) -> Path:
    """Default folder of the results."""
    name = baseline.slug if candidate.is_evaluation else f"{candidate.slug}-against-{baseline.slug}"
    return candidate.path.parent / "comparison" / (name if part == "test" else f"{name}-{part}")


def print_result(
    result: ComparisonResult, candidate: ModelPredictions, concerns: list[str], config: CompareConfig
) -> None:
    """Print the changes of all labels, the caveats and the answer."""
    assert result.answer
    split = f", {candidate.split_name or 'a'} split {candidate.split_hash}" if candidate.split_hash else ""
    say(
        f"From {result.names[0]} to {result.names[1]}: {format_count(result.n_images, 'image')} of "
        f"{format_count(result.n_patients, 'patient')}{split}"
    )
    for metric, comparison in result.comparisons.items():
        print_changes(NAMES[metric], comparison)
    for metric, reason in result.excluded.items():
        say(f"{NAMES[metric]} is excluded: {reason}")
    for concern in concerns:
        say(f"warning: {concern}", style="yellow")
    say(describe_question(result.answer.question, NAMES[result.metric]))
    for criterion in result.answer.criteria:
        say(f"  {criterion.verdict}: {criterion.label} {criterion.asks}: {criterion.why}")
    say(describe_answer(result.answer), style="bold")


def print_changes(name: str, comparison: Comparison) -> None:
    """Print a row per label, with the 95 % interval in brackets."""
    table = Table()
    *labels, macro = comparison.table.to_dict("records")
    tested = comparison.table["p_delong"].notna().any()
    for column in (name, "baseline", "candidate", "change", "p (Holm)", *(["p, DeLong (Holm)"] if tested else [])):
        table.add_column(column, justify="left" if column == name else "right", no_wrap=True)
    for row in (*labels, macro):
        if row is macro:
            table.add_section()
        change = _say(row["change"], "+.4f")
        if not np.isnan(row["low"]):
            change += f" [{row['low']:+.4f}, {row['high']:+.4f}]"
        cells = [row["label"], _say(row["baseline"]), _say(row["candidate"]), change, _say_p(row["p_holm"])]
        if tested:
            cells.append(_say_p(row["p_delong_holm"]))
        table.add_row(*cells, style="bold" if row is macro else None)
    print_table(table)
    for row in (*labels, macro):
        if row["reason"]:
            say(f"{name} of {row['label']} has no interval: {row['reason']}")


def _say(value: float, form: str = ".4f") -> str:
    return "" if np.isnan(value) else f"{value:{form}}"


def _say_p(p: float) -> str:
    return "" if np.isnan(p) else format_p(p)


def write_result(
    out: Path,
    result: ComparisonResult,
    sides: tuple[ModelPredictions, ModelPredictions],
    concerns: list[str],
    config: CompareConfig,
) -> None:
    """Write ``comparison.json``, ``changes.csv`` and a picture of each metric into a folder."""
    assert result.answer
    table = result.tabulate()
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    write_json(
        out / "comparison.json",
        {
            "verdict": result.answer.verdict,
            "answer": describe_answer(result.answer),
            "question": {"metric": result.metric, **asdict(result.answer.question)},
            "criteria": [asdict(criterion) for criterion in result.answer.criteria],
            "warnings": concerns,
            **{name: _describe(side) for name, side in zip(("baseline", "candidate"), sides, strict=True)},
            "n_images": result.n_images,
            "n_patients": result.n_patients,
            "n_replicates": config.n_replicates,
            "seed": config.seed,
            "left_out": result.excluded,
            "changes": rows,
        },
    )
    write_csv(out / "changes.csv", table)
    for metric, comparison in result.comparisons.items():
        with drawing():
            write_bytes(
                out / f"changes_{metric}.png", encode_png(draw_changes(comparison, result.question_about(metric)))
            )


def _describe(side: ModelPredictions) -> dict[str, Any]:
    return {
        "name": side.name,
        "predictions": str(side.path.resolve()),
        "thresholds": None if side.thresholds is None else str(side.thresholds.resolve()),
        "split_name": side.split_name,
        "split_hash": side.split_hash,
        "predicted": side.predicted,
    }
