"""The table: means of pairs, intervals that respect patients, and reasons for blank cells."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from cxrlit.evaluation.localisation.box_scores import COLUMNS, SHARES
from cxrlit.evaluation.localisation.localisation_table import (
    PRIORS,
    resample_means,
    share_interval,
    tabulate_localisation,
)
from cxrlit.metrics.bootstrap import draw_weights
from cxrlit.metrics.intervals import interval

LABELS = ("Mass", "Nodule", "Effusion")


def draw_pairs(n: int, n_patients: int, seed: int = 0, labels: tuple[str, ...] = ("Mass", "Effusion")) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "label": rng.choice(labels, n),
            "image": [f"{number}.png" for number in range(n)],
            "patient": rng.integers(0, n_patients, n).astype(str),
            "n_boxes": rng.integers(1, 3, n),
        }
    )


def draw_scores(n: int, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return {
        name: np.where(SHARES, rng.random((n, len(COLUMNS))) < 0.4, rng.poisson(1.0, (n, len(COLUMNS)))).astype(float)
        for name in ("value", *PRIORS)
    }


def test_values_are_means_of_pairs_and_the_macro_that_of_labels() -> None:
    pairs, scores = draw_pairs(200, 120), draw_scores(200)
    table = tabulate_localisation(pairs, scores, LABELS, n_replicates=200)
    assert table["label"].drop_duplicates().tolist() == [*LABELS, "macro"]
    assert len(table) == 4 * len(COLUMNS)
    for label in ("Mass", "Effusion"):
        rows, of_label = table[table["label"] == label], (pairs["label"] == label).to_numpy()
        assert (rows["n_images"] == of_label.sum()).all()
        assert (rows["n_boxes"] == pairs["n_boxes"][of_label].sum()).all()
        assert (rows["reason"] == "").all()
        for name in ("value", *PRIORS):
            np.testing.assert_allclose(rows[name], scores[name][of_label].mean(axis=0))
        assert (rows["low"] < rows["value"]).all()
        assert (rows["value"] < rows["high"]).all()
    macro = table[table["label"] == "macro"]
    assert (macro["n_labels"] == 2).all()
    assert (macro["n_images"] == 200).all()
    labels = table[table["label"].isin(["Mass", "Effusion"])]
    means = labels.groupby(["metric", "threshold"], dropna=False)[["value", *PRIORS]].mean()
    np.testing.assert_allclose(macro.set_index(["metric", "threshold"])[means.columns].sort_index(), means.sort_index())
    assert ((macro["low"] < macro["value"]) & (macro["value"] < macro["high"])).all()
    pd.testing.assert_frame_equal(table, tabulate_localisation(pairs, scores, LABELS, n_replicates=200))


def test_blank_cells_have_reasons() -> None:
    pairs, scores = draw_pairs(200, 120), draw_scores(200)
    scores["elsewhere"][(pairs["label"] == "Mass").to_numpy()] = np.nan
    scores["value"][(pairs["label"] == "Effusion").to_numpy(), -1] = 3
    table = tabulate_localisation(pairs, scores, LABELS, n_replicates=200)
    numbers = ["value", "low", "high", *PRIORS]
    without = table[table["label"] == "Nodule"]
    assert without[numbers].isna().all(axis=None)
    assert (without["reason"] == "no box").all()
    assert (without["n_images"] == 0).all()
    assert set(table.loc[table["label"] == "Mass", "reason"]) == {"no box of another patient"}
    assert table.loc[table["label"] == "macro", "elsewhere"].isna().all()
    constant = table[table["label"] == "Effusion"].iloc[-1]
    assert constant["value"] == 3
    assert np.isnan(constant["low"])
    assert constant["reason"] == "every resample gives the same value"


def test_no_boxes_at_all() -> None:
    empty = {name: np.empty((0, len(COLUMNS))) for name in ("value", *PRIORS)}
    table = tabulate_localisation(draw_pairs(0, 1), empty, LABELS, "mine has no list of boxes")
    assert len(table) == 4 * len(COLUMNS)
    assert (table["reason"] == "mine has no list of boxes").all()
    assert table[["value", "low", "high", *PRIORS]].isna().all(axis=None)
    assert (table[["n_boxes", "n_images", "n_labels"]] == 0).all(axis=None)


@given(st.integers(1, 60), st.integers(0, 60))
def test_the_interval_of_one_image_a_patient_is_wilsons(n: int, hits: int) -> None:
    hits = min(hits, n)
    values = np.arange(n) < hits
    wanted = binomtest(hits, n).proportion_ci(method="wilson")
    assert share_interval(values.astype(float), np.arange(n).astype(str)) == pytest.approx((wanted.low, wanted.high))


@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 20))
def test_images_of_one_patient_count_as_one(n_patients: int, each: int, hits: int) -> None:
    hits = min(hits, n_patients)
    values = (np.arange(n_patients) < hits).astype(float)
    once = share_interval(values, np.arange(n_patients).astype(str))
    assert share_interval(np.repeat(values, each), np.repeat(np.arange(n_patients).astype(str), each)) == pytest.approx(
        once
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_replicates_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 30))
    values, codes = rng.random((n, 2)), np.append([0, 1], rng.integers(0, 2, n - 2))
    patients = rng.integers(0, 6, n).astype(str).astype(object)
    found = resample_means(values, codes, patients, 20, 0)
    names = sorted(set(patients))
    for column in range(2):
        assert found[column].estimate == pytest.approx([values[codes == label, column].mean() for label in (0, 1)])
        assert found[column].support.tolist() == [len(set(patients[codes == label])) for label in (0, 1)]
    weights = next(draw_weights(len(names), 20, 0))
    for draw in range(20):
        times = np.array([int(weights[names.index(patient), draw]) for patient in patients])
        for label in (0, 1):
            sample = np.repeat(np.flatnonzero(codes == label), times[codes == label])
            wanted = values[sample, 0].mean() if len(sample) else np.nan
            assert found[0].values[draw, label] == pytest.approx(wanted, nan_ok=True)


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    """Shares of images of clustered patients: 95 % intervals hold the true one in nearly 95 % or more."""
    rng, held, of_macro = np.random.default_rng(0), [], []
    for _ in range(400):
        sizes = rng.choice([1, 1, 1, 2, 3], 60)
        owners = np.repeat(np.arange(60), sizes)
        chances = rng.beta(1, 1.5, (60, 2))  # 0.4 on average, alike within a patient
        codes = rng.integers(0, 2, len(owners))
        values = (rng.random(len(owners)) < chances[owners, codes]).astype(float)
        low, high = share_interval(values[codes == 0], owners[codes == 0].astype(str).astype(object))
        held.append(low <= 0.4 <= high)
        [replicates] = resample_means(values[:, None], codes, owners.astype(str).astype(object), 500, 0)
        bounds = interval(replicates.macro())
        of_macro.append(bounds.low[0] <= 0.4 <= bounds.high[0])
    assert np.mean(held) > 0.93
    assert 0.92 < np.mean(of_macro) < 0.98
