"""External validation: a checkpoint on other data, with the operating point of its internal validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cxrlit.config import EvaluateConfig, InternalData
from cxrlit.core.command_line import format_command
from cxrlit.core.console import progress_steps
from cxrlit.core.errors import ConfigError, DataError, LeakageError, format_count, name_some
from cxrlit.core.ranks import rank, rank_0_first
from cxrlit.data.dataset import SplitData, load_data, read_data
from cxrlit.data.index import KEY, sort_rows
from cxrlit.data.sources import SAME_PATIENTS
from cxrlit.data.split import find_shared, name_patients, split_by_patient
from cxrlit.evaluation.answers import (
    Answers,
    answer_predictions,
    choose_answers,
    describe_answers,
    fit_answers,
)
from cxrlit.evaluation.measure.assessment import (
    EXTERNAL,
    HOME,
    Assessment,
    describe_checkpoints,
    tune_operating_point,
)
from cxrlit.evaluation.measure.evaluation_names import (
    choose_evaluation_precision,
    evaluation_path,
    read_evaluation_precision,
)
from cxrlit.evaluation.measure.measure import measure
from cxrlit.evaluation.predict import predict_parts
from cxrlit.evaluation.predictions import read_predictions
from cxrlit.evaluation.validation.change import compare_parts
from cxrlit.metrics.operating_point import OperatingPoint
from cxrlit.metrics.read_operating_point import read_operating_point
from cxrlit.model.checkpoint import Checkpoint
from cxrlit.training.checks import warn_namesakes

RECALIBRATION = "recalibration"


@dataclass(frozen=True)
class External:
    """Results of checkpoints on external data.

    Attributes:
        assessment: With the parts ``home``, the internal test, and ``external``.
        data: The external data.
        changes: Changes from ``home`` to ``external`` (``compare_parts``).
        shared: How many external patients are internal test patients, in words, else empty.
        refitted: The operating point that ``recalibrate`` fitted on a share of the external patients.
        gains: Changes that it makes on the other external patients: ``before``, ``after``, ``change``.
        fitted_on: The patients that it was fitted on, in words.
        answers: Outputs that answer the labels of the external data; None: outputs of the same names.
    """

    assessment: Assessment
    data: SplitData
    changes: pd.DataFrame
    shared: str = ""
    refitted: OperatingPoint | None = None
    gains: pd.DataFrame | None = None
    fitted_on: str = ""
    answers: Answers | None = None


def assess_elsewhere(checkpoints: Sequence[Checkpoint], config: EvaluateConfig) -> External | None:
    """Measure checkpoints on external data, beside their internal test. None on ranks other than 0.

    Raises:
        DataError: There is no internal evaluation, or the external data cannot be read or are the internal test.
        LeakageError: The checkpoint was trained or tuned on a patient of the external data.
        ConfigError: Settings contradict those of the internal evaluation.
    """
    home_folder = evaluation_path(checkpoints, config)
    answers = choose_answers(config.data, checkpoints[0].labels, str(checkpoints[0].path))
    point, home_table = rank_0_first(read_internal_test)(home_folder, checkpoints, config, answers)
    data = rank_0_first(load_other)(checkpoints, config, answers)
    predictions, dropped = predict_parts(checkpoints, data, list(dict.fromkeys(data.split["split"])), config, answers)
    if rank() > 0:
        return None
    subject = describe_checkpoints(checkpoints, data, config)
    facts = {
        **subject.facts,
        "fixed at home": f"calibration and thresholds, on the validation of {point.origin['split_name']} split "
        f"{point.origin['split_hash']}",
        "external images": f"{config.part} of {data.name}",
    }
    if answers is not None:
        facts["labels"] = describe_answers(answers, checkpoints[0].labels)
    fitted_on = ""
    if config.recalibrate:
        table = predictions[RECALIBRATION]
        fitted_on = (
            f"calibration and thresholds fitted on {format_count(len(table), 'image')} of "
            f"{format_count(table['patient'].nunique(), 'patient')} of "
            f"{data.name}, a share of {config.recalibrate_fraction:g} (seed {config.seed})"
        )
        n_images = len(predictions[EXTERNAL])
        facts["external images"] = (
            f"{n_images:,} of {format_count(n_images + len(table), 'image')} ({facts['external images']}): the others "
            "fitted the recalibration"
        )
        facts["recalibration"] = f"{fitted_on}; they are in no number of this page"
    shared = describe_shared(data, checkpoints)
    if shared:
        facts["home test patients"] = shared
    subject = replace(subject, split_name=data.split_name, split_hash=data.split_hash, facts=facts)

    with progress_steps(3) as step:
        step("metrics at home")
        home = measure(HOME, home_table, point, config.n_replicates, config.seed)
        step(f"metrics on {data.name}")
        # Other draws than for the internal test, whose patients differ.
        away = measure(EXTERNAL, predictions[EXTERNAL], point, config.n_replicates, config.seed + 1)
        changes = compare_parts(home, away, (HOME, EXTERNAL), same_patients=False, why_no_interval=shared)
        assessment = Assessment(subject, point, None, {HOME: home, EXTERNAL: away}, dropped)
        if not config.recalibrate:
            return External(assessment, data, changes, shared, answers=answers)
        step("recalibration")
        origin = {"tuned_on": RECALIBRATION, **subject.origin}
        refitted = tune_operating_point(predictions[RECALIBRATION], origin, config)
        again = measure(EXTERNAL, predictions[EXTERNAL], refitted, config.n_replicates, config.seed + 1)
        gains = compare_parts(away, again, ("before", "after"), same_patients=True)
    return External(assessment, data, changes, shared, refitted, gains, fitted_on, answers)


def external_path(checkpoints: Sequence[Checkpoint], config: EvaluateConfig, data_name: str) -> Path:
    """Default folder of the results: beside the internal evaluation, named by the data."""
    home = evaluation_path(checkpoints, config)
    part = "" if config.part == "all" else f"-{config.part}"
    return home.with_name(f"{home.name}-on-{data_name}{part}{'-recalibrated' if config.recalibrate else ''}")


def read_internal_test(
    folder: Path, checkpoints: Sequence[Checkpoint], config: EvaluateConfig, answers: Answers | None = None
) -> tuple[OperatingPoint, pd.DataFrame]:
    """Read the operating point and the test predictions of the internal evaluation, with the labels of ``answers``.

    Raises:
        DataError: There is no such evaluation, or it has another checkpoint, split or precision.
        ConfigError: ``calibration`` or ``threshold_rule`` differ from its own, and nothing is refitted.
    """
    if not (folder / "thresholds.json").is_file() or not (folder / "predictions_test.csv").is_file():
        how = "" if config.tta == "none" else f" tta={config.tta}"
        how += " average=logits" if config.average == "logits" else ""
        how += " trainer.precision=bf16" if choose_evaluation_precision(config) == "bf16" else ""
        raise DataError(
            f"{folder}: thresholds and calibration are those of home, and it has not been evaluated there: first run "
            f"{_say_evaluate(checkpoints)}{how}"
        )
    at_home = read_operating_point(folder / "thresholds.json")
    first = checkpoints[0].metadata
    if at_home.origin["split_hash"] != first.split_hash:
        raise DataError(f"{folder}: its evaluation is of split {at_home.origin['split_hash']}, not {first.split_hash}")
    made, wanted = read_evaluation_precision(folder, first.precision), choose_evaluation_precision(config)
    if made != wanted:
        raise DataError(
            f"{folder}: its evaluation was made in {made}, and this one is in {wanted}: thresholds of one precision do "
            f"not fit the other: evaluate its own split anew: {_say_evaluate(checkpoints[:1])}"
        )
    point = at_home if config.thresholds is None else read_operating_point(Path(config.thresholds))
    if config.thresholds is None and not config.recalibrate:
        fixed = {
            "threshold_rule": at_home.thresholds.rule or "given",
            "calibration": at_home.calibration.method if at_home.calibration else "none",
        }
        for key, value in fixed.items():
            if getattr(config, key) != value:
                raise ConfigError(
                    f"{key}={getattr(config, key)}: at home it is {value}, and stays so on other data: say {key}="
                    f"{value}, evaluate at home anew, or say recalibrate=true"
                )
    table = read_predictions(folder / "predictions_test.csv")
    if answers is None:
        return point.only(first.labels), table
    if config.thresholds is None:
        point = fit_answers(folder, at_home, answers)
    return point.only(list(answers)), answer_predictions(table, answers)


def load_other(checkpoints: Sequence[Checkpoint], config: EvaluateConfig, answers: Answers | None = None) -> SplitData:
    """Load the external data as one part ``external`` or, with ``recalibrate``, as two parts that share no patient.

    Their labels are those of the checkpoints, or of ``answers``.

    Raises:
        LeakageError: A checkpoint was trained, or its thresholds were tuned, on one of the patients.
        DataError: All patients are internal test patients.
        ConfigError: The images would be made square in another way than during training.
    """
    first = checkpoints[0]
    assert not isinstance(config.data, InternalData)
    if config.data.resize != first.config.data.resize:
        raise ConfigError(
            f"data.resize={config.data.resize}: the checkpoint was trained with {first.config.data.resize}: say "
            f"data.resize={first.config.data.resize}"
        )
    labels, cache_dir = first.metadata.labels if answers is None else list(answers), Path(config.cache_dir)
    if config.part == "all":
        read = read_data(config.data, labels, cache_dir, are_labels_fixed=True)
        index = sort_rows(read.index)
        data = SplitData(
            **{name: getattr(read, name) for name in ("sources", "labels", "dropped", "excluded", "stores")},
            index=index,
            split=index[[*KEY, "patient"]].assign(split=EXTERNAL),
            split_name="all images",
            max_dropped=config.data.max_dropped,
            allow_copies=config.data.allow_copies,
        )
    else:
        data = load_data(config.data, labels, cache_dir, are_labels_fixed=True)
        wanted = (data.split["split"] == config.part).to_numpy()
        data = replace(
            data,
            index=data.index[wanted].reset_index(drop=True),
            split=data.split[wanted].reset_index(drop=True).assign(split=EXTERNAL),
            split_name=f"{config.part} of the {data.split_name}",
        )
    refuse_known(data, checkpoints)
    if config.recalibrate:
        share = {RECALIBRATION: config.recalibrate_fraction, EXTERNAL: 1 - config.recalibrate_fraction}
        parts = split_by_patient(data.name_rows(data.index), data.labels, share, config.seed)
        data = replace(data, split=data.split.assign(split=parts))
    return data


def refuse_known(data: SplitData, checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse external patients that a checkpoint was trained or tuned on, or who are all internal test patients, unless
    the data relabel images of another data set.

    Raises:
        LeakageError: There is such a patient, by the name of the data set and the patient's key.
        DataError: All are internal test patients.
    """
    known: set[str] = set()
    for member in checkpoints:
        known |= set(member.metadata.trained_patients) | name_patients(member.split, "val")
    patients = name_patients(data.split, EXTERNAL)
    shared, namesakes = find_shared(patients, known)
    alone = _say_evaluate(checkpoints)
    at_home, _ = find_shared(patients, known | name_patients(checkpoints[0].split, "test"))
    are_home = len(at_home) == len(patients)
    is_relabelled = set(data.sources) <= SAME_PATIENTS.keys()
    if shared:
        remedy = "leave them out of the table, or with data.split=file data.split_file=FILE part=test"
        if is_relabelled:
            remedy = "leave them out of a copy of the table: data.table=FILE"
        elif are_home:
            remedy = f"to evaluate its own test part: {alone}"
        raise LeakageError(
            f"{len(shared):,} of the {format_count(len(patients), 'patient')} of {data.name} trained or tuned the "
            f"model ({name_some(shared)}): {remedy}"
        )
    if are_home and not is_relabelled:
        raise DataError(
            f"all {len(patients)} patients of {data.name} are in the model's own test part, so this is no external "
            f"validation. To evaluate it: {alone}"
        )
    warn_namesakes(namesakes, f"of {data.name}")


def describe_shared(data: SplitData, checkpoints: Sequence[Checkpoint]) -> str:
    """Say how many external patients are internal test patients; empty if none is."""
    patients = name_patients(data.split, EXTERNAL)
    shared = len(find_shared(patients, name_patients(checkpoints[0].split, "test"))[0])
    are = "is a home test patient" if shared == 1 else "are home test patients"
    return f"{shared} of {len(patients)} external patients {are}: the two are not independent samples" if shared else ""


def _say_evaluate(checkpoints: Sequence[Checkpoint]) -> str:
    """The command that evaluates checkpoints on their own split."""
    return format_command(f"evaluate ckpt={'[A,B,...]' if len(checkpoints) > 1 else checkpoints[0].path.parent}")
