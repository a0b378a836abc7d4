"""Weights of others in a training: what they saw is refused or stands beside every number, and heads are taken over."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchxrayvision as xrv
from lab import Lab, evaluate
from torchvision.models import densenet121

from cxrlit.commands.cli import main
from cxrlit.core.errors import CheckpointError
from cxrlit.evaluation.compare.inputs import find_concerns, read_model_predictions
from cxrlit.handoff.bundle import read_bundle
from cxrlit.model.checkpoint import read_checkpoint
from cxrlit.model.start import start_network
from cxrlit.model.weights.head import load_head
from cxrlit.model.weights.open_weights import open_weights
from cxrlit.model.weights.sources import NIH_LABELS

NIH_FILE = "nih-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
CAVEAT = (
    f"the starting weights ({NIH_FILE}) were trained on images of nih, test images too: these numbers flatter the model"
)


@pytest.fixture(scope="module")
def xrv_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of torchxrayvision under the name of the one that was trained on NIH."""
    path = tmp_path_factory.mktemp("xrv") / NIH_FILE
    torch.manual_seed(0)
    network = xrv.models.DenseNet()
    network.features.norm0.running_var.fill_(1024.0**2)
    torch.save(network, path)
    return path


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path, xrv_file: Path) -> Path:
    """A frozen phase from weights that saw its test images, as the user says to know, not to be changed."""
    lab = Lab(tmp_path_factory.mktemp("seen"), cache, tree, weights)
    return lab.train_well(f"model.weights={xrv_file}", "model.allow_seen=true")


def test_a_leak_by_starting_weights_is_refused_before_any_work(lab: Lab, xrv_file: Path) -> None:
    outcome = lab.train(f"model.weights={xrv_file}")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert re.match(r"error: model\.weights=\S+: trained on images of nih, those of this test part too: ", outcome.err)
    assert "model.allow_seen=true" in outcome.err
    assert lab.list_phases() == []


