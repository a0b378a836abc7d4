"""From a config to an index and a split of it."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from cxrlit.config import PrepareConfig, read_config
from cxrlit.core.errors import DataError, LeakageError
from cxrlit.core.labels import LABELS
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import UnsplitData, load_data, read_data, split_data
from cxrlit.data.dropped import check_dropped
from cxrlit.data.index import parse_names
from cxrlit.data.sources.nih_files import read_official_lists
from cxrlit.data.split import name_patients
from cxrlit.data.store.open_stores import open_data_store

CONF = Path(__file__).parents[2] / "conf"


def count_parts(split: pd.DataFrame) -> dict[str, int]:
    return split["split"].value_counts().to_dict()


def test_the_official_split_keeps_its_test_images(nih_tree: Path, make_nih_config: Any) -> None:
    data = load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    listed = (nih_tree / "test_list.txt").read_text().split()
    assert data.split_name == "official"
    assert data.split.loc[data.split["split"] == "test", "image"].tolist() == sorted(listed)
    assert data.split["image"].tolist() == data.index["image"].tolist()
    assert data.split["patient"].tolist() == data.index["patient"].tolist()
    assert data.split.groupby("patient")["split"].nunique().max() == 1
    n_outside = len(data.split) - len(listed)
    assert count_parts(data.split)["val"] == pytest.approx(0.125 * n_outside, abs=2)
    assert data.describe_split() == f"official split {data.split_hash}"


@pytest.mark.parametrize("lists", [True, False])
def test_a_grouped_split_needs_no_lists(make_nih_tree: Any, make_nih_config: Any, lists: bool) -> None:
    root = make_nih_tree(n_patients=100, lists=lists)
    data = load_data(make_nih_config(root, split="grouped"), LABELS, root)
    assert data.split_name == "grouped"
    assert data.split.groupby("patient")["split"].nunique().max() == 1
    shares = {part: count / len(data.split) for part, count in count_parts(data.split).items()}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.02)


def test_auto_without_lists_is_grouped(make_nih_tree: Any, make_nih_config: Any) -> None:
    root = make_nih_tree(lists=False)
    auto, grouped = (load_data(make_nih_config(root, split=split), LABELS, root) for split in ("auto", "grouped"))
    assert auto.split_name == "grouped"
    assert auto.split_hash == grouped.split_hash


def test_official_without_lists_is_refused(make_nih_tree: Any, make_nih_config: Any) -> None:
    root = make_nih_tree(lists=False)
    with pytest.raises(DataError, match=r"data\.split=official: nih has no split of its own"):
        load_data(make_nih_config(root, split="official"), LABELS, root)


@pytest.mark.parametrize("split", ["official", "grouped"])
def test_the_split_seed_decides_and_nothing_else(nih_tree: Path, make_nih_config: Any, split: str) -> None:
    hashes = [
        load_data(make_nih_config(root, split=split, split_seed=seed), LABELS, nih_tree).split_hash
        for root, seed in ((nih_tree, 0), (shutil.copytree(nih_tree, nih_tree.parent / "moved"), 0), (nih_tree, 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_patient_in_both_lists_is_named(nih_tree: Path, make_nih_config: Any) -> None:
    path = next(nih_tree.glob("Data_Entry*"))
    text, n_changed = re.subn(r"^(00000005_000\.png,[^,]*,0),5,", r"\1,4,", path.read_text(), flags=re.MULTILINE)
    assert n_changed == 1
    path.write_text(text)
    with pytest.raises(LeakageError, match=r"nih: the official split: 1 patient stands in two parts .*\(4\)"):
        load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    assert load_data(make_nih_config(nih_tree, split="grouped"), LABELS, nih_tree).split_name == "grouped"


@pytest.mark.parametrize("n_patients", [1, 2, 5])
def test_too_few_patients_are_refused(make_nih_tree: Any, make_nih_config: Any, n_patients: int) -> None:
    root = make_nih_tree(n_patients=n_patients)
    with pytest.raises(DataError, match="patient"):
        load_data(make_nih_config(root, val_fraction=0.01), LABELS, root)


def test_more_missing_images_than_allowed_stop(nih_tree: Path, make_nih_config: Any) -> None:
    paths = sorted(nih_tree.rglob("*.png"))
    gone = paths[:: len(paths) // 7]
    for path in gone:
        path.unlink()
    with pytest.raises(DataError, match=rf"{len(gone)} of {len(paths)} images cannot be used") as caught:
        load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    advice = re.search(r"set data\.max_dropped=([\d.]+)$", str(caught.value))
    assert advice is not None
    data = load_data(make_nih_config(nih_tree, max_dropped=float(advice[1])), LABELS, nih_tree)
    assert len(data.dropped) == len(gone)
    assert len(data.index) == len(data.split) == len(paths) - len(gone)


@pytest.mark.parametrize("n_dropped", [*range(0, 101), 5000])
def test_the_advice_of_max_dropped_is_enough(n_dropped: int) -> None:
    total = max(100, n_dropped)
    dropped = pd.DataFrame({"image": [f"{row}.png" for row in range(n_dropped)], "path": "", "reason": "not on disk"})
    check_dropped(dropped, total - n_dropped, n_dropped / total)
    if n_dropped:
        with pytest.raises(DataError, match=rf"{n_dropped} not on disk; such as 0\.png") as caught:
            check_dropped(dropped, total - n_dropped, (n_dropped - 0.5) / total)
        advice = re.search(r"set data\.max_dropped=([\d.]+)$", str(caught.value))
        assert (advice is None) == (n_dropped > total / 2)  # nobody is told to use the lesser part
        if advice:
            check_dropped(dropped, total - n_dropped, float(advice[1]))


def test_the_official_split_of_the_whole_table(
    nih_table: pd.DataFrame, nih_sample: Path, make_nih_config: Any, tmp_path: Path
) -> None:
    index = nih_table.sort_values("image", ignore_index=True)
    lists = read_official_lists(nih_sample)
    assert lists is not None
    official = index["image"].map(lists).to_numpy(dtype=object)
    empty = pd.DataFrame({"source": [], "image": [], "path": [], "reason": []})
    read = UnsplitData(("nih",), LABELS, index.assign(source="nih", n_bytes=0), empty, empty, {}, {"nih": official})
    data = split_data(read, make_nih_config(tmp_path))
    split = data.split
    assert data.split_name == "official"
    assert split.groupby("patient")["split"].nunique().max() == 1
    assert count_parts(split)["test"] == 25_596
    assert count_parts(split)["val"] == pytest.approx(0.125 * 86_524, abs=5)
    np.testing.assert_array_equal(split["split"] == "test", official == "test")


def test_the_real_sample_loads(nih_sample: Path, make_nih_config: Any, tmp_path: Path) -> None:
    data = load_data(make_nih_config(nih_sample), LABELS, tmp_path)
    counts = count_parts(data.split)
    assert counts["test"] == 137
    assert counts["train"] + counts["val"] == 863
    assert counts["val"] == pytest.approx(0.125 * 863, abs=2)
    assert data.split.groupby("patient")["split"].nunique().max() == 1
    assert data.dropped.empty


@pytest.mark.parametrize("n_folds", [2, 5])
def test_the_folds_test_every_image_once(make_nih_tree: Any, make_nih_config: Any, n_folds: int) -> None:
    root = make_nih_tree(n_patients=100)
    folds = [load_data(make_nih_config(root, fold=fold, n_folds=n_folds), LABELS, root) for fold in range(n_folds)]
    tested = pd.concat([data.split[data.split["split"] == "test"] for data in folds])
    assert sorted(tested["image"]) == folds[0].index["image"].tolist()
    assert tested.drop_duplicates(["patient", "image"]).groupby("patient").ngroups == 100
    for fold, data in enumerate(folds):
        assert data.split_name == f"fold {fold} of {n_folds}"
        assert data.split.groupby("patient")["split"].nunique().max() == 1
        shares = {part: count / len(data.split) for part, count in count_parts(data.split).items()}
        rest = 1 - 1 / n_folds
        wanted = {"train": 0.875 * rest, "val": 0.125 * rest, "test": 1 / n_folds}
        assert shares == pytest.approx(wanted, abs=0.03)
        whole = data.index[list(LABELS)].mean()
        test = data.index.loc[(data.split["split"] == "test").to_numpy(), list(LABELS)].mean()
        assert (test / whole - 1).abs().max() < 0.15
    assert len({data.split_hash for data in folds}) == n_folds


def test_a_split_from_a_file_is_the_split(nih_tree: Path, make_nih_config: Any, tmp_path: Path) -> None:
    made = load_data(make_nih_config(nih_tree, split="grouped", split_seed=9), LABELS, nih_tree)
    path = tmp_path / "split.csv"
    made.name_rows(made.split).sample(frac=1, random_state=0).to_csv(path, index=False)
    read = load_data(make_nih_config(nih_tree, split="file", split_file=str(path)), LABELS, nih_tree)
    assert read.split_hash == made.split_hash
    assert read.split_name == "file"


def test_a_split_file_says_what_counts(nih_tree: Path, make_nih_config: Any, tmp_path: Path) -> None:
    made = load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    path = tmp_path / "split.csv"
    made.name_rows(made.split).iloc[5:].to_csv(path, index=False)
    config = make_nih_config(nih_tree, split="file", split_file=str(path))
    read = load_data(config, LABELS, nih_tree)
    assert read.excluded["image"].tolist() == made.split["image"][:5].tolist()
    assert set(read.excluded["reason"]) == {"not in data.split_file"}
    assert read.index["image"].tolist() == read.split["image"].tolist() == made.split["image"][5:].tolist()
    with path.open("a") as file:
        file.write("gone.png,1,train\n")
    dropped = load_data(config, LABELS, nih_tree).dropped
    assert dropped[["image", "reason"]].to_numpy().tolist() == [["gone.png", "in data.split_file, and not there"]]


def test_a_split_file_that_leaks_is_refused(nih_tree: Path, make_nih_config: Any, tmp_path: Path) -> None:
    split = load_data(make_nih_config(nih_tree), LABELS, nih_tree).split
    several = split["patient"].duplicated(keep=False)
    row = split.index[several][0]
    split.loc[row, "split"] = {"train": "val", "val": "train", "test": "train"}[split.loc[row, "split"]]
    path = tmp_path / "split.csv"
    split[["image", "split"]].to_csv(path, index=False)
    with pytest.raises(
        LeakageError, match=rf"1 patient stands in two parts of the split \({split.loc[row, 'patient']}\)"
    ):
        load_data(make_nih_config(nih_tree, split="file", split_file=str(path)), LABELS, nih_tree)


def test_a_split_file_of_other_data_is_refused(nih_tree: Path, make_nih_config: Any, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("image,split\nx.png,train\n")
    with pytest.raises(
        DataError, match=r"none of its 1 images is in nih, whose images are called such as 00000001_000"
    ):
        load_data(make_nih_config(nih_tree, split="file", split_file=str(path)), LABELS, nih_tree)


def make_several(nih: Path, table: Path, **changes: Any) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["data=several", "data.sources=[nih,table]", f"data.nih.root={nih}", f"data.table.table={table}"]
        overrides += ["data.table.columns.patient=patient"]
        composed = compose(
            "prepare", overrides=[*overrides, *(f"data.{key}={value}" for key, value in changes.items())]
        )
    return read_config(composed, PrepareConfig).data


@pytest.fixture
def other_table(make_nih_tree: Any) -> Path:
    """A table of another hospital with names of images and patients that NIH's tree has too."""
    root = make_nih_tree("other", seed=1, lists=False, folders=("images",))
    names = sorted(path.name for path in root.rglob("*.png"))
    table = pd.DataFrame({"image": [f"images/{name}" for name in names], "patient": [name[:8] for name in names]})
    rng = np.random.default_rng(0)
    for label in LABELS[:4]:
        table[label] = rng.integers(0, 2, len(names))
    table.to_csv(root / "labels.csv", index=False)
    return root / "labels.csv"


