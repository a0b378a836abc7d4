"""Image files with the same bytes, and other concerns that only the images show: printed, listed, or refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.core.console import format_path, say
from cxrlit.core.errors import LeakageError, format_count, name_some
from cxrlit.core.files import write_csv
from cxrlit.core.ranks import rank
from cxrlit.data.concerns import warn_once
from cxrlit.data.dataset import SplitData
from cxrlit.data.index import DataTables
from cxrlit.data.store.reader import Store
from cxrlit.data.tables.text_table import clip

REMEDY = "take them out of the table, or say data.allow_copies=true if you know of them"
TRAINED_ON = "that the checkpoint was trained on"
TRAINED_OR_TUNED_ON = "that the checkpoint was trained or tuned on"
FLAT = "of one gray, or almost"


class Duplicates(NamedTuple):
    """Files with the same bytes.

    Attributes:
        images: Names of the images, at least two.
        patients: Their patients, each once.
        parts: Their parts of the split, each once; empty without a split.
    """

    images: list[str]
    patients: list[str]
    parts: list[str]


def find_duplicates(rows: pd.DataFrame, digests: Sequence[Any] | NDArray[np.int64]) -> list[Duplicates]:
    """Images whose files have the same bytes; those across parts and patients first.

    Args:
        rows: ``image``, ``patient``, and ``split`` if there is a split, with display names (``name_rows``).
        digests: (N,) hash of the bytes of each file.
    """
    codes, _ = pd.factorize(np.asarray(digests))
    again = np.bincount(codes, minlength=1)[codes] > 1 if len(codes) else np.zeros(0, dtype=bool)
    parts = rows["split"] if "split" in rows else pd.Series("", index=rows.index)
    columns = (rows["image"], rows["patient"].astype(str), parts)
    groups: dict[int, list[tuple[str, str, str]]] = {}
    for code, *names in zip(codes[again].tolist(), *(column[again].tolist() for column in columns), strict=True):
        groups.setdefault(code, []).append((names[0], names[1], names[2]))
    found = []
    for group in groups.values():
        images, patients, these = zip(*group, strict=True)
        found.append(Duplicates(sorted(images), sorted(set(patients)), sorted({part for part in these if part})))
    return sorted(found, key=lambda group: (-len(group.parts), -len(group.patients), group.images))


def name_pairs(groups: Sequence[Duplicates]) -> str:
    """Example files of several groups, for a message: ``a.png = b.png``."""
    return name_some([" = ".join(clip(image) for image in group.images[:2]) for group in groups], limit=3)


def name_damaged(damaged: pd.DataFrame, n_images: int, what: str) -> list[str]:
    """The line about images that cannot be decoded; empty if there are none.

    Args:
        damaged: ``image`` and ``reason`` of each such image.
        n_images: Number of images that were examined.
        what: Name of these images, such as "images".

    >>> name_damaged(pd.DataFrame({"image": ["a.png", "b.png"], "reason": ["empty file", "cut off"]}), 30, "images")
    ['2 of 30 images cannot be decoded, such as a.png: empty file']
    """
    if damaged.empty:
        return []
    image, reason = damaged[["image", "reason"]].iloc[0]
    return [f"{len(damaged):,} of {n_images:,} {what} cannot be decoded, such as {clip(image)}: {reason}"]


def name_image_concerns(
    groups: Sequence[Duplicates], flat: Sequence[str], odd: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Concerns about the images that a user should check, one line each.

    Args:
        groups: Groups from ``find_duplicates``.
        flat: Images of a single gray, or almost.
        odd: Images that the decoder reads differently from their file's description, by difference.
    """
    leaks = [group for group in groups if len(group.parts) > 1]
    others = [group for group in groups if len(group.parts) < 2]
    concerns = []
    for these, what in (
        (leaks, "in different parts of the split: this is a leak"),
        (
            [group for group in others if len(group.patients) > 1],
            "of different patients: they may be one person, whom another split would tear apart",
        ),
        (
            [group for group in others if len(group.patients) == 1],
            "of one patient: each name counts as an image of its own",
        ),
    ):
        if these:
            n_files = format_count(len(these), "file", "files")
            concerns.append(f"the same file under several names: {n_files} {what} ({name_pairs(these)})")
    for how, images in {**({FLAT: flat} if flat else {}), **(odd or {})}.items():
        names = name_some([clip(image) for image in images], limit=3)
        concerns.append(f"{format_count(len(images), 'image is', 'images are')} {how}: {names}")
    return concerns


