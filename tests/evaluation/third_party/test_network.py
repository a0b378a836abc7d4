"""Networks of other projects as they stand: their own logits come out of the whole command."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchxrayvision as xrv
from lab import QUICK, evaluate
from PIL import Image
from scipy.special import logit
from tiny import Outcome, run_command
from torch import Tensor, nn
from torchvision.models import densenet121
from trees import write_nih_tree

from cxrlit.core.labels import LABELS
from cxrlit.evaluation.compare.inputs import find_concerns, pair_rows, read_model_predictions
from cxrlit.evaluation.predictions import list_labels, read_predictions
from cxrlit.evaluation.third_party.network import name_outputs
from cxrlit.model.weights.sources import NIH_LABELS, NORMALIZE

SIZE = 48
EVA_X = "densenet121_medical_mae_pt_cxr14_ft.pth"
XRV_LABELS = [name or f"untrained{place}" for place, name in enumerate(xrv.datasets.default_pathologies)]


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Official lists, and the findings that are not among the eight."""
    root = write_nih_tree(tmp_path_factory.mktemp("other") / "nih", n_patients=40)
    table = root / "Data_Entry_2017_v2020.csv"
    lines = table.read_text().splitlines()
    for row in range(1, len(lines), 3):
        cells = lines[row].split(",")
        cells[1] = "|".join([*(name for name in cells[1].split("|") if name in LABELS), "Hernia", "Edema"])
        lines[row] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n")
    return root


def run(weights: Path | str, nih: Path, cache: Path, out: Path, *arguments: str) -> Outcome:
    data = ("data=nih", f"data.root={nih}", f"cache_dir={cache}", f"out={out}", f"img_size={SIZE}")
    return run_command("evaluate.py", f"weights={weights}", *data, *QUICK, *arguments)


def run_well(*arguments: Any) -> Outcome:
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return outcome