def test_several_sources_are_one_data_set(nih_tree: Path, make_nih_config: Any, other_table: Path) -> None:
    data = load_data(make_several(nih_tree, other_table), LABELS, nih_tree)
    alone = load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    assert data.name == "nih+table"
    assert data.split_name == "official+grouped"
    from_nih = data.index["source"] == "nih"
    assert data.index.loc[from_nih, "image"].tolist() == alone.index["image"].tolist()
    assert data.index["image"].duplicated().any()
    assert data.split.loc[from_nih.to_numpy(), "split"].tolist() == alone.split["split"].tolist()
    assert data.index.loc[~from_nih, list(LABELS[4:])].isna().all(axis=None)
    assert data.index.loc[from_nih, list(LABELS)].notna().all(axis=None)
    assert data.split[["source", "image", "patient"]].equals(data.index[["source", "image", "patient"]])
    assert data.split.groupby(["source", "patient"])["split"].nunique().max() == 1
    for part in ("train", "val", "test"):
        theirs = {name for name in name_patients(data.split, part) if name.startswith("nih/")}
        assert theirs == name_patients(alone.split, part)
    written = data.name_rows(data.split)
    assert written.columns.tolist() == ["image", "patient", "split"]
    assert written["image"].tolist() == sorted(data.index["source"] + "/" + data.index["image"])


