"""Names that are not those of the files: the nearest is found, taken where it is meant, named where it is not."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from trees import save_noise

from cxrlit.core.errors import DataError
from cxrlit.data.image_files import DANGLING, DiskFiles, StoredFiles, attach_files, refuse_all
from cxrlit.data.near_files import NearFiles, check_folder, describe_tried

NAMES = ("i00.png", "i01.png", "röntgen.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        save_noise(tmp_path / "data" / "img" / name, seed)
    return tmp_path / "data"


def attach(root: Path, files: list[str], follow_links: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = pd.DataFrame({"image": [f"{row}" for row in range(len(files))]})
    return attach_files(table, ([file] for file in files), DiskFiles(root, follow_links))


def decompose(file: str) -> str:
    return unicodedata.normalize("NFD", file)


OTHERWISE: dict[str, tuple[Callable[[str], str], str]] = {
    "no ending": (lambda file: file.removesuffix(".png"), "with an ending"),
    "another ending": (lambda file: file.replace(".png", ".jpg"), "with another ending"),
    "dicom": (lambda file: file.replace(".png", ".dcm"), "with another ending"),
    "the ending in capitals": (lambda file: file.replace(".png", ".PNG"), "in another case"),
    "the name in capitals": (lambda file: file.upper(), "in another case"),
    "the folder in another case": (lambda file: file.replace("img", "Img"), "in another case"),
    "a folder too many": (lambda file: f"images/{file}", "in another folder"),
    "two folders too many": (lambda file: f"release/v1/{file}", "in another folder"),
    "no folder": (lambda file: file.removeprefix("img/"), "in another folder"),
    "no folder and no ending": (lambda file: file[4:-4], "in another folder, with an ending"),
}


@pytest.mark.parametrize("way", OTHERWISE)
def test_where_one_file_is_near_each_name_it_is_taken_and_said(
    root: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    change, difference = OTHERWISE[way]
    files = [f"img/{name}" for name in NAMES]
    found, dropped = attach(root, [change(file) for file in files])
    assert dropped.empty
    assert found["file"].tolist() == files
    assert found["path"].tolist() == [f"{root}/{file}" for file in files]
    assert found["n_bytes"].tolist() == [(root / file).stat().st_size for file in files]
    said = capsys.readouterr().out
    assert (
        f"3 images are not where the table says, and exactly one file is near each name: {change(files[0])} is" in said
    )
    assert f"({difference})" in said


def test_another_unicode_form_is_the_same_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, dropped = attach(root, [f"img/{decompose(name)}" for name in NAMES])
    assert dropped.empty
    assert found["file"].tolist() == [f"img/{name}" for name in NAMES]
    assert "1 image is not where the table says" in (said := capsys.readouterr().out)
    assert "(in another Unicode form)" in said


NOT_TAKEN: dict[str, tuple[list[str], list[str]]] = {
    "one name is near no file": (["img/i00", "img/i01", "img/i99"], []),
    "two files are near": (["img/i00", "img/i01"], ["img/i00.jpg"]),
    "the same in two folders": (["i00.png", "i01.png"], ["more/i00.png"]),
    "the file of another row": (["img/i00.png", "img/i00"], []),
    "two rows, one file": (["img/I00.png", "img/i00.PNG"], []),
    "another folder": (["images/i00.png"], []),
    "another patient": (["p2/view1.png"], ["p1/view1.png"]),
    "another patient of the same part": (["train/p2/view1.png"], ["train/p1/view1.png"]),
    "another part": (["valid/p1/view1.png"], ["train/p1/view1.png"]),
    "a mask": (["images/a.png"], ["masks/a.png"]),
}


@pytest.mark.parametrize("why", NOT_TAKEN)
def test_nothing_is_taken_where_it_is_not_clear_which(root: Path, why: str) -> None:
    files, others = NOT_TAKEN[why]
    for seed, other in enumerate(others):
        save_noise(root / other, seed)
    found, dropped = attach(root, files)
    there = [file for file in files if (root / file).is_file()]
    assert found["file"].tolist() == there
    assert dropped["path"].tolist() == [f"{root}/{file}" for file in files if file not in there]
    assert set(dropped["reason"]) == {"not on disk"}


def test_a_link_out_of_the_root_is_not_taken_for_another_name(root: Path, tmp_path: Path) -> None:
    save_noise(tmp_path / "outside.png", 0)
    (root / "img" / "out.png").symlink_to(tmp_path / "outside.png")
    assert attach(root, ["img/out"])[1]["reason"].tolist() == ["not on disk"]


def test_the_files_of_a_store_are_found_alike(capsys: pytest.CaptureFixture[str]) -> None:
    files = StoredFiles("s3://x/nih", {"images/a.png": 10, "images/b.png": 20})
    found, dropped = attach_files(pd.DataFrame({"image": ["a", "b"]}), [["a"], ["b"]], files)
    assert dropped.empty
    assert found["n_bytes"].tolist() == [10, 20]
    assert "a is read from images/a.png" in capsys.readouterr().out


def test_few_of_many_folders_are_looked_into() -> None:
    files = StoredFiles("s3://x/nih", {f"p{number:04}/a.png": 10 for number in range(1000)})
    assert NearFiles(files).find("images/a.png") == [f"p{number:04}/a.png" for number in range(64)]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("img/i00", "the nearest is {root}/img/i00.png (with an ending)"),
        ("images/i00.png", "the nearest is {root}/img/i00.png (in another folder)"),
        ("img/I00.PNG", "the nearest is {root}/img/i00.png (in another case)"),
        ("img/ro\u0308ntgen.png", "the nearest is {root}/img/röntgen.png (in another Unicode form)"),
        ("images/gone.png", "there is no {root}/images"),
        ("img/gone.png", ""),
    ],
)
def test_a_message_says_what_was_tried_and_what_is_nearest(root: Path, file: str, said: str) -> None:
    tried = f"tried {root}/{file}"
    assert describe_tried(f"{root}/{file}") == "; ".join(filter(None, [tried, said.format(root=root)]))
    dropped = pd.DataFrame({"path": [f"{root}/{file}"], "reason": ["not on disk"]})
    assert tried in str(refuse_all("t.csv", 1, dropped))


def test_what_is_nowhere_near_is_only_what_was_tried() -> None:
    assert describe_tried("/no/such/folder/a.png") == "tried /no/such/folder/a.png"
    assert describe_tried("") == ""


def test_a_root_that_is_none_names_what_is_there(root: Path) -> None:
    with pytest.raises(DataError, match=rf"^data\.root={root}/IMG: .*; the nearest is {root}/img$"):
        check_folder(root / "IMG")
    with pytest.raises(DataError, match=rf"there is no such folder; {root} is there$"):
        check_folder(root / "absent" / "deeper")
    with pytest.raises(DataError, match=r"i00\.png is a file: name the folder"):
        check_folder(root / "img" / "i00.png")
    with pytest.raises(DataError, match=r"^data\.root=/no/such/folder: there is no such folder$"):
        check_folder(Path("/no/such/folder"))


def test_the_root_of_the_disk_is_a_root(root: Path) -> None:
    files = [f"{root}/img/{name}"[1:] for name in NAMES]
    found, dropped = attach(Path("/"), files)
    assert dropped.empty
    assert found["path"].tolist() == [f"/{file}" for file in files]
    (root / "img" / "link.png").symlink_to(root / "img" / NAMES[0])
    assert len(attach(Path("/"), [f"{root}/img/link.png"[1:]])[0]) == 1  # a link cannot lead out of this root


def lay_out_cache(root: Path, kind: str) -> Path:
    """The images as links into a cache beside them: its root."""
    home = root.parent / kind
    for name in NAMES:
        content = (root / "img" / name).read_bytes()
        digest = f"{hash(content) % 16**12:012x}"
        stored, link = {
            "hugging face": (f"blobs/{digest}", f"snapshots/r1/{name}"),
            "dvc": (f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}", f"data/{name}"),
            "git-annex": (f".git/annex/objects/{digest}/{digest}.png", f"data/{name}"),
            "a chain": (f"store/{digest}", f"data/{name}"),
        }[kind]
        for path in (home / stored, home / link):
            path.parent.mkdir(parents=True, exist_ok=True)
        (home / stored).write_bytes(content)
        target = home / stored
        if kind == "a chain":
            (home / "store" / name).symlink_to(target)
            target = home / "store" / name
        absolute = kind == "dvc"
        (home / link).symlink_to(target if absolute else os.path.relpath(target, (home / link).parent))
    return (home / link).parent


@pytest.mark.parametrize("kind", ["hugging face", "dvc", "git-annex", "a chain"])
def test_links_into_a_cache_are_read_where_one_key_allows_it(root: Path, kind: str) -> None:
    folder = lay_out_cache(root, kind)
    found, dropped = attach(folder, list(NAMES))
    assert found.empty
    reason = "a link to a file outside of data.root, which data.follow_links=true reads"
    assert dropped["reason"].tolist() == [reason] * 3
    found, dropped = attach(folder, list(NAMES), follow_links=True)
    assert dropped.empty
    assert [Path(path).read_bytes() for path in found["path"]] == [(root / "img" / n).read_bytes() for n in NAMES]
    assert found["n_bytes"].tolist() == [(root / "img" / name).stat().st_size for name in NAMES]


@pytest.mark.parametrize(
    ("target", "reason"),
    [("gone.png", DANGLING), ("loop.png", "cannot be read: "), ("/dev/zero", "not a file"), (".", "not a file")],
    ids=["content that is not fetched", "loop", "device", "folder"],
)
def test_following_links_leads_to_files_alone(root: Path, target: str, reason: str) -> None:
    (root / "img" / "loop.png").symlink_to("loop.png")
    (root / "img" / "link.png").symlink_to(target)
    [said] = attach(root, ["img/link.png"], follow_links=True)[1]["reason"]
    assert said.startswith(reason)
