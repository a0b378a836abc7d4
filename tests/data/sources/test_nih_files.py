"""Copies of NIH ChestX-ray14 as people pass them on: other folders, endings, tables and spellings of the lists."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny import write_tree

from cxrlit.core.errors import DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.image_files import DiskFiles
from cxrlit.data.sources import Source, nih
from cxrlit.data.sources.nih_files import locate_images, read_official_lists

LISTS = ("train_val_list.txt", "test_list.txt")


def read_nih(root: Path) -> Source:
    return nih.read_nih(root, DiskFiles(root), LABELS)


def rewrite(root: Path, change: Callable[[str], str], head: str = "") -> None:
    """Write both lists anew, each name as ``change`` has it."""
    for name in LISTS:
        lines = (root / name).read_text().split()
        (root / name).write_text(head + "\n".join(map(change, lines)) + "\n")


def move_images(root: Path, folder: str, change: Callable[[str], str] = lambda name: name) -> None:
    """Put all images into one folder."""
    paths = sorted(root.rglob("*.png"))
    (root / folder).mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.rename(root / folder / change(path.name))
    for empty in root.glob("images_0*"):
        shutil.rmtree(empty)


def save_as_jpeg(root: Path) -> None:
    for path in sorted(root.rglob("*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()


def test_a_name_in_two_folders_is_refused(nih_tree: Path) -> None:
    path = next(nih_tree.rglob("00000001_000.png"))
    (nih_tree / "images").mkdir()
    shutil.copy(path, nih_tree / "images" / path.name)
    with pytest.raises(DataError, match=r"images/00000001_000\.png.* have the same name"):
        locate_images(DiskFiles(nih_tree), [path.name])


def test_official_lists_say_who_tests(nih_tree: Path) -> None:
    source = read_nih(nih_tree)
    assert not (nih_tree / "test_list.txt").read_text().endswith("\n")
    wanted = ["test" if int(patient) % 5 == 0 else "train_val" for patient in source.index["patient"]]
    assert source.official is not None
    assert source.official.tolist() == wanted


def test_without_lists_there_is_no_official_split(make_nih_tree: Any) -> None:
    source = read_nih(make_nih_tree(lists=False))
    assert source.official is None
    assert source.dropped.empty


@pytest.mark.parametrize("gone", ["train_val_list.txt", "test_list.txt"])
def test_one_list_alone_is_refused(nih_tree: Path, gone: str) -> None:
    (nih_tree / gone).unlink()
    with pytest.raises(DataError, match=rf"{gone} is not: add it, or remove both"):
        read_nih(nih_tree)


def test_an_image_in_both_lists_is_named(nih_tree: Path) -> None:
    with (nih_tree / "train_val_list.txt").open("a") as file:
        file.write("\n00000005_000.png")
    with pytest.raises(DataError, match=r"1 image stands in both official lists: 00000005_000\.png"):
        read_official_lists(nih_tree)


def test_a_list_that_is_no_text_is_refused(nih_tree: Path) -> None:
    (nih_tree / "test_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="list cannot be read as text"):
        read_official_lists(nih_tree)


SPELLINGS: dict[str, tuple[Callable[[str], str], str]] = {
    "in a folder": (lambda name: f"images_001/images/{name}", ""),
    "in a folder of Windows": (lambda name: f"images\\{name}", ""),
    "in a folder with a space": (lambda name: f"My images/{name}", ""),
    "with another ending": (lambda name: name.replace(".png", ".jpg"), ""),
    "in capitals": (lambda name: name.replace(".png", ".PNG"), ""),
    "without an ending": (lambda name: name.removesuffix(".png"), ""),
    "with labels": (lambda name: f"{name} 0 1 0 0 0 0 0 0 0 0 0 0 0 0", ""),
    "with labels and commas": (lambda name: f"{name},0,1,0", ""),
    "with labels and tabs, without an ending": (lambda name: name.removesuffix(".png") + "\t0\t1", ""),
    "with a header": (str, "Image Index\n"),
    "with a header and labels": (lambda name: f"{name},Effusion|Mass", "Image Index,Finding Labels\n"),
    "in quotes": (lambda name: f'"{name}"', ""),
    "between blank lines": (lambda name: f"\n{name}\r\n", ""),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_however_the_lists_write_the_names_they_say_who_tests(nih_tree: Path, spelling: str) -> None:
    wanted = read_nih(nih_tree)
    change, head = SPELLINGS[spelling]
    rewrite(nih_tree, change, head)
    found = read_nih(nih_tree)
    assert found.dropped.empty
    assert found.official is not None
    assert wanted.official is not None
    assert found.official.tolist() == wanted.official.tolist()
    assert {"train_val", "test"} == set(found.official)


def test_another_ending_in_the_lists_is_said(nih_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(nih_tree, lambda name: name.replace(".png", ".jpg"))
    n_images = len(read_nih(nih_tree).index)
    said = capsys.readouterr().out
    assert f"{n_images} images have another ending in the official lists: 00000001_000.png is 00000001_000.jpg" in said


def test_lists_of_other_images_are_one_line_with_a_name_of_each_side(nih_tree: Path) -> None:
    rewrite(nih_tree, lambda name: f"9{name[1:]}")
    wanted = r"name none of the table's \d+ images: the lists have 90000001_000\.png, the table has 00000001_000\.png"
    with pytest.raises(DataError, match=wanted):
        read_nih(nih_tree)


def test_empty_lists_are_one_line(nih_tree: Path) -> None:
    for name in LISTS:
        (nih_tree / name).write_text("")
    with pytest.raises(DataError, match="the lists have nothing"):
        read_nih(nih_tree)


def test_a_line_that_names_no_image_is_named(nih_tree: Path) -> None:
    with (nih_tree / "test_list.txt").open("a") as file:
        file.write("\nsomething else, 1\n")
    with pytest.raises(DataError, match=r"test_list\.txt, line \d+: 'something else, 1' names no image"):
        read_nih(nih_tree)


def test_an_image_in_both_lists_is_found_under_another_ending(nih_tree: Path) -> None:
    with (nih_tree / "train_val_list.txt").open("a") as file:
        file.write("\nimages/00000005_000.jpg")
    with pytest.raises(DataError, match=r"in both official lists: 00000005_000\.jpg"):
        read_official_lists(nih_tree)


def test_lists_under_kaggles_names_are_the_official_ones(nih_tree: Path) -> None:
    wanted = read_nih(nih_tree).official
    for name in LISTS:
        (nih_tree / name).rename(nih_tree / name.replace(".txt", "_NIH.txt"))
    found = read_nih(nih_tree).official
    assert found is not None
    assert wanted is not None
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("name", ["train_list.txt", "val_list.txt", "Test.csv", "valid.txt"])
def test_a_list_that_is_not_used_is_said(make_nih_tree: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    root = make_nih_tree(lists=False)
    (root / name).write_text("00000001_000.png\n")
    assert read_nih(root).official is None
    assert (
        f"{name} is there and not used: the official split is read from train_val_list.txt" in capsys.readouterr().out
    )


def test_one_list_beside_others_names_them(nih_tree: Path) -> None:
    (nih_tree / "train_val_list.txt").rename(nih_tree / "train_list.txt")
    with pytest.raises(DataError, match=r"train_val_list\.txt is not \(what is there: train_list\.txt\)"):
        read_nih(nih_tree)


COPIES = ("images-224/images-224", "images-224", "images_small", "sample/images", "sample", ".", "png", "data/resized")


@pytest.mark.parametrize("folder", COPIES)
@pytest.mark.parametrize("as_jpeg", [False, True], ids=["png", "jpeg"])
def test_images_are_found_where_copies_have_them(
    nih_tree: Path, capsys: pytest.CaptureFixture[str], folder: str, as_jpeg: bool
) -> None:
    wanted = read_nih(nih_tree)
    move_images(nih_tree, folder)
    if as_jpeg:
        save_as_jpeg(nih_tree)
    found = read_nih(nih_tree)
    assert found.dropped.empty
    for column in ("image", "patient", *LABELS):
        assert found.index[column].tolist() == wanted.index[column].tolist()
    for image, file in found.index[["image", "file"]].itertuples(index=False):
        assert Path(file).stem == Path(image).stem
        assert (nih_tree / file).is_file()
    assert ("another ending than in the table" in capsys.readouterr().out) == as_jpeg


def test_jpeg_copies_in_the_folders_of_the_archives(nih_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_as_jpeg(nih_tree)
    found = read_nih(nih_tree)
    assert found.dropped.empty
    assert "00000001_000.png is read from images_002/images/00000001_000.jpg" in capsys.readouterr().out


def test_the_ending_of_the_table_comes_first_and_two_others_are_refused(nih_tree: Path) -> None:
    path = next(nih_tree.rglob("00000001_000.png"))
    shutil.copy(path, path.with_suffix(".jpg"))
    assert read_nih(nih_tree).index["file"][0].endswith("00000001_000.png")
    path.rename(path.with_suffix(".jpeg"))
    with pytest.raises(DataError, match=r"may both be 00000001_000\.png: keep one"):
        read_nih(nih_tree)


def test_a_preview_beside_the_folder_of_images_hides_nothing(nih_tree: Path) -> None:
    move_images(nih_tree, "images-224/images-224")
    Image.new("L", (32, 32)).save(nih_tree / "preview.png")
    assert read_nih(nih_tree).dropped.empty


@pytest.mark.parametrize("others", ["masks", "thumbs", "Segmentations/lungs", "few"])
def test_the_folder_with_the_images_is_taken_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], others: str
) -> None:
    names = ["00000001_000.png", "00000002_000.png"]
    for folder, held in ((others, names[: 1 if others == "few" else 2]), ("big/originals", names)):
        (tmp_path / folder).mkdir(parents=True)
        for name in held:
            (tmp_path / folder / name).touch()
    assert locate_images(DiskFiles(tmp_path), names) == [f"big/originals/{name}" for name in names]
    assert "the images are read from big/originals below data.root" in capsys.readouterr().out


def test_the_table_of_kaggles_sample(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "nih")
    wanted = read_nih(root).index
    (root / "Data_Entry_2017_v2020.csv").rename(root / "sample_labels.csv")
    move_images(root, "sample/images")
    assert read_nih(root).index[[*LABELS]].equals(wanted[[*LABELS]])


def test_a_root_above_the_folder_names_it(nih_tree: Path) -> None:
    with pytest.raises(DataError, match=rf"Data_Entry_2017_v2020\.csv is one: say data\.root={nih_tree}$"):
        read_nih(nih_tree.parent)