def test_a_split_file_names_the_sources_of_several(nih_tree: Path, other_table: Path, tmp_path: Path) -> None:
    made = load_data(make_several(nih_tree, other_table, split_seed=5), LABELS, nih_tree)
    split, path = made.name_rows(made.split), tmp_path / "split.csv"
    split.sample(frac=1, random_state=0).to_csv(path, index=False)
    config = make_several(nih_tree, other_table, split="file", split_file=path)
    assert load_data(config, LABELS, nih_tree).split_hash == made.split_hash
    strange = ["gone.png", "nih/gone.png", "else/where/x.png", "00000001_000.png"]
    rows = pd.DataFrame({"image": strange, "patient": "1", "split": "train"})
    pd.concat([split[split["image"].str.startswith("nih/")][3:], rows]).to_csv(path, index=False)
    read = load_data(config, LABELS, nih_tree)
    assert read.name_rows(read.dropped)["image"].tolist() == strange
    assert read.name_rows(read.excluded)["image"].tolist() == [
        *split["image"][made.split["source"] == "nih"][:3],
        *split["image"][made.split["source"] == "table"],
    ]
    assert set(read.index["source"]) == {"nih"}
    assert read.name_rows(read.split)["image"].str.startswith("nih/").all()  # the data are of several all the same


