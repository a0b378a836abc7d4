"""No patient in two parts, the same parts for the same seed, the same prevalence in all of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlit.core.errors import DataError, LeakageError
from cxrlit.core.labels import LABELS
from cxrlit.data.split import SPLITS, check_patients_apart, check_split, hash_split, split_by_patient

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def make_index(patients: list[str], seed: int = 0, unknown: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    targets = (rng.random((len(patients), len(LABELS))) < 0.2).astype(np.float32)
    targets[rng.random(targets.shape) < unknown] = np.nan
    images = [f"{row:06d}.png" for row in range(len(patients))]
    return pd.DataFrame(targets, columns=list(LABELS)).assign(image=images, patient=patients)


def make_split() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source": "one",
            "image": ["a", "b", "c", "d", "e"],
            "patient": ["1", "2", "2", "3", "4"],
            "split": ["train", "train", "train", "val", "test"],
        }
    )


def largest_error(index: pd.DataFrame, part: np.ndarray) -> float:
    """Largest relative difference of a label's prevalence between a part and the whole."""
    whole = index[list(LABELS)].mean()
    return float((index.loc[part, list(LABELS)].mean() / whole - 1).abs().max())


@settings(max_examples=100, deadline=None)
@given(
    patients=st.lists(st.integers(0, 30).map(str), min_size=3, max_size=120).filter(lambda names: len(set(names)) > 2),
    seed=st.integers(0, 2**32 - 1),
    unknown=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_patient_is_never_in_two_parts(patients: list[str], seed: int, unknown: float) -> None:
    index = make_index(patients, seed % 1000, unknown)
    parts = split_by_patient(index, LABELS, FRACTIONS, seed)
    assert len(parts) == len(index)
    assert set(parts) <= set(SPLITS)
    assert index.assign(split=parts).groupby("patient")["split"].nunique().max() == 1


def test_the_order_of_rows_changes_nothing() -> None:
    index = make_index([f"{row // 3}" for row in range(600)])
    parts = pd.Series(split_by_patient(index, LABELS, FRACTIONS, 0), index=index["image"])
    shuffled = index.sample(frac=1, random_state=1)
    again = pd.Series(split_by_patient(shuffled, LABELS, FRACTIONS, 0), index=shuffled["image"])
    pd.testing.assert_series_equal(again.sort_index(), parts)


def test_the_seed_decides() -> None:
    index = make_index([f"{row // 3}" for row in range(600)])
    first, again, other = (split_by_patient(index, LABELS, FRACTIONS, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).mean() > 0.2


@pytest.mark.parametrize("seed", [0, 1])
def test_fractions_and_prevalence_hold(seed: int) -> None:
    index = make_index([f"{row // 3}" for row in range(6000)])
    parts = split_by_patient(index, LABELS, FRACTIONS, seed)
    for part, fraction in FRACTIONS.items():
        assert (parts == part).mean() == pytest.approx(fraction, abs=0.002)
        assert largest_error(index, parts == part) < 0.05


@pytest.mark.parametrize("rare", ["Mass", "Pneumothorax"])
def test_a_rare_label_reaches_every_part(rare: str) -> None:
    index = make_index([f"{row}" for row in range(1000)])
    index[rare] = np.float32(np.arange(1000) % 100 == 7)
    parts = split_by_patient(index, LABELS, FRACTIONS, 0)
    assert {part: index.loc[parts == part, rare].sum() for part in FRACTIONS} == {"train": 7, "val": 1, "test": 2}


def test_a_label_without_positives_does_no_harm() -> None:
    index = make_index([f"{row}" for row in range(100)]).assign(Mass=np.float32(0), Nodule=np.float32("nan"))
    parts = split_by_patient(index, LABELS, FRACTIONS, 0)
    assert {part: (parts == part).sum() for part in FRACTIONS} == {"train": 70, "val": 10, "test": 20}


@pytest.mark.parametrize("n_patients", [0, 1, 2])
def test_too_few_patients_are_refused(n_patients: int) -> None:
    with pytest.raises(DataError, match=f"{n_patients} patients? cannot be split into 3 parts"):
        split_by_patient(make_index([f"{row % n_patients}" for row in range(3 * n_patients)]), LABELS, FRACTIONS, 0)


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_grouped_split_of_the_real_table(nih_table: pd.DataFrame, seed: int) -> None:
    parts = split_by_patient(nih_table, LABELS, FRACTIONS, seed)
    assert nih_table.assign(split=parts).groupby("patient")["split"].nunique().max() == 1
    for part, fraction in FRACTIONS.items():
        assert (parts == part).mean() == pytest.approx(fraction, abs=1e-4)
        assert largest_error(nih_table, parts == part) < 0.05
    shuffled = nih_table.sample(frac=1, random_state=seed)
    again = pd.Series(split_by_patient(shuffled, LABELS, FRACTIONS, seed), index=shuffled.index)
    assert (again.sort_index().to_numpy() == parts).all()


def test_a_checked_split_is_sorted_by_image() -> None:
    split = make_split()
    shuffled = split.sample(frac=1, random_state=3).assign(other=1)
    pd.testing.assert_frame_equal(check_split(shuffled), split)


def test_leaking_patients_are_named() -> None:
    split = make_split()
    split.loc[2, "split"] = "val"
    split.loc[len(split)] = ["one", "f", "4", "train"]
    with pytest.raises(LeakageError, match=r"there: 2 patients stand in two parts of the split \(2, 4\)"):
        check_split(split, "there")
    with pytest.raises(LeakageError, match="2, 4"):
        check_patients_apart(split, "there")


def test_images_without_a_patient_cannot_leak() -> None:
    split = make_split()
    split["patient"] = ["1", "2", "2", None, None]
    with pytest.raises(LeakageError, match="1 patient "):
        check_split(split)


@pytest.mark.parametrize("name", ["Train", "", None, float("nan")])
def test_a_part_with_another_name_is_refused(name: object) -> None:
    split = make_split().astype({"split": object})
    split.loc[0, "split"] = name
    with pytest.raises(DataError, match="train, val and test, not"):
        check_split(split)


@pytest.mark.parametrize("part", SPLITS)
def test_an_empty_part_is_refused(part: str) -> None:
    split = make_split()
    with pytest.raises(DataError, match=f"the {part} part has no image"):
        check_split(split[split["split"] != part])


def test_an_image_twice_is_refused() -> None:
    split = make_split()
    with pytest.raises(DataError, match=r"1 image stands in the split twice: b"):
        check_split(pd.concat([split, split[1:2]]))


def test_the_hash_knows_every_cell_and_no_order() -> None:
    split = make_split()
    hashes = {hash_split(split), hash_split(split[:4])}
    for row in range(len(split)):
        for column, value in (("image", "x"), ("patient", "x"), ("split", "x")):
            changed = split.copy()
            changed.loc[row, column] = value
            hashes.add(hash_split(changed))
    assert len(hashes) == 2 + 3 * len(split)
    assert hash_split(split.sample(frac=1, random_state=3)) == hash_split(split)
    assert len(hash_split(split)) == 12
