"""Patient-grouped splits: create, check, hash and read them.

A split is a table with the columns ``source``, ``image``, ``patient`` and ``split`` (train, val or test), sorted by
``sort_rows``.
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
    """Assign each patient to one part, so that each label has nearly the same prevalence in all parts.

    Patients with the most and the rarest findings come first. Each goes to the part where it brings the counts of
    images and positives closest to their targets (squared distance over the target, summed over labels). The result
    depends on patients, targets and seed, not on the order of rows. 31,000 patients take about a second.

    Args:
        index: The index of one source, or with display names (``name_rows``); only ``patient`` and the labels are
            used. An unknown target counts as absent.
        labels: The labels to balance.
        fractions: Fraction of the images by part; they sum to 1.
        seed: Breaks ties between patients with equal findings.

    Returns:
        (N,) name of each row's part.

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
    order = np.lexsort((np.frombuffer(ties, ">u8"), -rarity)).tolist()  # the last key is the primary one

    parts = list(fractions)
    wanted = (np.array([fractions[part] for part in parts])[:, None] * totals).tolist()
    missing = [list(counts_of_part) for counts_of_part in wanted]  # (parts, 1 + labels)
    shares = list(zip(missing, wanted, strict=True))
    chosen = np.empty(len(names), dtype=int)
    # A patient has few findings: Python numbers, and only the nonzero ones, are faster here than arrays.
    of_patient, columns = np.nonzero(counts)
    first = np.searchsorted(of_patient, np.arange(len(names) + 1)).tolist()
    items = list(zip(columns.tolist(), counts[of_patient, columns].tolist(), strict=True))
    for patient in order:
        own = items[first[patient] : first[patient + 1]]
        growth = []  # change of the squared distance, by part
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
    """Assign each image of one data set to a part: by the data set's own split, by fold, or by the config's fractions.

    Args:
        index: The index of the data set.
        labels: The labels to balance.
        official: The data set's own split (``Source.official``) if it is to be used; else None.
        config: Fold, fractions and seed.

    Returns:
        (N,) train, val or test for each row.

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
    """Read a split from a file with ``image`` and ``split``, such as a phase's ``split.csv``.

    Raises:
        DataError: The file cannot be read, or has an image twice.
    """
    table = read_table(path, ("image", "split"))
    check_unique(table.cells["image"], table)
    return table.cells


def check_split(
    split: pd.DataFrame, where: str = "split", several: bool = False, needed: Sequence[str] = SPLITS
) -> pd.DataFrame:
    """Return the split, sorted, if no patient is in two parts and no needed part is empty.

    Args:
        split: The split, in any order.
        where: Origin of the split, for messages.
        several: Whether the data have several sources, as for ``name_rows``.
        needed: Parts that must have at least one image.

    Raises:
        LeakageError: A patient is in two parts; the message names patients.
        DataError: A needed part is empty, a part's name is unknown, or an image is in the split twice.
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
    """Check that all images of a patient have the same value in ``split``; same arguments as ``check_split``.

    Raises:
        LeakageError: A patient is in two parts; the message names patients.
    """
    stands = split[[*PATIENT_KEY, "split"]].drop_duplicates()  # one row per patient and part
    leaking = name_rows(stands[stands.duplicated(PATIENT_KEY)], several)["patient"]
    if len(leaking):
        names = sorted(map(str, leaking.unique()))
        raise LeakageError(
            f"{where}: {format_count(len(names), 'patient stands', 'patients stand')} "
            f"in two parts of the split ({name_some(names)}): "
            "give all images of a patient to one part"
        )


def name_patients(split: pd.DataFrame, part: str) -> set[str]:
    """Patients of a part as ``source/patient``, the form in checkpoints, even with a single source."""
    return set(name_rows(split[split["split"] == part], several=True)["patient"])


def name_patients_sources(patients: Iterable[str]) -> list[str]:
    """Names of the patients' data sets, sorted; names that no data set can have are ignored.

    Args:
        patients: Names as ``source/patient``.

    >>> name_patients_sources(["nih/7", "clinic/7", "nih/8"])
    ['clinic', 'nih']
    """
    return sorted({name.partition("/")[0] for name in patients if re.match(r"\w[\w.-]{0,39}/", name)})


def find_shared(patients: Iterable[str], known: Iterable[str]) -> tuple[list[str], list[str]]:
    """Patients that are among known ones, in any spelling.

    Equal ids of different sources prove nothing, as every hospital has a patient 7, unless one source labels images
    of the other (``SAME_PATIENTS``). Synthetic patients match nobody.

    Args:
        patients: Names as ``source/patient``.
        known: Names of the known patients, as ``source/patient``.

    Returns:
        Patients with an id of the same source, sorted; and others with an id of another source, sorted.

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
    """Hash of a split's rows with display names (``name_rows``), 12 hex digits that accompany its numbers."""
    rows = split.sort_values("image", kind="stable")
    lines = rows["image"].astype(str) + "\t" + rows["patient"].astype(str) + "\t" + rows["split"].astype(str)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