def notice_images(data: DataTables, store: Store, parts: NDArray[np.object_] | None, folder: Path) -> None:
    """Print and list concerns about the images, once per loaded data; refuse a file that is in two parts.

    Args:
        data: The data with their index.
        store: Store of their images.
        parts: (N,) part of each row, None for a row in no part; or None without a split.
        folder: Folder for the list.

    Raises:
        LeakageError: A file is in two parts, and ``data.allow_copies`` is not true.
    """
    rows = data.name_rows(data.index[["source", "image", "patient", "path"]])
    rows = rows if parts is None else rows.assign(split=parts)
    wanted = np.ones(len(rows), dtype=bool) if parts is None else rows["split"].notna().to_numpy()
    usable = wanted & (store.positions >= 0)
    damaged = rows.merge(data.name_rows(store.dropped)[["image", "reason"]])
    damaged = damaged[damaged["image"].isin(rows["image"][wanted])]
    groups = find_duplicates(rows[usable], store.digests[usable])
    flat = rows[store.is_flat & usable]
    leaks = [group for group in groups if len(group.parts) > 1]
    if leaks and isinstance(data, SplitData) and not data.allow_copies:
        pair = " and ".join(leaks[0].parts[:2])
        raise LeakageError(
            f"{data.name}: {format_count(len(leaks), 'image file stands', 'image files stand')} in two parts of the "
            f"split under other names ({name_pairs(leaks)}; the same file in {pair}): {REMEDY}"
        )
    odd = rows.assign(reason=store.warnings)[(store.warnings != "") & usable]
    by_warning = odd.groupby("reason", sort=False)["image"].agg(list).to_dict()
    concerns = name_damaged(damaged, int(wanted.sum()), "images")
    concerns += name_image_concerns(groups, flat["image"].tolist(), by_warning)
    if warn_once(data, concerns) and rank() == 0:
        path = folder / "noticed" / f"{data.name}-{data.index_hash}.csv"
        write_csv(path, pd.concat([damaged, list_noticed(rows, groups, flat), odd], ignore_index=True))
        say(f"They are listed in {format_path(path)}")


def list_noticed(rows: pd.DataFrame, groups: Sequence[Duplicates], flat: pd.DataFrame) -> pd.DataFrame:
    """Each image that a user should check: ``image``, ``patient``, ``split``, ``path``, ``reason``."""
    first = {image: group.images[0] for group in groups for image in group.images}
    same = rows[rows["image"].isin(first)]
    reasons = "the same file as " + same["image"].map(first)
    copies = same.assign(reason=reasons)[same["image"] != same["image"].map(first)]
    return pd.concat([copies, flat.assign(reason=FLAT)], ignore_index=True).sort_values(["reason", "image"])


def refuse_seen(data: SplitData, store: Store, names: Sequence[str], seen: NDArray[np.int64], what: str) -> None:
    """Refuse image files in some parts that a checkpoint has seen.

    Args:
        data: The data with their index and split.
        store: Store of their images.
        names: Names of the parts.
        seen: Digests of the files that the checkpoint has seen.
        what: Role of these files for the checkpoint, in words.

    Raises:
        LeakageError: A file was seen, and ``data.allow_copies`` is not true.
    """
    known = data.split["split"].isin(list(names)).to_numpy() & np.isin(store.digests, seen)
    if not known.any():
        return
    images = data.name_rows(data.index[known])["image"].tolist()
    is_same, of = format_count(len(images), "image file"), " and ".join(names)
    are = "is a file" if len(images) == 1 else "are files"
    line = f"{is_same} of {data.name} ({of}) {are} {what} ({name_some([clip(image) for image in images])})"
    if not data.allow_copies:
        raise LeakageError(f"{line}, under whatever names: {REMEDY}")
    caveat = f"{line}: the results say less than they seem to"
    if warn_once(data, [caveat]):
        data.caveats.append(caveat)
