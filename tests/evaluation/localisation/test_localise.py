"""The whole way, from files and boxes on disk to the table and the pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from planted import make_bright_network
from tiny import list_changes, snapshot

from cxrlit.config import NIHData
from cxrlit.core.errors import DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import load_data
from cxrlit.data.index import read_targets
from cxrlit.data.sources.nih import BOX_LIST
from cxrlit.evaluation.localisation.box_scores import detect, score
from cxrlit.evaluation.localisation.boxes import SIDES, Boxes, collect_boxes
from cxrlit.evaluation.localisation.heatmaps import make_heatmaps
from cxrlit.evaluation.localisation.localise import (
    FOLDER,
    TABLE,
    Localisation,
    compute_heatmaps,
    localise,
    print_localisation,
)
from cxrlit.evaluation.predictions import make_predictions
from cxrlit.evaluation.report.localisation_section import build_localisation_section
from cxrlit.metrics.operating_point import Thresholds
from cxrlit.model.densenet import CXRNet, build_network

CHOSEN = ("Mass", "Nodule", "Effusion")
SIZE = 128


class Hospital:
    """NIH's layout, in which each image is dark but for one bright cell of 32 x 32 pixels, and Mass has a box there."""

    def __init__(self, root: Path, config: NIHData, cache: Path, size: int = SIZE) -> None:
        self.root, self.config, self.cache = root, config, cache
        self.cells: dict[str, tuple[int, int]] = {}
        rng = np.random.default_rng(0)
        rows = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
        listed = set((root / "test_list.txt").read_text().split())
        for path in sorted(root.rglob("*.png")):
            row, column = rng.integers(0, 4, 2).tolist()
            pixels = np.full((256, 256), 60, np.uint8)
            pixels[64 * row : 64 * row + 64, 64 * column : 64 * column + 64] = 220
            Image.fromarray(pixels).save(path)
            self.cells[path.name] = row, column
            if path.name in listed:
                rows.append(f"{path.name},Mass,{256 * column},{256 * row},256,256,,,")
        (root / BOX_LIST).write_text("\n".join(rows) + "\n")
        self.datamodule = CXRDataModule(
            load_data(config, CHOSEN, cache), img_size=size, batch_size=8, resize="pad", cache_dir=cache, num_workers=0
        )
        self.datamodule.setup()

    @property
    def boxes(self) -> Boxes:
        return collect_boxes(self.config, self.cache, self.datamodule, "test")

    @property
    def predictions(self) -> pd.DataFrame:
        return draw_predictions(self.datamodule.parts["test"], CHOSEN)

    def localise(self, network: CXRNet, out: Path, boxes: Boxes | None = None, **options: Any) -> Localisation:
        options = {"n_examples": 1, "n_replicates": 100, **options}
        found = self.boxes if boxes is None else boxes
        return localise([network], self.datamodule, "test", self.predictions, fix(), found, out, **options)


