"""Boxes follow their images into the store."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from cxrlit.config import DataConfig, NIHData, PrepareConfig, read_config
from cxrlit.core.errors import DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import load_data
from cxrlit.data.sources.nih import BOX_LIST
from cxrlit.evaluation.localisation.boxes import SIDES, collect_boxes

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def write_list(root: Path, *rows: str) -> None:
    (root / BOX_LIST).write_text("\n".join([HEADER, *rows]) + "\n")


def prepare(config: DataConfig, cache: Path, labels: tuple[str, ...] = LABELS) -> CXRDataModule:
    data = load_data(config, labels, cache)
    datamodule = CXRDataModule(data, img_size=32, batch_size=8, resize="pad", cache_dir=cache, num_workers=0)
    datamodule.setup()
    return datamodule


def test_boxes_of_the_part_on_images_that_can_be_decoded(
    nih_tree: Path, make_nih_config: Callable[..., NIHData], tmp_path: Path
) -> None:
    config = make_nih_config(nih_tree)
    parts = prepare(config, tmp_path).parts
    test, train = parts["test"]["image"].tolist(), parts["train"]["image"].tolist()
    damaged = test[-1]
    next(nih_tree.rglob(damaged)).write_bytes(b"no image")
    write_list(
        nih_tree,
        f"{test[1]},Mass,512,256,256,512,,,",
        f"{test[0]},Infiltrate,0,0,1024,32,,,",
        f"{test[1]},Mass,0,0,32,32,,,",
        f"{test[0]},Edema,0,0,32,32,,,",
        f"{train[0]},Mass,0,0,32,32,,,",
        f"{train[1]},Nodule,0,0,32,32,,,",
        f"{damaged},Mass,0,0,32,32,,,",
        "elsewhere.png,Mass,0,0,32,32,,,",
    )
    datamodule = prepare(make_nih_config(nih_tree, max_dropped=0.5), tmp_path / "other")
    boxes = collect_boxes(config, tmp_path, datamodule, "test")
    assert boxes.reason == ""
    assert boxes.table["image"].tolist() == [test[1], test[0], test[1]]
    assert boxes.table["label"].tolist() == ["Mass", "Infiltration", "Mass"]
    assert boxes.table[list(SIDES)].to_numpy().tolist() == [[16, 8, 24, 24], [0, 0, 32, 1], [0, 0, 1, 1]]
    of_part = datamodule.parts["test"].iloc[boxes.table["row"]]
    assert of_part["image"].tolist() == boxes.table["image"].tolist()
    assert of_part["patient"].tolist() == boxes.table["patient"].tolist()


def test_without_a_list_there_are_none_and_a_reason(
    nih_tree: Path, make_nih_config: Callable[..., NIHData], tmp_path: Path
) -> None:
    config = make_nih_config(nih_tree)
    datamodule = prepare(config, tmp_path)
    boxes = collect_boxes(config, tmp_path, datamodule, "test")
    assert boxes.table.empty
    assert boxes.reason == "nih has no list of boxes"
    write_list(nih_tree, "elsewhere.png,Mass,0,0,32,32,,,")
    boxes = collect_boxes(config, tmp_path, datamodule, "test")
    assert boxes.table.empty
    assert boxes.reason == "none of the 1 boxes is of a label in use on an image of test"


def test_a_damaged_list_is_an_error(nih_tree: Path, make_nih_config: Callable[..., NIHData], tmp_path: Path) -> None:
    config = make_nih_config(nih_tree)
    write_list(nih_tree, "a.png,Mass,1000,0,32,32,,,")
    with pytest.raises(DataError, match="line 2: not a box inside 1024 x 1024"):
        collect_boxes(config, tmp_path, prepare(config, tmp_path), "test")


def read_data_config(*overrides: str) -> DataConfig:
    with initialize_config_dir(str(Path(__file__).parents[3] / "conf"), version_base="1.3"):
        return read_config(compose("prepare", overrides=list(overrides)), PrepareConfig).data


def test_boxes_of_one_of_several_sources(make_nih_tree: Callable[..., Path], tmp_path: Path) -> None:
    """Another hospital has images of the same names, and no boxes."""
    root, other = make_nih_tree(), make_nih_tree("other", seed=1, lists=False, folders=("images",))
    names = sorted(path.name for path in other.rglob("*.png"))
    table = pd.DataFrame({"image": [f"images/{name}" for name in names], "patient": [name[:8] for name in names]})
    table.assign(**{label: [number % 2 for number in range(len(names))] for label in LABELS}).to_csv(
        other / "table.csv", index=False
    )
    config = read_data_config(
        "data=several",
        "data.sources=[nih,table]",
        f"data.nih.root={root}",
        f"data.table.table={other / 'table.csv'}",
        "data.table.columns.patient=patient",
    )
    name = (root / "test_list.txt").read_text().split()[0]
    write_list(root, f"{name},Mass,512,256,256,512,,,")
    [row] = collect_boxes(config, tmp_path, prepare(config, tmp_path), "test").table.to_dict("records")
    assert (row["image"], row["patient"], row["label"]) == (f"nih/{name}", f"nih/{int(name[:8])}", "Mass")
    assert [row[side] for side in SIDES] == [16, 8, 24, 24]


def test_the_synthetic_set_has_its_own(tmp_path: Path) -> None:
    config = read_data_config("data=synthetic", "data.n_patients=30", "data.image_px=32")
    datamodule = prepare(config, tmp_path)
    boxes = collect_boxes(config, tmp_path, datamodule, "test")
    assert len(boxes.table) > 5
    parts = datamodule.parts["test"]
    for row, label in zip(boxes.table["row"], boxes.table["label"], strict=True):
        assert parts[label].iloc[row] == 1
    sides = boxes.table[list(SIDES)].to_numpy()
    assert sides.min() >= 0
    assert sides.max() <= 32
    assert (sides[:, 2:] > sides[:, :2]).all()
