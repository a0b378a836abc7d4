"""Expert labels of NIH's images: checkpoints and other networks answer them, and no trained patient is among them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lab import QUICK, Lab, evaluate
from tiny import Outcome, run_command
from torchvision.models import densenet121
from trees import write_nih_answers, write_nih_tree

from cxrlit.evaluation.predictions import list_labels, read_predictions
from cxrlit.metrics.read_operating_point import read_operating_point
from cxrlit.model.checkpoint import read_checkpoint

ASKED = ["Pneumothorax", "Nodule/Mass"]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tree of NIH's with official lists, and answers for its images."""
    folder = tmp_path_factory.mktemp("answered")
    tree = write_nih_tree(folder / "nih", n_patients=60)
    write_nih_answers(tree, folder / "answers.csv")
    return tree, folder / "answers.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path, answered: tuple[Path, Path], weights: Path) -> Path:
    """A phase on the official split of that tree, evaluated, not to be changed."""
    folder = Lab(tmp_path_factory.mktemp("runs"), cache, answered[0], weights).train_well()
    evaluate(folder, folder / "eval")
    return folder


def ask(answered: tuple[Path, Path], cache: Path, out: Path, *arguments: str) -> Outcome:
    tree, table = answered
    data = ("data=nih_google", f"data.root={tree}", f"data.table={table}", f"cache_dir={cache}", f"out={out}")
    return run_command("evaluate.py", *data, *QUICK, *arguments)


@pytest.mark.slow
def test_a_checkpoint_answers_with_the_larger_of_two(
    trained: Path, answered: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    outcome = ask(answered, cache, tmp_path / "out", f"ckpt={trained}", "report=true", "localise=gradcam")
    assert (outcome.code, outcome.err) == (0, "")
    made = read_predictions(tmp_path / "out" / "predictions_external.csv").set_index("image")
    home = read_predictions(trained / "eval" / "predictions_test.csv").set_index("image")
    answers = pd.read_csv(answered[1]).set_index("Image Index")
    assert list_labels(made) == ASKED
    assert sorted(made.index) == sorted(home.index)  # the test images, with other labels
    home = home.loc[made.index]
    larger = home[["prob_Nodule", "prob_Mass"]].max(axis=1)
    np.testing.assert_allclose(made["prob_Nodule/Mass"], larger, atol=1e-6)
    np.testing.assert_allclose(made["prob_Pneumothorax"], home["prob_Pneumothorax"], atol=1e-6)
    expert = answers.loc[made.index, "Nodule or mass"] == "YES"
    assert made["target_Nodule/Mass"].tolist() == expert.astype(float).tolist()
    # at home the same question has the mined labels: either finding
    mined = read_predictions(tmp_path / "out" / "predictions_home.csv").set_index("image").loc[made.index]
    either = home[["target_Nodule", "target_Mass"]].max(axis=1)
    assert mined["target_Nodule/Mass"].tolist() == either.tolist()
    changes = pd.read_csv(tmp_path / "out" / "eval_external.csv")
    assert set(changes["label"]) >= set(ASKED)
    # the threshold of what is a label at home is that of home
    point, own = (read_operating_point(folder / "thresholds.json") for folder in (tmp_path / "out", trained / "eval"))
    assert (
        point.only(["Pneumothorax"]).thresholds.values.tolist() == own.only(["Pneumothorax"]).thresholds.values.tolist()
    )
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Nodule/Mass: the larger prob of Nodule and Mass; not asked: Atelectasis" in report
    assert "None: the labels are not those of the network" in report


def test_an_image_that_a_checkpoint_trained_on_is_refused(
    trained: Path, answered: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    assert any(name.startswith("nih/") for name in read_checkpoint(trained).metadata.trained_patients)
    for part in ("all", "val"):
        outcome = ask(answered, cache, tmp_path / "out", f"ckpt={trained}", f"part={part}")
        assert outcome.err.count("\n") == 1
        assert "patients of nih_google trained or tuned the model" in outcome.err
        assert "leave them out of a copy of the table: data.table=FILE" in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_other_networks_answer_with_thresholds_of_val(answered: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.save(densenet121(weights=None, num_classes=4).state_dict(), tmp_path / "mine.pth")
    head = "weights_labels=[Fracture,Mass,'Lung Opacity',Nodule]"
    keys = (f"weights={tmp_path / 'mine.pth'}", head, "img_size=48", "normalize=half")
    seen = ask(answered, cache, tmp_path / "out", *keys, "weights_saw=[nih]")
    assert "trained on images of nih_google, those of this test part too" in seen.err
    outcome = ask(answered, cache, tmp_path / "out", *keys, "weights_saw=[nih_train]")
    assert (outcome.code, outcome.err) == (0, "")
    answers = pd.read_csv(answered[1]).set_index("Image Index")
    for part in ("val", "test"):
        made = read_predictions(tmp_path / "out" / f"predictions_{part}.csv")
        assert list_labels(made) == ["Nodule/Mass", "Lung Opacity", "Fracture"]
        assert set(answers.loc[made["image"], "Set Id"]) == {part}
    point = read_operating_point(tmp_path / "out" / "thresholds.json")
    assert point.origin["tuned_on"] == "val"
    assert np.isfinite(point.thresholds.values).all()
    said = pd.read_csv(tmp_path / "out" / "eval_summary.csv")["caveat"].iloc[0]
    assert said == "calibration and thresholds are fitted on images that the weights (mine.pth) were trained on"
    none = ask(answered, cache, tmp_path / "out", *keys[:1], "weights_labels=[A,B,C,Mass]", *keys[2:], "weights_saw=[]")
    assert "answers none of its questions (Pneumothorax, Nodule/Mass, Lung Opacity, Fracture;" in none.err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train.py", ["data.root=x"], "data=nih_google is for evaluation, its images are those of nih"),
        ("evaluate.py", ["ckpt=a"], "data=nih_google needs data.root=PATH"),
        ("evaluate.py", ["weights=xrv:chex", "data.split=grouped"], "nih_google is divided by its table"),
    ],
)
def test_what_it_is_not_for(command: str, arguments: list[str], message: str, trained: Path) -> None:
    chosen = [f"ckpt={trained}" if text == "ckpt=a" else text for text in arguments]
    outcome = run_command(command, "data=nih_google", *chosen)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
