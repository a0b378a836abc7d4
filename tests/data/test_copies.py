"""The same image file under several names: refused across parts and by what a checkpoint has seen, else counted."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlit.core.errors import LeakageError
from cxrlit.core.labels import LABELS
from cxrlit.data.copies import find_duplicates, notice_images, refuse_seen
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData, load_data
from cxrlit.data.store.open_stores import open_data_store


@pytest.fixture
def data(nih_tree: Path, make_nih_config: Any) -> SplitData:
    """No image is a copy of another."""
    return load_data(make_nih_config(nih_tree), LABELS, nih_tree)


def open_images(data: SplitData, cache: Path, img_size: int = 32) -> CXRDataModule:
    datamodule = CXRDataModule(data, img_size=img_size, batch_size=8, resize="pad", cache_dir=cache)
    datamodule.setup()
    return datamodule


def list_images(data: SplitData, part: str) -> list[str]:
    return data.split.loc[data.split["split"] == part, "image"].tolist()


def copy(data: SplitData, source: str, *names: str) -> SplitData:
    """The data after the file of one image was copied over those of others."""
    paths = dict(zip(data.index["image"], data.index["path"], strict=True))
    for name in names:
        shutil.copyfile(paths[source], paths[name])
    status = [Path(path).stat() for path in data.index["path"]]
    sizes, times = [file.st_size for file in status], [file.st_mtime_ns for file in status]
    return replace(data, index=data.index.assign(n_bytes=sizes, mtime_ns=times))


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val"), ("val", "test")], ids="-".join)
def test_a_file_in_two_parts_is_refused_by_name(data: SplitData, tmp_path: Path, parts: tuple[str, str]) -> None:
    one, other = (list_images(data, part)[0] for part in parts)
    with pytest.raises(LeakageError) as caught:
        open_images(copy(data, one, other), tmp_path)
    message = str(caught.value)
    assert "1 image file stands in two parts" in message
    assert " = ".join(sorted([one, other])) in message
    assert "data.allow_copies=true" in message
    assert "\n" not in message


def test_whoever_knows_of_the_copies_goes_on_and_is_told_once(
    data: SplitData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = list_images(data, "train")[0], list_images(data, "test")[0]
    allowed = replace(copy(data, one, other), allow_copies=True)
    open_images(allowed, tmp_path)
    said = capsys.readouterr().out
    assert said.count("in different parts of the split: this is a leak") == 1
    [listed] = (tmp_path / "noticed").glob("*.csv")
    assert listed.name in said
    table = pd.read_csv(listed)
    first, second = sorted([one, other])
    assert table[["image", "reason"]].to_numpy().tolist() == [[second, f"the same file as {first}"]]
    open_images(allowed, tmp_path, img_size=48)
    assert "leak" not in capsys.readouterr().out


def test_damaged_images_are_said_in_the_same_words_where_the_store_is_there(
    data: SplitData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = min(list_images(data, "train"))
    empty = Path(data.index.set_index("image")["path"][name])
    empty.write_bytes(b"\x89PNG")
    data = replace(data, index=data.index.assign(n_bytes=[Path(path).stat().st_size for path in data.index["path"]]))
    said = []
    for _ in range(2):
        open_images(replace(data, said=set()), tmp_path)
        [line] = [line for line in capsys.readouterr().out.splitlines() if "cannot be decoded" in line]
        said.append(line)
    assert said[0] == said[1]
    assert said[0].startswith(f"warning: 1 of {len(data.index)} images cannot be decoded, such as {name}: ")
    [listed] = (tmp_path / "noticed").glob("*.csv")
    assert pd.read_csv(listed)["image"].tolist() == [name]


def test_copies_within_a_part_are_counted_and_listed(
    data: SplitData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patients = dict(zip(data.index["image"], data.index["patient"], strict=True))
    train = list_images(data, "train")
    same = next([a, b] for a, b in pairwise(train) if patients[a] == patients[b])
    rest = [image for image in train if image not in same]
    other = next([a, b] for a, b in pairwise(rest) if patients[a] != patients[b])
    datamodule = open_images(copy(copy(data, *same), *other), tmp_path)
    said = capsys.readouterr().out
    assert f"1 file of one patient: each name counts as an image of its own ({' = '.join(same)})" in said
    assert (
        f"1 file of different patients: they may be one person, whom another split would tear apart ({other[0]}" in said
    )
    assert len(pd.read_csv(next((tmp_path / "noticed").glob("*.csv")))) == 2
    assert len(datamodule.parts["train"]) == len(train)


def test_images_in_no_part_are_not_looked_at(
    data: SplitData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = list_images(data, "train")[0], list_images(data, "test")[0]
    copied = copy(data, one, other)
    parts = np.where(copied.split["image"] == other, None, copied.split["split"].to_numpy(object))
    notice_images(copied, open_data_store(copied, 32, "pad", tmp_path), parts, tmp_path)
    assert "the same file" not in capsys.readouterr().out
    assert not (tmp_path / "noticed").exists()


def test_three_names_are_one_file(data: SplitData, tmp_path: Path) -> None:
    one, two = list_images(data, "train")[:2]
    with pytest.raises(LeakageError, match="1 image file stands in two parts"):
        open_images(copy(data, one, two, list_images(data, "test")[0]), tmp_path)


def test_a_file_that_differs_by_a_byte_is_no_copy(data: SplitData, tmp_path: Path) -> None:
    one, other = list_images(data, "train")[0], list_images(data, "test")[0]
    data = copy(data, one, other)
    path = Path(data.index.loc[data.index["image"] == other, "path"].iloc[0])
    path.write_bytes(path.read_bytes() + b"\0")
    open_images(copy(data, one), tmp_path)


def test_files_that_cannot_be_decoded_are_no_copies(data: SplitData, tmp_path: Path) -> None:
    data = replace(data, max_dropped=0.9)
    one, other = list_images(data, "train")[0], list_images(data, "test")[0]
    Path(data.index.loc[data.index["image"] == one, "path"].iloc[0]).write_bytes(b"no image")
    datamodule = open_images(copy(data, one, other), tmp_path)
    assert set(datamodule.dropped["image"]) == {one, other}


def test_copies_in_two_sources_are_found(nih_tree: Path, data: SplitData, tmp_path: Path) -> None:
    """The same patients and files under another source's name: no name of the two is the same."""
    split = data.split["split"].replace({"train": "test", "test": "train"})
    other = replace(
        data, index=data.index.assign(source="clinic"), split=data.split.assign(source="clinic", split=split)
    )
    both = replace(
        data,
        sources=("nih", "clinic"),
        index=pd.concat([data.index, other.index], ignore_index=True),
        split=pd.concat([data.split, other.split], ignore_index=True),
    )
    n_leaks = int((data.split["split"] != "val").sum())
    with pytest.raises(LeakageError, match=rf"^nih\+clinic: {n_leaks} image files stand in .*clinic/\S+ = nih/\S+"):
        open_images(both, tmp_path)