def settle(network: nn.Module) -> nn.Module:
    """Statistics unlike those of new layers."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def read_images(nih: Path, names: pd.Series) -> Tensor:
    """(N, 1, S, S) gray values of 0 to 255, as another program reads them."""
    files = {path.name: path for path in nih.glob("images_*/images/*.png")}
    return torch.stack([torch.from_numpy(np.array(Image.open(files[name]))) for name in names])[:, None].float()


def assert_same_logits(out: Path, nih: Path, forward: Any, outputs: dict[str, int]) -> None:
    """The predictions of both parts are the logits that the original gives."""
    for part in ("val", "test"):
        table = read_predictions(out / f"predictions_{part}.csv")
        assert list_labels(table) == list(outputs)
        with torch.no_grad():
            expected = forward(read_images(nih, table["image"]))[:, list(outputs.values())].double().numpy()
        made = logit(table[[f"prob_{label}" for label in outputs]].to_numpy(np.float64))
        assert expected.std() > 1e-2  # they tell images and labels apart
        assert np.abs(made - expected).max() < 1e-5


def by_moments(mean: Any, std: Any) -> Any:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return lambda images: (images.expand(-1, 3, -1, -1) / 255 - mean) / std


def test_a_published_file_is_evaluated_by_its_name_alone(nih: Path, cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = settle(densenet121(weights=None, num_classes=len(NIH_LABELS)))
    torch.save({"model": network.state_dict()}, tmp_path / EVA_X)
    outcome = run_well(tmp_path / EVA_X, nih, cache, tmp_path / "out")
    own = {label: NIH_LABELS.index(label) for label in [*LABELS, *NIH_LABELS[8:]]}
    normalized = by_moments(*NORMALIZE["medical_mae"])
    assert_same_logits(tmp_path / "out", nih, lambda images: network(normalized(images)), own)
    assert "EVA-X, fine-tuned: trained on NIH, official training part" in outcome.out
    summary = pd.read_csv(tmp_path / "out" / "eval_summary.csv").set_index("split")
    caveat = f"calibration and thresholds are fitted on images that the weights ({EVA_X}) were trained on"
    assert set(summary["caveat"]) == {caveat}
    assert set(summary["split_name"]) == {"official"}
    assert set(summary["checkpoint"]) == {EVA_X}
    assert summary.loc["test", "n_labels"] == 10  # the eight, Hernia and Edema; the others are in no image


@pytest.mark.slow
def test_a_module_of_torchxrayvision_and_a_comparison_with_ours(
    nih: Path, cache: Path, tmp_path: Path, weights: Path
) -> None:
    torch.manual_seed(1)
    network = settle(xrv.models.DenseNet())
    network.features.norm0.running_var.fill_(1024.0**2)  # type: ignore[union-attr,operator]
    path = tmp_path / "chex-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    torch.save(network, path)
    labels = f"weights_labels=[{','.join(XRV_LABELS)}]"
    ours = {label: XRV_LABELS.index(label) for label in LABELS}
    only = f"labels=[{','.join(LABELS)}]"
    outcome = run_well(path, nih, cache, tmp_path / "out", labels, only, "report=true", "localise=gradcam")

    def forward(images: Tensor) -> Tensor:
        made: Tensor = network(torch.from_numpy(xrv.utils.normalize(images.numpy(), 255)).float())
        return made

    assert_same_logits(tmp_path / "out", nih, forward, ours)
    assert "caveat" not in pd.read_csv(tmp_path / "out" / "eval_summary.csv")
    assert "not evaluated, without targets in nih or not asked for: Consolidation" in outcome.out
    assert "xrv:chex: trained on CheXpert" in (tmp_path / "out" / "report.html").read_text()

    settings = ["data=nih", f"data.root={nih}", f"cache_dir={cache}", f"runs_dir={tmp_path / 'runs'}", "logger=none"]
    start = (f"model.weights={weights}", "model.weights_saw=[]", "phase=frozen", "trainer.precision=fp32")
    phase = ("phases.frozen.img_size=32", "phases.frozen.batch_size=8", "phases.frozen.max_epochs=1")
    trained = run_command("train.py", *settings, *start, *phase, "trainer.num_workers=0")
    assert trained.code == 0, trained.err
    [folder] = (tmp_path / "runs").glob("*/frozen-*/")
    evaluate(folder, folder / "eval")
    sides = [read_model_predictions(side, "test") for side in (folder, tmp_path / "out")]
    assert find_concerns(sides[0], sides[1], "test") == []
    pair_rows(sides[0].predictions, sides[1].predictions, ("ours", "theirs"))
    run_well(path, nih, cache, tmp_path / "out", labels, only, f"baseline={folder}")
    assert (tmp_path / "out" / "eval_comparison.csv").is_file()


@pytest.mark.slow
def test_what_is_not_known_is_said_by_keys(nih: Path, cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = settle(nn.Sequential(densenet121(weights=None, num_classes=3), nn.Sigmoid()))
    torch.save(network[0].state_dict(), tmp_path / "mine.pth")
    keys = ["weights_labels=[Pleural Effusion,Something,mass]", "mean=[0.4,0.5,0.6]", "std=[0.25]", "weights_saw=[nih]"]
    faults = {
        "the labels of its 3 outputs are not known: name them in their order: weights_labels=[...]": keys[3:],
        "how its images were normalized is not known: say normalize=imagenet": [keys[0], keys[3]],
        "trained on images of nih, those of this test part too": keys,
        "weights_labels has 2 labels; the head of weights=": ["weights_labels=[Mass,Nodule]", *keys[1:]],
        "none of the labels of its head has a target in nih: it has A, B, C": ["weights_labels=[A,B,C]", *keys[1:3]],
        "labels: Nodule is none of the labels of weights=": [*keys, "labels=[Nodule]"],
        "weights_saw: hospital is no data set that is known here": [*keys[:3], "weights_saw=[hospital]"],
        "mean and std go together": keys[:2],
        "std=[0.0]: it must be above 0": [*keys[:2], "std=[0]"],
        "normalize=half and mean both say": [*keys, "normalize=half"],
    }
    for message, arguments in faults.items():
        outcome = run(tmp_path / "mine.pth", nih, cache, tmp_path / "out", *arguments)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), message
        assert message in outcome.err
    sized = run(tmp_path / "mine.pth", nih, cache, tmp_path / "out", *keys, "img_size=null")
    assert "the size of its images is not known: say img_size=224" in sized.err
    assert not (tmp_path / "out").exists()
    outcome = run_well(tmp_path / "mine.pth", nih, cache, tmp_path / "out", *keys, "allow_seen=true", "tta=flip")
    pixels = by_moments([0.4, 0.5, 0.6], [0.25])

    def mean_of_views(images: Tensor) -> Tensor:
        return torch.logit((network(pixels(images)) + network(pixels(images.flip(-1)))).double() / 2)

    assert_same_logits(tmp_path / "out", nih, mean_of_views, {"Effusion": 0, "Mass": 2})
    assert "evaluated: Effusion (its Pleural Effusion), Mass (its mass)" in outcome.out
    assert "not in its head: Atelectasis, Cardiomegaly, Infiltration, Nodule" in outcome.out
    caveat = "the weights (mine.pth) were trained on images of nih, test images too: these numbers flatter the model"
    assert set(pd.read_csv(tmp_path / "out" / "eval_summary.csv")["caveat"]) == {caveat}
    assert f"warning: {caveat}" in outcome.out


def test_weights_of_which_nobody_says_what_they_saw(nih: Path, cache: Path, tmp_path: Path) -> None:
    """The results are beside the file, and no other file's: ``mine.v2.pth`` has a folder of its own."""
    torch.save(densenet121(weights=None, num_classes=1).state_dict(), tmp_path / "mine.v1.pth")
    keys = (f"weights={tmp_path / 'mine.v1.pth'}", "weights_labels=[Mass]", "normalize=imagenet", f"img_size={SIZE}")
    outcome = run_command("evaluate.py", "data=nih", f"data.root={nih}", f"cache_dir={cache}", *QUICK, *keys)
    assert outcome.code == 0, outcome.err
    said = pd.read_csv(tmp_path / "mine.v1.pth-on-nih" / "eval_summary.csv")["caveat"].iloc[0]
    assert said == "it is not known what the weights (mine.v1.pth) were trained on: they may have seen these images"


