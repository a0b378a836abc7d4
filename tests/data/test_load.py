"""From a config to an index and a split of it."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from cxrlit.config import SyntheticData
from cxrlit.data.load import check_dropped, load_data, make_split
from cxrlit.data.sources import Source
from cxrlit.data.sources.nih import read_official_lists
from cxrlit.errors import ConfigError, DataError, LeakageError

CONF = Path(__file__).parents[2] / "conf" / "data"


def count_parts(split: pd.DataFrame) -> dict[str, int]:
    return split["split"].value_counts().to_dict()


def test_the_official_split_keeps_its_test_images(nih_tree: Path, make_nih_config: Any) -> None:
    data = load_data(make_nih_config(nih_tree), nih_tree)
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
    data = load_data(make_nih_config(root, split="grouped"), root)
    assert data.split_name == "grouped"
    assert data.split.groupby("patient")["split"].nunique().max() == 1
    shares = {part: count / len(data.split) for part, count in count_parts(data.split).items()}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.02)


def test_auto_without_lists_is_grouped(make_nih_tree: Any, make_nih_config: Any) -> None:
    root = make_nih_tree(lists=False)
    auto, grouped = (load_data(make_nih_config(root, split=split), root) for split in ("auto", "grouped"))
    assert auto.split_name == "grouped"
    assert auto.split_hash == grouped.split_hash


def test_official_without_lists_is_refused(make_nih_tree: Any, make_nih_config: Any) -> None:
    root = make_nih_tree(lists=False)
    with pytest.raises(DataError, match=r"data\.split=official: .* are not in data\.root"):
        load_data(make_nih_config(root, split="official"), root)


@pytest.mark.parametrize("split", ["official", "grouped"])
def test_the_split_seed_decides_and_nothing_else(nih_tree: Path, make_nih_config: Any, split: str) -> None:
    hashes = [
        load_data(make_nih_config(root, split=split, split_seed=seed), nih_tree).split_hash
        for root, seed in ((nih_tree, 0), (shutil.copytree(nih_tree, nih_tree.parent / "moved"), 0), (nih_tree, 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_patient_in_both_lists_is_named(nih_tree: Path, make_nih_config: Any) -> None:
    path = next(nih_tree.glob("Data_Entry*"))
    text, n_changed = re.subn(r"^(00000005_000\.png,[^,]*,0),5,", r"\1,4,", path.read_text(), flags=re.MULTILINE)
    assert n_changed == 1
    path.write_text(text)
    with pytest.raises(LeakageError, match=r"nih: the official lists: 1 patients stand in two parts .*\(4\)"):
        load_data(make_nih_config(nih_tree), nih_tree)
    assert load_data(make_nih_config(nih_tree, split="grouped"), nih_tree).split_name == "grouped"


@pytest.mark.parametrize("n_patients", [1, 2, 5])
def test_too_few_patients_are_refused(make_nih_tree: Any, make_nih_config: Any, n_patients: int) -> None:
    root = make_nih_tree(n_patients=n_patients)
    with pytest.raises(DataError, match="patients"):
        load_data(make_nih_config(root, val_fraction=0.01), root)


def test_more_missing_images_than_allowed_stop(nih_tree: Path, make_nih_config: Any) -> None:
    paths = sorted(nih_tree.rglob("*.png"))
    gone = paths[:: len(paths) // 7]
    for path in gone:
        path.unlink()
    with pytest.raises(DataError, match=rf"{len(gone)} of {len(paths)} images cannot be used") as caught:
        load_data(make_nih_config(nih_tree), nih_tree)
    advice = re.search(r"set data\.max_dropped=([\d.]+)$", str(caught.value))
    assert advice is not None
    data = load_data(make_nih_config(nih_tree, max_dropped=float(advice[1])), nih_tree)
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
        check_dropped(dropped, total - n_dropped, float(str(caught.value).rpartition("=")[2]))


def test_nih_without_a_root_says_what_to_set(make_nih_config: Any, tmp_path: Path) -> None:
    config = make_nih_config(tmp_path).model_copy(update={"root": None})
    with pytest.raises(ConfigError, match=r"data=nih needs data\.root=PATH"):
        load_data(config, tmp_path)


def test_the_synthetic_data_set_is_drawn_once(tmp_path: Path) -> None:
    values = OmegaConf.to_container(OmegaConf.load(CONF / "synthetic.yaml"))["data"]
    config = SyntheticData.model_validate({**values, "n_patients": 20, "image_px": 32})
    first = load_data(config, tmp_path)
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = load_data(config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == drawn
    assert first.source == second.source == "synthetic"
    assert first.index_hash == second.index_hash
    assert first.split_name == "official"
    other = load_data(config.model_copy(update={"seed": 1}), tmp_path)
    assert other.index_hash != first.index_hash


def test_the_official_split_of_the_whole_table(
    nih_table: pd.DataFrame, nih_sample: Path, make_nih_config: Any, tmp_path: Path
) -> None:
    index = nih_table.sort_values("image", ignore_index=True)
    lists = read_official_lists(nih_sample)
    assert lists is not None
    official = index["image"].map(lists).to_numpy(dtype=object)
    source = Source("nih", index, pd.DataFrame(), official)
    split, name = make_split(source, make_nih_config(tmp_path))
    assert name == "official"
    assert split.groupby("patient")["split"].nunique().max() == 1
    assert count_parts(split)["test"] == 25_596
    assert count_parts(split)["val"] == pytest.approx(0.125 * 86_524, abs=5)
    np.testing.assert_array_equal(split["split"] == "test", official == "test")


def test_the_real_sample_loads(nih_sample: Path, make_nih_config: Any, tmp_path: Path) -> None:
    data = load_data(make_nih_config(nih_sample), tmp_path)
    counts = count_parts(data.split)
    assert counts["test"] == 137
    assert counts["train"] + counts["val"] == 863
    assert counts["val"] == pytest.approx(0.125 * 863, abs=2)
    assert data.split.groupby("patient")["split"].nunique().max() == 1
    assert data.dropped.empty