def draw_predictions(part: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
    probs = np.random.default_rng(0).random((len(part), len(labels)), dtype=np.float32)
    return make_predictions(part, labels, probs)


def fix(labels: tuple[str, ...] = CHOSEN, value: float = 0.5) -> Thresholds:
    return Thresholds(labels, np.full(len(labels), value), np.full(len(labels), np.nan), {})


def allow_copies(config: NIHData) -> NIHData:
    """Images with nothing but a square in one of 16 cells are often the same file."""
    return config.model_copy(update={"allow_copies": True})


@pytest.fixture
def hospital(make_nih_tree: Callable[..., Path], make_nih_config: Callable[..., NIHData], tmp_path: Path) -> Hospital:
    root = make_nih_tree(n_patients=25)
    return Hospital(root, allow_copies(make_nih_config(root)), tmp_path / "cache")


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_what_was_planted_on_disk_is_found(hospital: Hospital, tmp_path: Path, method: str) -> None:
    network = make_bright_network(len(CHOSEN))
    before = snapshot(network)
    table, pictures, sheets = hospital.localise(network, tmp_path / "eval", method=method)
    assert list_changes(before, network.state_dict()) == set()
    mass = table[table["label"] == "Mass"].set_index(["metric", "threshold"])
    n_test = len(hospital.datamodule.parts["test"])
    assert (mass["n_boxes"] == n_test).all()
    assert mass["value"]["pointing"].tolist() == [1]
    assert mass["low"]["pointing"].iloc[0] > 0.5
    assert mass["random"]["pointing"].tolist() == [1 / 16]
    assert mass["value"].loc[("iou", 0.3)] == 1
    assert mass["value"].loc[("iobb", 0.1)] == 1
    assert mass["random"].loc[("iou", 0.3)] < 0.5
    assert (table.loc[table["label"] == "Nodule", "reason"] == "no box").all()
    written = pd.read_csv(tmp_path / "eval" / TABLE, keep_default_na=True)
    pd.testing.assert_frame_equal(written.fillna({"reason": ""}), table)

    kinds = {(picture.label, picture.kind) for picture in pictures}
    assert ("Mass", "with_box") in kinds
    assert {picture.label for picture in sheets} == {label for label, _ in kinds}
    assert {path.name for path in (tmp_path / "eval" / FOLDER).iterdir()} == {
        picture.path.name for picture in (*pictures, *sheets)
    }
    shown = next(picture for picture in pictures if picture.kind == "with_box")
    image = shown.caption.split()[4].rstrip(",")
    row, column = hospital.cells[image]
    pixels = np.asarray(Image.open(shown.path).convert("RGB")).astype(int)
    half = pixels[-372:-12, -372:-12]  # the panel with the heatmap, in its margin
    middle = half[90 * row + 45, 90 * column + 45]
    assert np.ptp(middle) > 40  # coloured there, and gray two cells away
    assert np.ptp(half[(90 * row + 225) % 360, (90 * column + 225) % 360]) == 0


def test_scores_are_those_of_each_image(hospital: Hospital, tmp_path: Path) -> None:
    network = build_network("none", "imagenet", len(CHOSEN), seed=0)
    table = hospital.localise(network, tmp_path, n_examples=0).table
    part, found = hospital.datamodule.parts["test"], []
    for row, *sides in hospital.boxes.table[["row", *SIDES]].itertuples(index=False):
        pixels = hospital.datamodule.store.take([part["row"].iloc[row]])[0]
        maps = make_heatmaps(network, torch.from_numpy(pixels.copy())[None, None]).maps[0]
        found.append(score(detect([maps[0].numpy()], SIZE), np.array([sides]), SIZE)[0])
    rows = table[table["label"] == "Mass"]
    np.testing.assert_allclose(rows["value"], np.mean(found, axis=0))
    assert rows["value"].iloc[0] < 1


def test_the_heatmap_of_several_networks_is_the_mean_of_theirs(hospital: Hospital) -> None:
    networks = [build_network("none", "imagenet", len(CHOSEN), seed=seed) for seed in (1, 2)]
    rows = np.arange(3)
    alone = [compute_heatmaps([one], hospital.datamodule, "test", rows, "gradcam", "cpu") for one in networks]
    both = compute_heatmaps(networks, hospital.datamodule, "test", rows, "gradcam", "cpu")
    mean = np.mean(alone, axis=0)
    np.testing.assert_allclose(both, mean / np.maximum(mean.max(axis=(2, 3), keepdims=True), 1e-9), atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 0.1


def test_several_boxes_of_a_label_are_one_image(hospital: Hospital, tmp_path: Path) -> None:
    boxes = hospital.boxes
    twice = Boxes(pd.concat([boxes.table, boxes.table.assign(left=0.0, top=0.0)]), "")
    table = hospital.localise(make_bright_network(len(CHOSEN)), tmp_path, twice, n_examples=0).table
    mass = table[table["label"] == "Mass"].iloc[0]
    assert mass["n_boxes"] == 2 * mass["n_images"]
    assert mass["value"] == 1


def test_without_boxes_there_are_pictures_and_a_reason(hospital: Hospital, tmp_path: Path) -> None:
    (hospital.root / BOX_LIST).unlink()
    table, pictures, _ = hospital.localise(make_bright_network(len(CHOSEN)), tmp_path)
    assert (table["reason"] == "nih has no list of boxes").all()
    assert table["value"].isna().all()
    assert pictures
    assert not any(picture.kind == "with_box" for picture in pictures)


def test_a_heatmap_of_one_cell_is_no_map(
    make_nih_tree: Callable[..., Path], make_nih_config: Callable[..., NIHData], tmp_path: Path
) -> None:
    root = make_nih_tree(n_patients=10)
    hospital = Hospital(root, allow_copies(make_nih_config(root)), tmp_path / "cache", size=32)
    found = hospital.localise(make_bright_network(len(CHOSEN)), tmp_path)
    reason = "a heatmap of 32 pixels is one cell, and shows no place"
    assert (found.table["reason"] == reason).all()
    assert found.table[["value", "low", "high", "random", "centre", "elsewhere"]].isna().all(axis=None)
    assert found.table["n_boxes"].max() > 0
    assert (found.pictures, found.sheets) == ([], [])
    section = build_localisation_section(found, CHOSEN, "gradcam", "test")
    assert section.paragraphs[-1] == f"They are not scored: {reason}."
    assert (list(section.tables), list(section.sections)) == ([], [])


def test_other_labels_and_other_images_are_refused(hospital: Hospital, tmp_path: Path) -> None:
    network = make_bright_network(len(CHOSEN))
    predictions, data = hospital.predictions, hospital.datamodule
    with pytest.raises(DataError, match="the thresholds are of Mass, Nodule, the network of Mass, Nodule, Effusion"):
        localise([network], data, "test", predictions, fix(CHOSEN[:2]), hospital.boxes, tmp_path)
    without = predictions.drop(columns=["prob_Effusion", "target_Effusion"])
    with pytest.raises(DataError, match="the predictions are of Mass, Nodule, the network of"):
        localise([network], data, "test", without, fix(), hospital.boxes, tmp_path)
    first = predictions["image"][0]
    with pytest.raises(DataError, match=rf"predicted images are not in val: {first}"):
        localise([network], data, "val", predictions, fix(), hospital.boxes, tmp_path)
    assert not list(tmp_path.glob(TABLE))


def test_the_screen_shows_labels_and_priors(hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    print_localisation(hospital.localise(make_bright_network(len(CHOSEN)), tmp_path, n_examples=0).table)
    lines = capsys.readouterr().out.splitlines()
    mass = next(line for line in lines if "Mass" in line)
    assert "1.000" in mass
    assert "0.062" in mass  # 1 / 16 at random
    assert any("macro" in line for line in lines)


@pytest.mark.slow
def test_the_real_sample(nih_sample: Path, make_nih_config: Callable[..., NIHData], tmp_path: Path) -> None:
    """Its 39 boxes, with random weights: what is scored and drawn, not how well."""
    config = make_nih_config(nih_sample)
    datamodule = CXRDataModule(
        load_data(config, LABELS, tmp_path), img_size=64, batch_size=16, resize="pad", cache_dir=tmp_path, num_workers=0
    )
    datamodule.setup()
    network = build_network("none", "imagenet", len(LABELS), seed=0)
    boxes = collect_boxes(config, tmp_path, datamodule, "test")
    assert boxes.table["label"].value_counts().to_dict() == {
        "Pneumonia": 27, "Cardiomegaly": 3, "Infiltration": 3, "Mass": 2, "Nodule": 2, "Atelectasis": 1, "Effusion": 1,
    }  # fmt: skip
    part = datamodule.parts["test"]
    present = read_targets(part, LABELS)
    assert (present[boxes.table["row"], [LABELS.index(label) for label in boxes.table["label"]]] == 1).all()
    predictions = draw_predictions(part, LABELS)
    table, pictures, sheets = localise(
        [network], datamodule, "test", predictions, fix(LABELS), boxes, tmp_path / "eval", n_examples=1
    )
    macro = table[table["label"] == "macro"]
    assert (macro["n_boxes"] == 39).all()
    assert (macro["n_images"] == 35).all()
    assert (macro["n_labels"] == 7).all()
    pneumonia = table[table["label"] == "Pneumonia"]
    assert (pneumonia["n_images"] == 27).all()
    assert pneumonia[["value", "random", "centre", "elsewhere"]].notna().all(axis=None)
    whole = pneumonia[["low", "high"]].notna().all(axis=1)
    assert whole[pneumonia["metric"].isin(["pointing", "iou", "iobb"])].all()
    assert (pneumonia.loc[~whole, "reason"] != "").all()  # as where every map has as many boxes too many
    assert len(sheets) == len(LABELS)
    for picture in pictures:
        if picture.kind == "with_box":
            assert ", box drawn" in picture.caption
            image = picture.caption.split(": ")[1].split(",")[0]
            assert present[part["image"].tolist().index(image), LABELS.index(picture.label)] == 1
