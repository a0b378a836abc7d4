"""Patient-grouped splits: made, checked, hashed, read back.

A split is a table with the columns ``source``, ``image``, ``patient`` and ``split`` (train, val or test), sorted as
``sort_rows`` does.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.config import SplitConfig
from cxrlit.core.errors import DataError, LeakageError, format_count, name_some
from cxrlit.data.index import KEY, PATIENT_KEY, name_rows, read_targets, sort_rows
from cxrlit.data.sources import SAME_PATIENTS
from cxrlit.data.tables.open_table import read_table
from cxrlit.data.tables.patient_ids import key_people
from cxrlit.data.tables.validate_cells import check_unique

SPLITS = ("train", "val", "test")


def split_by_patient(
    index: pd.DataFrame, labels: Sequence[str], fractions: Mapping[str, float], seed: int
) -> NDArray[np.object_]:
    """Give each patient to one part, so that all labels have nearly the same prevalence in every part.

    Patients are placed one after the other, those with the most and the rarest findings first, each where it
    brings the counts of images and of positives closest to what the part should have (squared distance over
    the wanted count, summed over labels). The outcome depends on patients, targets and seed, not on the order
    of rows. 31,000 patients take about a second.

    Args:
        index: The index of one source, or with the names of ``name_rows``; of its columns, ``patient`` and the labels
            count. An unknown target counts as absent.
        labels: The labels to balance.
        fractions: Share of the images for each part; they sum to 1.
        seed: Breaks ties between patients that look the same.

    Returns:
        (N,) the name of the part of each row.

    Raises:
        DataError: There are fewer patients than parts.

    Source: the idea of placing the rarest first is Sechidis et al., "On the Stratification of Multi-Label Data",
    ECML PKDD 2011.
    """
    rows, names = pd.factorize(index["patient"].astype(str))
    if len(names) < len(fractions):
        raise DataError(f"{format_count(len(names), 'patient')} cannot be split into {len(fractions)} parts")
    per_image = np.column_stack([np.ones(len(index)), np.nan_to_num(read_targets(index, labels))])
    counts = np.column_stack([np.bincount(rows, weights=column, minlength=len(names)) for column in per_image.T])

    totals = np.maximum(counts.sum(axis=0), 1)
    rarity = (counts / totals).max(axis=1)
    ties = b"".join(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in names.tolist())
    order = np.lexsort((np.frombuffer(ties, ">u8"), -rarity)).tolist()  # the last key counts first

    parts = list(fractions)
    wanted = (np.array([fractions[part] for part in parts])[:, None] * totals).tolist()
    missing = [list(counts_of_part) for counts_of_part in wanted]  # (parts, 1 + labels)
    shares = list(zip(missing, wanted, strict=True))
    chosen = np.empty(len(names), dtype=int)
    # A patient has few findings: plain numbers, and only those that are not 0, are faster here than arrays.
    of_patient, columns = np.nonzero(counts)
    first = np.searchsorted(of_patient, np.arange(len(names) + 1)).tolist()
    items = list(zip(columns.tolist(), counts[of_patient, columns].tolist(), strict=True))
    for patient in order:
        own = items[first[patient] : first[patient + 1]]
        growth = []  # of the squared distance, by part
        for left, whole in shares:
            change = 0.0
            for column, count in own:
                change += count * (count - 2 * left[column]) / whole[column]
            growth.append(change)
        part = growth.index(min(growth))
        for column, count in own:
            missing[part][column] -= count
        chosen[patient] = part
    return np.array(parts, dtype=object)[chosen[rows]]


def split_source(
    index: pd.DataFrame, labels: Sequence[str], official: NDArray[np.object_] | None, config: SplitConfig
) -> NDArray[np.object_]:
    """Give each image of one data set its part: as the data set says, by fold, or by the fractions of the config.

    Args:
        index: The index.
        labels: The labels to balance.
        official: The data set's own split (``Source.official``), if it is the one to take.
        config: Fold, fractions and seed.

    Returns:
        (N,) train, val or test of each row.

    Raises:
        DataError: There are fewer patients than parts, or the official split has no train or no test part.
        LeakageError: The official split puts a patient into two parts.
    """
    held_out = {"train": 1 - config.val_fraction, "val": config.val_fraction}
    needed = {"train": {"train", "train_val"}, "test": {"test"}} if config.needs_train else {"test": {"test"}}
    if official is not None:
        parts = official.copy()
        check_patients_apart(index.assign(split=parts), f"{index['source'].iloc[0]}: the official split")
        undivided = parts == "train_val"
        for part, names in needed.items():
            if names.isdisjoint(parts):
                rows = "give it some rows"
                if part == "test" and "val" in parts:
                    rows = "call val test, and validation is drawn from train"
                raise DataError(
                    f"{index['source'].iloc[0]}: its own split has no {part} part, and a model needs one: {rows}, or "
                    "say data.split=grouped to split all images anew by patient"
                )
    elif config.fold is not None:
        folds = {str(fold): 1 / config.n_folds for fold in range(config.n_folds)}
        undivided = split_by_patient(index, labels, folds, config.split_seed) != str(config.fold)
        parts = np.where(undivided, "train_val", "test").astype(object)
    else:
        rest = 1 - config.test_fraction
        held_out = {part: rest * share for part, share in held_out.items()} | {"test": config.test_fraction}
        parts, undivided = np.empty(len(index), dtype=object), np.ones(len(index), dtype=bool)
    if undivided.any():
        parts[undivided] = split_by_patient(index[undivided], labels, held_out, config.split_seed)
    return parts


def read_split_file(path: Path) -> pd.DataFrame:
    """A split from a file: ``image`` and ``split``, such as the ``split.csv`` of a phase.

    Raises:
        DataError: It cannot be read, or an image stands in it twice.
    """
    table = read_table(path, ("image", "split"))
    check_unique(table.cells["image"], table)
    return table.cells


def check_split(
    split: pd.DataFrame, where: str = "split", several: bool = False, needed: Sequence[str] = SPLITS
) -> pd.DataFrame:
    """The split, sorted, if no patient stands in two parts and none of the parts is empty.

    Args:
        split: The split, in any order.
        where: Where it came from, for messages.
        several: As for ``name_rows``.
        needed: Parts that must have an image.

    Raises:
        LeakageError: A patient stands in two parts; the message names patients.
        DataError: One of them has no image, a part has an unknown name, or an image stands in the split twice.
    """
    unknown = sorted(set(map(str, split["split"].unique())) - set(SPLITS))
    if unknown:
        raise DataError(f"{where}: the parts of a split are train, val and test, not {name_some(unknown)}")
    duplicates = name_rows(split[split.duplicated(KEY)], several)["image"].unique().tolist()
    if duplicates:
        raise DataError(
            f"{where}: {format_count(len(duplicates), 'image stands', 'images stand')} "
            f"in the split twice: {name_some(duplicates)}"
        )
    check_patients_apart(split, where, several)
    for part in needed:
        if not (split["split"] == part).any():
            raise DataError(f"{where}: the {part} part has no image: there are too few patients, or a list is empty")
    return sort_rows(split[[*KEY, "patient", "split"]])


def check_patients_apart(split: pd.DataFrame, where: str, several: bool = False) -> None:
    """Every image of a patient has the same value in ``split``; arguments of ``check_split``.

    Raises:
        LeakageError: A patient stands in two parts; the message names patients.
    """
    stands = split[[*PATIENT_KEY, "split"]].drop_duplicates()  # once for each part that a patient is in
    leaking = name_rows(stands[stands.duplicated(PATIENT_KEY)], several)["patient"]
    if len(leaking):
        names = sorted(map(str, leaking.unique()))
        raise LeakageError(
            f"{where}: {format_count(len(names), 'patient stands', 'patients stand')} "
            f"in two parts of the split ({name_some(names)}): "
            "give all images of a patient to one part"
        )


def name_patients(split: pd.DataFrame, part: str) -> set[str]:
    """Patients of a part as ``source/patient``, however many sources there are: as checkpoints name them."""
    return set(name_rows(split[split["split"] == part], several=True)["patient"])


def name_patients_sources(patients: Iterable[str]) -> list[str]:
    """Data sets that patients are of, sorted; what cannot be the name of one is none.

    Args:
        patients: As ``source/patient``.

    >>> name_patients_sources(["nih/7", "clinic/7", "nih/8"])
    ['clinic', 'nih']
    """
    return sorted({name.partition("/")[0] for name in patients if re.match(r"\w[\w.-]{0,39}/", name)})


def find_shared(patients: Iterable[str], known: Iterable[str]) -> tuple[list[str], list[str]]:
    """Patients that are among others, however they are spelled.

    Ids of differently named sources prove nothing, as every hospital has a patient 7, unless one labels images of the
    other (``SAME_PATIENTS``); drawn patients are nobody.

    Args:
        patients: As ``source/patient``.
        known: The others, as ``source/patient``.

    Returns:
        Those with an id of the same source, sorted; and the rest of those with an id of another source, sorted.

    >>> find_shared(["nih/7", "clinic/8", "clinic/9"], ["nih/007", "nih/8"])
    (['nih/7'], ['clinic/8'])
    >>> find_shared(["nih_google/7"], ["nih/7"])
    (['nih_google/7'], [])
    """
    own, others = (
        {(SAME_PATIENTS.get(source, source), key): name for (source, key), name in key_people(names).items()}
        for names in (patients, known)
    )
    same = own.keys() & others.keys()
    ids = {key for source, key in others if source != "synthetic"}
    namesakes = {place for place in own.keys() - same if place[1] in ids and place[0] != "synthetic"}
    return sorted(own[place] for place in same), sorted(own[place] for place in namesakes)


def hash_split(split: pd.DataFrame) -> str:
    """12 hex digits that stand beside every number of a split: a hash of its rows with the names of ``name_rows``."""
    rows = split.sort_values("image", kind="stable")
    lines = rows["image"].astype(str) + "\t" + rows["patient"].astype(str) + "\t" + rows["split"].astype(str)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
