"""The sheet shows training images as a training sees them."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from inspecting import Row, encode, fill, noise, read

from cxrlit.config import InspectConfig
from cxrlit.core.errors import ConfigError
from cxrlit.data.augment import build_augment
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData
from cxrlit.inspection.augment_sheet import N_EPOCHS, N_ROWS, SHEET_PX, AugmentedImage, draw_augment_sheet
from cxrlit.inspection.inspect_data import inspect_data
from cxrlit.inspection.survey import survey_data

ConfigMaker = Callable[..., InspectConfig]
RowWriter = Callable[..., Path]


def draw(config: InspectConfig) -> tuple[list[AugmentedImage], SplitData]:
    survey = survey_data(read(config), config.data)
    augment = build_augment(config.augment, SHEET_PX)
    assert augment is not None
    assert isinstance(survey.data, SplitData)
    labels, readable = survey.data.labels, survey.readable
    return draw_augment_sheet(survey.rows, labels, readable, augment, config.data.resize, config.seed), survey.data


def decode(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("choice", ["default", "crop", "strong"])
def test_the_sheet_is_what_a_training_sees(
    nih_tree: Path, make_config: ConfigMaker, tmp_path: Path, choice: str
) -> None:
    config = make_config(nih_tree, f"augment={choice}", "seed=3")
    sheet, data = draw(config)
    assert len({image.row for image in sheet}) == len(sheet) == N_ROWS
    datamodule = CXRDataModule(
        data, img_size=SHEET_PX, batch_size=8, resize=config.data.resize, cache_dir=tmp_path / "cache",
        augment=build_augment(config.augment, SHEET_PX), seed=3, num_workers=0,
    )  # fmt: skip
    datamodule.setup()
    names = datamodule.parts["train"]["image"].tolist()
    places = [names.index(data.index["image"].iloc[image.row]) for image in sheet]  # each is a training image
    for epoch in range(N_EPOCHS):
        seen = np.concatenate([batch["image"][:, 0] for batch in datamodule.view_dataloader(epoch)])
        for image, place in zip(sheet, places, strict=True):
            np.testing.assert_array_equal(decode(image.epochs[epoch]), seen[place])
    stored = np.concatenate([batch["image"][:, 0] for batch in datamodule.plain_dataloader("train")])
    for image, place in zip(sheet, places, strict=True):
        np.testing.assert_array_equal(decode(image.original), stored[place])


def test_images_that_cannot_be_decoded_are_passed_over(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    rows = [Row(f"bad{number}.png", b"bad", "Mass", f"b{number}") for number in range(5)]
    config = make_config(write_rows(fill(rows)), "labels=[Mass]", "data.max_dropped=1")
    sheet, data = draw(config)
    images = data.index["image"].iloc[[image.row for image in sheet]].tolist()
    assert [image.startswith("fill") for image in images] == [True, True]  # one with the label and one without
    assert data.index["Mass"].iloc[[image.row for image in sheet]].tolist() == [1, 0]


def test_the_page_shows_the_sheet(nih_tree: Path, make_config: ConfigMaker) -> None:
    config = make_config(nih_tree, "augment=crop")
    inspect_data(config)
    html = Path(config.out).read_text()
    section = html.partition('<section id="augmented">')[2].partition('<section id="made">')[0]
    shown = [base64.b64decode(source) for source in re.findall(r'src="data:image/png;base64,([^"]+)"', section)]
    sheet, _ = draw(config)
    assert shown == [picture for image in sheet for picture in (image.original, *image.epochs)]
    assert "epoch 5" in section
    assert "albumentations.RandomResizedCrop" in html  # among the settings


def test_the_page_says_that_nothing_is_augmented(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    config = make_config(write_rows(fill([Row("one.png", encode(noise(0)))])), "augment=none")
    inspect_data(config)
    section = Path(config.out).read_text().partition('<section id="augmented">')[2].partition('<section id="made">')[0]
    assert "Training images are not augmented." in section
    assert "<img" not in section


def test_a_transform_that_cannot_be_stops_before_any_work(nih_tree: Path, make_config: ConfigMaker) -> None:
    config = make_config(nih_tree, "+augment.transforms.gray._target_=albumentations.ToRGB")
    (nih_tree / "Data_Entry_2017_v2020.csv").unlink()  # nothing is read
    with pytest.raises(ConfigError, match=r"^augment\.transforms\.gray: ToRGB makes 224 x 224 x 3 uint8 of"):
        inspect_data(config)