def test_a_split_file_that_tears_a_patient_of_several_is_refused(
    nih_tree: Path, other_table: Path, tmp_path: Path
) -> None:
    data = load_data(make_several(nih_tree, other_table), LABELS, nih_tree)
    split, path = data.name_rows(data.split), tmp_path / "split.csv"
    row = split.index[split["patient"].duplicated(keep=False) & (data.split["source"] == "table")][0]
    split.loc[row, "split"] = {"train": "val", "val": "train", "test": "train"}[split.loc[row, "split"]]
    split.to_csv(path, index=False)
    with pytest.raises(LeakageError, match=rf"parts of the split \({split.loc[row, 'patient']}\)"):
        load_data(make_several(nih_tree, other_table, split="file", split_file=path), LABELS, nih_tree)


@pytest.mark.parametrize("sources", [("a+b",), ("a/b",), ("a", "a/b"), ("a+b", "a")])
def test_names_of_sources_confuse_nothing(
    nih_tree: Path, make_nih_config: Any, tmp_path: Path, sources: tuple[str, ...]
) -> None:
    """Patients ``b/1`` of ``a`` and ``1`` of ``a/b`` are two, though both are written ``a/b/1``."""
    read = read_data(make_nih_config(nih_tree), LABELS, nih_tree)
    indexes = [read.index.assign(source=source) for source in sources]
    indexes[0] = indexes[0].assign(patient="b/" + indexes[0]["patient"])
    data = replace(read, sources=sources, index=pd.concat(indexes, ignore_index=True), official={})
    loaded = split_data(data, make_nih_config(nih_tree))
    assert loaded.name == "+".join(sources)
    assert loaded.split.groupby(["source", "patient"])["split"].nunique().max() == 1
    written = loaded.name_rows(loaded.split)
    assert written["image"].str.contains("/").all() == (len(sources) > 1)
    pd.testing.assert_frame_equal(parse_names(written, sources)[loaded.split.columns], loaded.split)
    written.to_csv(tmp_path / "split.csv", index=False)
    config = make_nih_config(nih_tree, split="file", split_file=str(tmp_path / "split.csv"))
    pd.testing.assert_frame_equal(split_data(data, config).split, loaded.split)


def test_several_sources_share_their_stores_with_single_ones(
    nih_tree: Path, make_nih_config: Any, other_table: Path, tmp_path: Path
) -> None:
    alone = load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    own = open_data_store(alone, 48, "pad", tmp_path)
    folders = set((tmp_path / "store").iterdir())
    data = load_data(make_several(nih_tree, other_table), LABELS, nih_tree)
    store = open_data_store(data, 48, "pad", tmp_path)
    assert folders < set((tmp_path / "store").iterdir())
    for row in range(0, len(data.index), 7):
        with Image.open(data.index["path"][row]) as image:
            np.testing.assert_array_equal(store.take([store.positions[row]])[0], np.asarray(image))
    from_nih = (data.index["source"] == "nih").to_numpy()
    np.testing.assert_array_equal(store.take(store.positions[from_nih]), own.take(own.positions))


def test_damaged_images_of_several_sources_keep_their_full_names(
    nih_tree: Path, other_table: Path, tmp_path: Path
) -> None:
    bad = sorted((other_table.parent / "images").iterdir())[3]
    bad.write_bytes(b"damaged")
    data = load_data(make_several(nih_tree, other_table), LABELS, nih_tree)
    datamodule = CXRDataModule(data, img_size=48, batch_size=8, resize="pad", cache_dir=tmp_path)
    datamodule.setup()
    assert data.name_rows(datamodule.dropped)["image"].tolist() == [f"table/{bad.name}"]
    used = pd.concat(datamodule.parts.values())
    assert used.loc[used["image"] == bad.name, "source"].tolist() == ["nih"]


def test_official_for_several_names_the_one_without(nih_tree: Path, other_table: Path) -> None:
    with pytest.raises(DataError, match=r"data\.split=official: table has no split of its own"):
        load_data(make_several(nih_tree, other_table, split="official"), LABELS, nih_tree)
