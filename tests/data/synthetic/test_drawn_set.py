"""The drawn data set: what lies in its folder, and that it is a function of the seed alone."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxrlit.core.labels import LABELS
from cxrlit.data.image_files import DiskFiles
from cxrlit.data.sources.nih import read_nih
from cxrlit.data.synthetic.anatomy import Lesion, sample_anatomy, sample_exposure
from cxrlit.data.synthetic.drawn_set import MAX_IMAGES, sample_patient, write_synthetic
from cxrlit.data.synthetic.radiograph import draw_radiograph

N_PATIENTS, SEED, PX = 16, 3, 64


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "drawn"
    write_synthetic(root, n_patients=N_PATIENTS, seed=SEED, image_px=PX, workers=1)
    return root


def read_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read_table(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "Data_Entry_2017_v2020.csv", index_col=False)


def test_same_bytes_for_any_number_of_workers(root: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "four", n_patients=N_PATIENTS, seed=SEED, image_px=PX, workers=4)
    assert read_bytes(tmp_path / "four") == read_bytes(root)


def test_another_seed_draws_other_images(root: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "other", n_patients=3, seed=SEED + 1, image_px=PX)
    name = "images_001/images/00000001_000.png"
    assert read_bytes(tmp_path / "other")[name] != read_bytes(root)[name]


def test_a_patient_looks_the_same_in_a_smaller_set(root: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "small", n_patients=3, seed=SEED, image_px=PX)
    large = read_bytes(root)
    images = {name: content for name, content in read_bytes(tmp_path / "small").items() if name.endswith(".png")}
    assert images
    assert images == {name: large[name] for name in images}


def test_layout_is_that_of_nih(root: Path) -> None:
    table = read_table(root)
    header = (root / "Data_Entry_2017_v2020.csv").read_text().splitlines()[0]
    assert header == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    names = [f"{row['Patient ID']:08d}_{row['Follow-up #']:03d}.png" for _, row in table.iterrows()]
    assert table["Image Index"].tolist() == names
    assert sorted(path.name for path in (root / "images_001" / "images").iterdir()) == names
    assert sorted(path.name for path in root.iterdir()) == [
        "BBox_List_2017.csv",
        "Data_Entry_2017_v2020.csv",
        "images_001",
        "test_list.txt",
        "train_val_list.txt",
    ]
    assert table["Patient ID"].nunique() == N_PATIENTS
    assert table["Patient ID"].value_counts().max() <= MAX_IMAGES
    assert table["Patient Age"].between(1, 95).all()
    assert set(table["Patient Gender"]) == {"F", "M"}
    assert set(table["View Position"]) == {"AP", "PA"}
    assert table.groupby("Patient ID")["Patient Gender"].nunique().eq(1).all()
    for findings in table["Finding Labels"]:
        labels = findings.split("|")
        assert labels == ["No Finding"] or labels == [label for label in LABELS if label in labels]
    image = cv2.imread(str(root / "images_001" / "images" / names[0]), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.shape == (PX, PX)
    assert image.dtype == np.uint8


def test_the_nih_reader_drops_nothing(root: Path) -> None:
    source = read_nih(root, DiskFiles(root), LABELS, name="synthetic")
    assert source.dropped.empty
    assert len(source.index) == len(read_table(root))
    assert source.official is not None
    assert set(source.official) == {"train_val", "test"}


def test_official_lists_share_no_patient_and_miss_no_image(root: Path) -> None:
    texts = [(root / name).read_text() for name in ("train_val_list.txt", "test_list.txt")]
    assert not any(text.endswith("\n") for text in texts)
    train_val, test = (text.split("\n") for text in texts)
    assert sorted(train_val + test) == read_table(root)["Image Index"].tolist()
    test_patients = {name[:8] for name in test}
    assert not test_patients & {name[:8] for name in train_val}
    assert len(test_patients) == round(0.2 * N_PATIENTS)


def test_boxes_are_inside_and_belong_to_labelled_test_images(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "many", n_patients=200, seed=SEED, image_px=32)
    lines = (tmp_path / "many" / "BBox_List_2017.csv").read_text().splitlines()
    assert lines[0] == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    test_names = (tmp_path / "many" / "test_list.txt").read_text().split()
    findings = read_table(tmp_path / "many").set_index("Image Index")["Finding Labels"].str.split("|")
    boxed = set()
    for line in lines[1:]:
        name, label, *numbers = line.split(",")
        x, y, width, height = map(float, numbers)
        assert name in test_names
        assert label.replace("Infiltrate", "Infiltration") in findings[name]
        assert min(x, y) >= 0
        assert min(width, height) > 0
        assert max(x + width, y + height) <= 1024
        boxed.add(label)
    assert boxed == {label.replace("Infiltration", "Infiltrate") for label in LABELS}


@pytest.mark.parametrize("label", LABELS)
def test_a_finding_changes_the_image_in_its_box(label: str) -> None:
    rng = np.random.default_rng(0)
    anatomy, exposure = sample_anatomy(rng, female=False), sample_exposure(rng, portable=False)
    lesion = Lesion(label, side=-1, depth=0.5, height=0.5, size=0.8, opacity=1.0, seed=1)
    without, _ = draw_radiograph(anatomy, [], exposure, 128)
    drawn, [box] = draw_radiograph(anatomy, [lesion], exposure, 128)
    assert box is not None
    left, top, width, height = (round(128 * side) for side in box)
    change = np.abs(drawn.astype(int) - without)
    inside = change[top : top + height, left : left + width].mean()
    assert inside > 3 * change.mean()
    assert inside > 4


def test_images_of_one_patient_are_more_alike(root: Path) -> None:
    table = read_table(root)
    images = [
        cv2.imread(str(root / "images_001" / "images" / name), cv2.IMREAD_GRAYSCALE) for name in table["Image Index"]
    ]
    alike = np.corrcoef(np.array(images).reshape(len(images), -1))
    patients = table["Patient ID"].to_numpy()
    same = patients[:, None] == patients[None, :]
    np.fill_diagonal(alike, np.nan)
    assert np.nanmean(alike[same]) > np.nanmean(alike[~same]) + 0.03


def test_findings_persist_and_keep_their_side() -> None:
    patients = [sample_patient(SEED, number) for number in range(1, 200)]
    shown = missing = 0
    for patient in patients:
        seen = {lesion.label: lesion.side for visit in patient.visits for lesion in visit.lesions}
        for visit in patient.visits:
            now = {lesion.label: lesion.side for lesion in visit.lesions}
            assert now.items() <= seen.items()
            shown, missing = shown + len(now), missing + len(seen) - len(now)
    assert shown > 3 * missing > 0


def test_some_labels_are_wrong() -> None:
    visits = [visit for number in range(1, 400) for visit in sample_patient(SEED, number).visits]
    visible = [{lesion.label for lesion in visit.lesions} for visit in visits]
    missed = sum(len(labels - set(visit.labels)) for labels, visit in zip(visible, visits, strict=True))
    invented = sum(len(set(visit.labels) - labels) for labels, visit in zip(visible, visits, strict=True))
    n_visible = sum(map(len, visible))
    assert 0.01 < missed / n_visible < 0.10
    assert 0.005 < invented / n_visible < 0.10


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="exists"):
        write_synthetic(tmp_path, n_patients=2, seed=0, image_px=32)
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_nothing_is_left_of_a_drawing_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_patients=1"):
        write_synthetic(tmp_path / "drawn", n_patients=1, seed=0, image_px=32)
    with pytest.raises(ValueError, match="non-negative"):
        write_synthetic(tmp_path / "drawn", n_patients=2, seed=-1, image_px=32)
    assert list(tmp_path.iterdir()) == []