def test_what_a_checkpoint_has_seen_is_refused_by_the_name_that_it_has_now(data: SplitData, tmp_path: Path) -> None:
    datamodule = open_images(data, tmp_path)
    test = (data.split["split"] == "test").to_numpy()
    store = datamodule.store
    refuse_seen(data, store, ("val", "test"), store.digests[~test & (data.split["split"] == "train").to_numpy()], "x")
    image = data.index["image"][test].iloc[0]
    with pytest.raises(LeakageError, match=rf"1 image file of nih \(val and test\) is a file of theirs \({image}\)"):
        refuse_seen(data, store, ("val", "test"), store.digests[test][:1], "of theirs")
    refuse_seen(data, store, ("val",), store.digests[test][:1], "of theirs")
    refuse_seen(replace(data, allow_copies=True), store, ("val", "test"), store.digests[test], "of theirs")


@pytest.mark.parametrize("side", [32, 48])
@pytest.mark.parametrize(
    ("pixels", "is_flat"),
    [
        (np.zeros((48, 48), np.uint8), True),
        (np.full((48, 48), 255, np.uint8), True),
        (np.full((48, 48), 40000, np.uint16), True),
        (np.full((48, 16), 128, np.uint8), True),  # beside it the padding is black
        (np.pad(np.full((1, 1), 140, np.uint8), ((0, 47), (0, 47)), constant_values=130), True),
        (np.tile(np.arange(48, dtype=np.uint8), (48, 1)), False),
    ],
    ids=["black", "white", "16 bits", "not square", "almost", "a ramp"],
)
def test_an_image_of_one_gray_is_counted_and_listed(
    data: SplitData, tmp_path: Path, capsys: pytest.CaptureFixture[str], pixels: Any, is_flat: bool, side: int
) -> None:
    image = list_images(data, "train")[0]
    Image.fromarray(pixels).save(data.index.loc[data.index["image"] == image, "path"].iloc[0])
    changed = copy(data, image)
    for _ in range(2):  # decoded, and from the store
        datamodule = open_images(replace(changed, said=set()), tmp_path, side)
        assert datamodule.store.is_flat.tolist() == [is_flat and name == image for name in data.index["image"]]
        said = capsys.readouterr().out
        assert (f"warning: 1 image is of one gray, or almost: {image}" in said) == is_flat
    assert len(list((tmp_path / "noticed").glob("*.csv"))) == is_flat


def test_duplicates_of_nothing_are_none() -> None:
    rows = pd.DataFrame({"image": ["a", "b"], "patient": ["1", "2"]})
    assert find_duplicates(rows[:0], np.empty(0, np.int64)) == []
    assert find_duplicates(rows, np.array([1, 2])) == []
    assert find_duplicates(rows, [b"x", b"x"]) == [(["a", "b"], ["1", "2"], [])]