def test_a_network_that_computes_no_numbers_is_one_line(nih: Path, cache: Path, tmp_path: Path) -> None:
    """Its weights are finite, and what they compute is not: NaN would be ranked like a number."""
    state = densenet121(weights=None, num_classes=1).state_dict()
    torch.save({**state, "features.conv0.weight": torch.full((64, 3, 7, 7), 3e38)}, tmp_path / "large.pth")
    keys = ("weights_labels=[Mass]", "normalize=imagenet", "weights_saw=[]")
    outcome = run(tmp_path / "large.pth", nih, cache, tmp_path / "out", *keys)
    assert outcome.err == "error: the network computes NaN for images of val: its weights are damaged, or too large\n"
    assert not (tmp_path / "out").exists()


class Wrapped(nn.Module):
    """Pickled, it can only be read by a program that has this class."""

    def __init__(self) -> None:
        super().__init__()
        self.densenet = densenet121(weights=None)


def test_what_is_no_such_network_is_one_line(nih: Path, cache: Path, tmp_path: Path, frozen: Path) -> None:
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "linear.pth")
    torch.save({"model": Wrapped()}, tmp_path / "module.pth")
    torch.save(densenet121(weights=None).features.state_dict(), tmp_path / "features.pth")
    faults = {
        "linear.pth": "not the weights of DenseNet121: found 2 tensors",
        "features.pth": "it has no head linear on the mean of each feature map",
        "module.pth": r"\S+Wrapped, which would have to be imported",
        "nothing.pth": "there is no such file",
        frozen / "best.ckpt": "a checkpoint of cxrlit: say ckpt=",
        "none": "it has no head for findings",
    }
    for name, message in faults.items():
        weights = tmp_path / name if str(name).endswith(".pth") else name
        outcome = run(weights, nih, cache, tmp_path / "out")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert re.match(rf"error: weights={re.escape(str(weights))}: .*{message}", outcome.err), outcome.err
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    assert "refused: it is no file of weights" in run(tmp_path / "evil.pth", nih, cache, tmp_path / "out").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ckpt=a"], "ckpt and weights contradict: say what to evaluate"),
        (["predictions=a"], "weights and predictions contradict: say what to evaluate"),
        (["scores=logits"], "scores goes with predictions=FILE; the data of weights are data=..."),
        (["part=test"], "part goes with other data for a checkpoint"),
        (["recalibrate=true"], "recalibrate goes with a checkpoint"),
        (["data=internal"], "weights=FILE needs data to evaluate on: add data=nih"),
    ],
)
def test_contradictions(arguments: list[str], message: str) -> None:
    outcome = run_command("evaluate.py", "weights=w.pth", "data=nih", "data.root=x", *arguments)
    if arguments == ["data=internal"]:
        outcome = run_command("evaluate.py", "weights=w.pth")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err


def test_keys_of_weights_go_with_weights() -> None:
    for key in ("normalize=half", "labels=[Mass]", "allow_seen=true"):
        outcome = run_command("evaluate.py", "ckpt=a", key)
        assert outcome.err.startswith(f"error: {key.partition('=')[0]} goes with weights=FILE")


def test_each_output_counts_once() -> None:
    assert name_outputs(["Effusion", "Pleural Effusion", "mass"], None, "w") == {"Effusion": 0, "Mass": 2}
    assert name_outputs(["Effusion", "mass"], ["MASS"], "w") == {"MASS": 1}