@pytest.mark.slow
def test_what_weights_saw_stands_beside_every_number(seen: Path, frozen: Path, cache: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(seen)
    assert (checkpoint.config.model.normalize, checkpoint.config.model.weights_saw) == ("half", ["nih"])
    screen = evaluate(seen, seen / "eval", "report=true").out
    assert f"warning: {CAVEAT}" in screen
    assert set(pd.read_csv(seen / "eval" / "eval_summary.csv")["caveat"]) == {CAVEAT}
    assert CAVEAT[1:] in (seen / "eval" / "report.html").read_text()
    sides = [read_model_predictions(folder, "test") for folder in (frozen, seen)]
    assert f"of the candidate, {CAVEAT}" in find_concerns(sides[0], sides[1], "test")
    assert not [concern for concern in find_concerns(sides[0], sides[0], "test") if "starting weights" in concern]
    main(["export", str(seen), "--out", str(tmp_path / "bundle"), f"cache_dir={cache}"])
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.config.preprocessing.normalize == "half"
    assert bundle.config.start is not None
    assert bundle.config.start.model_dump() == {"weights": NIH_FILE, "saw": ["nih"], "caveats": [CAVEAT]}
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert f"\n**Beside every number of this card: {CAVEAT}.**\n" in card
    assert f"\nIt started from {NIH_FILE} (trained on nih).\n" in card


@pytest.mark.slow
def test_what_weights_saw_goes_with_init_from(lab: Lab, seen: Path) -> None:
    outcome = lab.train("phase=finetune", f"init_from={seen}")
    assert outcome.err.startswith("error: ")
    assert "trained on images of nih" in outcome.err
    child = lab.train_well("phase=finetune", f"init_from={seen}", "model.allow_seen=true", "n_unfreeze=0")
    assert read_checkpoint(child).config.model.weights_saw == ["nih"]


def test_weights_of_which_nothing_is_known(lab: Lab, weights: Path) -> None:
    outcome = lab.train(f"model.weights={weights}")
    assert outcome.code == 0
    assert "warning: it is not known what the starting weights were trained on" in outcome.out
    assert lab.train(f"model.weights={weights}", "model.weights_saw=[nih]").err.startswith("error: model.weights=")


@pytest.mark.slow
def test_the_patients_of_a_checkpoint_as_weights_count(lab: Lab, frozen: Path) -> None:
    start = open_weights(str(frozen / "best.ckpt"))
    checkpoint = read_checkpoint(frozen)
    assert start.features is not None
    assert start.trained_patients == set(checkpoint.metadata.trained_patients)
    assert torch.equal(start.features["conv0.weight"], checkpoint.weights["features.conv0.weight"])
    outcome = lab.train(f"model.weights={frozen / 'best.ckpt'}", "data.split=grouped", "data.split_seed=7")
    assert re.search(r"error: \d+ patients that the checkpoint was trained on are in the (val|test) part", outcome.err)
    folder = lab.train_well(f"model.weights={frozen / 'best.ckpt'}", "model.take_head=true", "seed=3", "lr=1e-9")
    trained = read_checkpoint(folder).weights
    torch.testing.assert_close(trained["head.weight"], checkpoint.weights["head.weight"], atol=1e-6, rtol=0)
    mine = lab.train(f"model.weights={frozen / 'best.ckpt'}", "model.normalize=half")
    assert mine.err.startswith("error: model.normalize=half: ")


@pytest.mark.slow
def test_what_a_checkpoint_as_weights_was_trained_on_is_said(
    lab: Lab, frozen: Path, cache: Path, tmp_path: Path
) -> None:
    """Also by the phases behind, and of a goal that goes on from it; its own chain is no start."""
    assert read_checkpoint(frozen).metadata.start_sources == []
    start, same = f"model.weights={frozen / 'best.ckpt'}", ("n_unfreeze=0", "lr=1e-9")
    folder = lab.train_well("phase=finetune", start, *same)
    for child in (folder, lab.train_well("phase=finetune", f"init_from={frozen}", "seed=3", *same)):
        metadata = read_checkpoint(child).metadata
        assert metadata.start_sources == ["nih"]
        assert read_checkpoint(child).config.model.weights_saw == []
    outcome = evaluate(folder, folder / "eval", "report=true")
    assert "warning" not in outcome.out
    assert "from best.ckpt (trained on nih)" in (folder / "eval" / "report.html").read_text()
    main(["export", str(folder), "--out", str(tmp_path / "bundle"), f"cache_dir={cache}"])
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.config.start is not None
    assert bundle.config.start.model_dump() == {"weights": "best.ckpt", "saw": ["nih"], "caveats": []}
    assert "\nIt started from best.ckpt (trained on nih).\n" in (tmp_path / "bundle" / "README.md").read_text()


@pytest.mark.slow
def test_outputs_of_equal_labels_are_taken_over(lab: Lab, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = densenet121(weights=None, num_classes=len(NIH_LABELS)).state_dict()
    named = {f"module.densenet121.{name}".replace("classifier.", "classifier.0."): item for name, item in state.items()}
    path = tmp_path / "m-25012018-123527.pth.tar"
    torch.save({"state_dict": named}, path)
    arguments = (f"model.weights={path}", "model.take_head=true", "model.allow_seen=true", "lr=1e-9")
    labels = "labels=[Hernia,'Pleural Thickening',Effusion,Lesion]"
    outcome = lab.train(*arguments, labels)
    assert outcome.code == 0, outcome.err
    assert "Head: outputs taken over: Hernia, Pleural Thickening (its Pleural_Thickening), Effusion; new: Lesion" in (
        outcome.out
    )
    [folder] = lab.runs.glob("*/frozen-*/")
    checkpoint = read_checkpoint(folder)
    rows = [NIH_LABELS.index(name) for name in ("Hernia", "Pleural_Thickening", "Effusion")]
    start = start_network(checkpoint.config, None).network
    assert torch.equal(start.head.weight[:3], state["classifier.weight"][rows])
    torch.testing.assert_close(checkpoint.weights["head.bias"][:3], state["classifier.bias"][rows], atol=1e-6, rtol=0)
    head = open_weights(str(path)).head
    assert head is not None
    with pytest.raises(CheckpointError, match=r"none of its labels is ours; it has Atelectasis"):
        load_head(start.head, ["Lesion", "Tube", "Line", "Clip"], head, "weights")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.weights=imagenet", "model.weights_saw=[nih]"], "model.weights_saw goes with a file of weights"),
        (["model.weights=none", "model.take_head=true"], "model.take_head goes with a file of weights"),
        (["init_from=x", "model.take_head=true"], "model.take_head and model.weights_labels go with model.weights"),
        (["model.weights_labels=[Mass]"], "model.weights_labels goes with model.take_head=true"),
        (["model.weights=xrv:nope"], "model.weights=xrv:nope: neither a file nor a DenseNet121 of torchxrayvision"),
    ],
)
def test_contradictions_are_one_line(lab: Lab, settings: list[str], message: str) -> None:
    start = [f"model.weights={lab.weights}"] if settings[0].startswith("model.weights_labels") else []
    outcome = lab.train(*start, *settings)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
