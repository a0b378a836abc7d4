"""Changes over several trainings, held against that of a single one and against the formula, and their coverage."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from cxrlit.evaluation.compare.changes import compare_metric
from cxrlit.evaluation.compare.repeated import Pair, average_replicates, measure_repeated
from cxrlit.metrics.bootstrap import bootstrap
from cxrlit.metrics.intervals import degrees_of_freedom

LABELS = ["Mass", "Nodule"]
Scores = NDArray[np.float64]


def draw_block(
    seed: int, n_runs: int, n: int = 200, gain: float = 0.5, spread: float = 0.3
) -> tuple[list[tuple[Scores, Scores]], NDArray[np.float32]]:
    """Scores of trainings of a baseline and of a change, and the targets; a training is better or worse by chance."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 2)) < 0.4).astype(np.float32)
    noise = rng.normal(size=targets.shape)
    runs = []
    for _ in range(n_runs):
        old, new = (1 + gain_ + spread * rng.normal(size=2) for gain_ in (0, gain))
        runs.append((noise + old * targets, noise + new * targets + 0.3 * rng.normal(size=targets.shape)))
    return runs, targets


def resample(runs: list[tuple[Scores, Scores]], targets: NDArray[np.float32], n_replicates: int = 400) -> list[Pair]:
    patients = np.arange(len(targets))
    return [
        (bootstrap(["auroc"], old, targets, patients, n_replicates=n_replicates)["auroc"],
         bootstrap(["auroc"], new, targets, patients, n_replicates=n_replicates)["auroc"])
        for old, new in runs
    ]  # fmt: skip


def test_a_single_training_is_compared_as_two_models_are() -> None:
    runs, targets = draw_block(0, 1)
    table = measure_repeated([resample(runs, targets)], LABELS)
    alone = compare_metric("auroc", *runs[0], targets, np.arange(len(targets)), LABELS, n_replicates=400).table
    table = table.rename(columns={"value": "candidate"})
    for column in ("baseline", "candidate", "change", "low", "high"):
        np.testing.assert_allclose(table[column], alone[column], atol=1e-12)
    assert table["label"].tolist() == [*LABELS, "macro"]
    assert table["sd"].isna().all()
    assert table["n_labels"].tolist()[-1] == 2


def test_seeds_add_their_own_error() -> None:
    runs, targets = draw_block(1, 3)
    pairs = resample(runs, targets)
    table = measure_repeated([pairs], LABELS)
    by_run = np.array([
        [roc_auc_score(targets[:, column], side[:, column]) for side in run for column in (0, 1)] for run in runs
    ])  # fmt: skip
    changes = by_run[:, 2:] - by_run[:, :2]
    np.testing.assert_allclose(table["change"][:2], changes.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(table["baseline"][:2], by_run[:, :2].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(table["sd"][:2], changes.std(axis=0, ddof=1), atol=1e-12)
    for column in (0, 1):
        resampled = np.mean([new.values[:, column] - old.values[:, column] for old, new in pairs], axis=0)
        influence = np.mean([new.influence[:, column] - old.influence[:, column] for old, new in pairs], axis=0)
        patients, seeds = resampled.var(ddof=1), changes[:, column].var(ddof=1) / 3
        weighted = patients * t.ppf(0.975, degrees_of_freedom(influence)) + seeds * t.ppf(0.975, 2)
        width = weighted / np.sqrt(patients + seeds)
        assert table["high"][column] - table["change"][column] == pytest.approx(width, rel=1e-9)
    macro = table.iloc[2]
    assert macro["change"] == pytest.approx(changes.mean(), abs=1e-12)
    assert macro["sd"] == pytest.approx(changes.mean(axis=1).std(ddof=1), abs=1e-12)


@pytest.mark.parametrize("gains", [(0.5, 0.5, 0.5), (0.0, 1.0, 2.0)])
def test_folds_are_independent_and_their_spread_counts_where_it_is_larger(gains: tuple[float, ...]) -> None:
    blocks = [resample(*draw_block(10 + fold, 1, gain=gain, spread=0)) for fold, gain in enumerate(gains)]
    table = measure_repeated(blocks, LABELS)
    for column in (0, 1):
        changes = [new.estimate[column] - old.estimate[column] for [(old, new)] in blocks]
        variances = [(new.values - old.values)[:, column].var(ddof=1) / 9 for [(old, new)] in blocks]
        freedoms = [degrees_of_freedom((new.influence - old.influence)[:, column]) for [(old, new)] in blocks]
        variance = sum(variances)
        quantile = np.average(t.ppf(0.975, freedoms), weights=variances)
        between = np.var(changes, ddof=1) / 3
        if between > variance:
            variance, quantile = between, t.ppf(0.975, 2)
        width = quantile * np.sqrt(variance)
        assert table["change"][column] == pytest.approx(np.mean(changes), abs=1e-12)
        assert table["high"][column] - table["change"][column] == pytest.approx(width, rel=1e-9)
        if gains[0] != gains[1]:
            assert quantile == t.ppf(0.975, 2)
    assert table["n_runs"].tolist() == [3, 3, 3]


def test_what_one_training_leaves_undefined_is_undefined() -> None:
    runs, targets = draw_block(2, 2)
    pairs = resample(runs, targets)
    old, new = pairs[1]
    blank = replace(new, estimate=np.array([np.nan, new.estimate[1]]))
    table = measure_repeated([[pairs[0], (old, blank)]], LABELS)
    assert np.isnan(table.loc[0, ["change", "low", "high"]].astype(float)).all()
    assert table.loc[0, "reason"] == "undefined in one of the trainings"
    assert table.loc[2, "change"] == pytest.approx(table.loc[1, "change"])
    assert table["n_labels"].tolist()[-1] == 1


def test_too_few_patients_have_no_interval() -> None:
    runs, targets = draw_block(3, 2)
    targets[:, 0] = 0
    targets[:3, 0] = 1
    table = measure_repeated([resample(runs, targets)], LABELS)
    assert table.loc[0, "reason"] == "3 patients where 5 are needed"
    assert np.isnan(table.loc[0, "low"])
    assert not np.isnan(table.loc[1, "low"])


def test_the_mean_of_a_training_with_itself_is_it() -> None:
    [(old, _)] = resample(*draw_block(4, 1))
    mean = average_replicates([old, old])
    for name in ("estimate", "values", "influence", "support"):
        np.testing.assert_array_equal(getattr(mean, name), getattr(old, name))


@pytest.mark.slow
@pytest.mark.parametrize("n_blocks", [1, 4])
def test_intervals_hold_the_mean_change_of_all_trainings_and_patients(n_blocks: int) -> None:
    """Of 300 ablations of three seeds, or of four folds of one seed, about 95 in 100 hold it."""
    n_runs = 3 if n_blocks == 1 else 1
    big = [draw_block(10_000 + number, 1, n=20_000) for number in range(60)]
    true = np.mean([
        [roc_auc_score(targets[:, column], side[:, column]) for side in run for column in (0, 1)]
        for [run], targets in big
    ], axis=0)  # fmt: skip
    true = true[2:] - true[:2]
    held = []
    for number in range(300):
        blocks = [resample(*draw_block(1000 * number + block, n_runs), n_replicates=200) for block in range(n_blocks)]
        table = measure_repeated(blocks, LABELS)[:2]
        held.append((table["low"].to_numpy() <= true) & (true <= table["high"].to_numpy()))
    assert 0.92 <= np.mean(held) <= 0.99
