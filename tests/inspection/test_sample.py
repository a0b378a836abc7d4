"""Which images are read, and what is found in them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from inspecting import Row, encode, fill, look, noise

from cxrlit.config import InspectConfig
from cxrlit.data.image_io.decode import resize_square
from cxrlit.inspection.sample import N_EXAMPLES, key_images, take_sample
from cxrlit.inspection.survey import name_sample_concerns

ConfigMaker = Callable[..., InspectConfig]
RowWriter = Callable[..., Path]


def test_the_choice_is_a_function_of_names_and_seed(nih_tree: Path, make_config: ConfigMaker) -> None:
    survey, sample = look(make_config(nih_tree), n_sample=20)
    chosen = [facts.image for facts in sample.facts]
    shuffled = survey.rows.sample(frac=1, random_state=0).reset_index(drop=True)
    everything = np.ones(len(shuffled), dtype=bool)
    again = take_sample(shuffled, survey.data.labels, everything, n_sample=20, seed=0, workers=1)
    assert [facts.image for facts in again.facts] == chosen
    assert [facts._replace(row=0) for facts in again.facts] == [facts._replace(row=0) for facts in sample.facts]
    np.testing.assert_array_equal(again.levels, sample.levels)
    for label, rows in sample.examples.items():
        names = survey.rows["image"].iloc[rows].tolist()
        assert shuffled["image"].iloc[again.examples[label]].tolist() == names
    larger = look(make_config(nih_tree), n_sample=30)[1]
    assert [facts.image for facts in larger.facts[:20]] == chosen
    other = look(make_config(nih_tree), n_sample=20, seed=1)[1]
    assert {facts.image for facts in other.facts} != set(chosen)
    assert len(set(key_images(survey.rows["image"], 0))) == len(survey.rows)


def test_workers_change_nothing(nih_tree: Path, make_config: ConfigMaker) -> None:
    one, four = (look(make_config(nih_tree), workers=workers)[1] for workers in (1, 4))
    assert one.facts == four.facts
    assert one.thumbnails == four.thumbnails
    np.testing.assert_array_equal(one.levels, four.levels)


def test_pixels_of_8_bits(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    images = [np.minimum(noise(k), 200).astype(np.uint8) for k in range(5)]
    rows = [Row(f"{k}.png", encode(image), patient=str(k)) for k, image in enumerate(images)]
    _, sample = look(make_config(write_rows(rows)))
    by_name = {facts.image: facts for facts in sample.facts}
    for k, image in enumerate(images):
        facts = by_name[f"{k}.png"]
        assert (facts.width, facts.height, facts.mode, facts.reason) == (24, 24, "L", "")
        assert facts.mean == pytest.approx(image.mean() / 255)
        assert facts.std == pytest.approx(image.std() / 255)
    everything = np.concatenate([image.ravel() for image in images]) / 255
    assert sample.mean == pytest.approx(everything.mean())
    assert sample.std == pytest.approx(everything.std())
    percents = [0.1, 1, 25, 50, 75, 99, 100]
    expected = np.percentile(everything, percents, method="inverted_cdf")
    assert sample.percentiles(percents) == pytest.approx(expected.tolist())
    assert sample.levels.sum() == pytest.approx(1)


def test_pixels_of_16_bits_and_an_image_that_is_not_square(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (30, 50), dtype=np.uint16)
    _, sample = look(make_config(write_rows([Row("a.png", encode(pixels))])))
    [facts] = sample.facts
    assert (facts.width, facts.height, facts.mode) == (50, 30, "I;16")
    assert facts.mean == pytest.approx(pixels.mean() / 65535)
    assert facts.std == pytest.approx(pixels.std() / 65535)
    np.testing.assert_allclose(sample.levels, np.bincount(np.rint(pixels / 257).astype(int).ravel()) / pixels.size)
    thumbnail = cv2.imdecode(np.frombuffer(sample.thumbnails[0], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(thumbnail, resize_square(pixels, 128, "pad"))


def test_each_image_has_the_same_weight(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    rows = [Row("a.png", encode(np.zeros((8, 8), np.uint8))), Row("b.png", encode(np.full((80, 80), 255, np.uint8)))]
    _, sample = look(make_config(write_rows(rows)))
    assert (sample.mean, sample.std) == pytest.approx((0.5, 0.5))
    assert sample.levels[[0, 255]].tolist() == [0.5, 0.5]
    assert sample.percentiles([50, 51]) == [0, 1]


def test_what_cannot_be_decoded_has_its_reason(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    good = encode(noise(0, (64, 64)))
    rows = fill(
        [
            Row("cut.png", good[: len(good) // 2], "Mass", "a"),
            Row("empty.png", b"", "Mass", "b"),
            Row("empty2.png", b"", "Mass", "c"),
            Row("text.png", b"this is no image", "Mass", "d"),
            Row("gone.png", good, "Hernia", "e"),
        ]
    )
    root = write_rows(rows)
    config = make_config(root, "labels=[Mass,Hernia]")
    survey, _ = look(config)
    (root / "images" / "gone.png").unlink()
    everything = np.ones(len(survey.rows), dtype=bool)
    sample = take_sample(survey.rows, survey.data.labels, everything, n_sample=100, seed=0, workers=2)
    reasons = {facts.image: facts.reason for facts in sample.corrupt}
    assert set(reasons) == {"cut.png", "empty.png", "empty2.png", "text.png", "gone.png"}
    assert reasons["empty.png"] == "empty file"
    assert reasons["text.png"] == "not a PNG, JPEG or DICOM image"
    assert reasons["gone.png"] == "cannot be read: No such file or directory"
    assert reasons["cut.png"]
    assert len(sample.decoded) == len(rows) - 5
    assert sample.duplicates == []
    [row] = sample.examples["Hernia"]
    assert sample.faults[row] == reasons["gone.png"]
    assert row not in sample.thumbnails
    assert sample.levels.sum() == pytest.approx(1)
    [concern] = name_sample_concerns(sample)
    assert concern.startswith(f"5 of {len(rows)} images that were read cannot be decoded, such as ")


def test_nothing_that_can_be_decoded(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    _, sample = look(make_config(write_rows([Row("a.png", b"x"), Row("b.png", b"y")])))
    assert len(sample.corrupt) == 2
    assert np.isnan(sample.mean)


def test_duplicates_across_patients_and_parts(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    same = [encode(noise(k)) for k in range(4)]
    rows = fill(
        [
            Row("a1.png", same[0], patient="a"),
            Row("a2.png", same[0], patient="a"),
            Row("b1.png", same[1], patient="b"),
            Row("c1.png", same[1], patient="c", part="test"),
            Row("d1.png", same[2], patient="d", part="test"),
            Row("e1.png", same[2], patient="e", part="test"),
            Row("f1.png", same[3], patient="f"),
        ]
    )
    survey, sample = look(make_config(write_rows(rows)))
    parts = dict(zip(survey.rows["image"], survey.rows["split"], strict=True))
    assert [group.images for group in sample.duplicates] == [
        ["b1.png", "c1.png"],
        ["d1.png", "e1.png"],
        ["a1.png", "a2.png"],
    ]
    leak, suspect, harmless = sample.duplicates
    assert leak.patients == ["b", "c"]
    assert leak.parts == sorted({parts["b1.png"], "test"})
    assert suspect == (["d1.png", "e1.png"], ["d", "e"], ["test"])
    assert harmless == (["a1.png", "a2.png"], ["a"], [parts["a1.png"]])
    leaks, suspects, others = name_sample_concerns(sample)
    assert "leak" in leaks
    assert "b1.png = c1.png" in leaks
    assert "d1" not in leaks
    assert "d1.png = e1.png" in suspects
    assert "a1" not in leaks + suspects
    assert "1 file of one patient: each name counts as an image of its own (a1.png = a2.png)" in others


def test_images_of_one_gray(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    almost = np.full((24, 24), 100, np.uint8)
    almost[0, 0] = 130
    half = np.full((24, 24), 100, np.uint8)
    half[:12] = 130
    rows = [Row("black.png", encode(np.zeros((24, 24), np.uint8))), Row("almost.png", encode(almost))]
    _, sample = look(make_config(write_rows(fill([*rows, Row("half.png", encode(half))]))))
    assert {facts.image for facts in sample.flat} == {"black.png", "almost.png"}
    assert any("2 images are of one gray" in concern for concern in name_sample_concerns(sample))


def test_examples_of_rare_labels_do_not_distort_the_sample(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    rows = fill([Row(f"rare{k}.png", encode(np.zeros((9, 9), np.uint8)), "Nodule", f"r{k}") for k in range(9)], 60)
    survey, sample = look(make_config(write_rows(rows)), n_sample=1)
    assert len(sample.facts) == 1
    assert sample.levels.sum() == pytest.approx(1)
    assert len(sample.examples["Nodule"]) == N_EXAMPLES
    assert len(sample.examples[None]) == N_EXAMPLES
    assert sample.examples["Pneumonia"] == []
    for label, chosen in sample.examples.items():
        assert set(chosen) <= set(sample.thumbnails)
        targets = survey.rows.loc[chosen, list(survey.data.labels)]
        assert (targets != 1).all(axis=None) if label is None else (targets[label] == 1).all()


def test_only_files_are_read(nih_tree: Path, make_config: ConfigMaker) -> None:
    survey, _ = look(make_config(nih_tree), n_sample=1)
    readable = np.arange(len(survey.rows)) % 2 == 0
    sample = take_sample(survey.rows, survey.data.labels, readable, n_sample=10_000, seed=0, workers=2)
    assert {facts.row for facts in sample.facts} == set(np.flatnonzero(readable))
    assert all(row % 2 == 0 for rows in sample.examples.values() for row in rows)
