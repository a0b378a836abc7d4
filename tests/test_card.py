"""The owner's card: what the owner of the project asked for, tried as a user would, on a few synthetic patients.

The tests type the commands and read the files that these leave; they depend on little of what is inside the package.
"""

import ast
import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchvision.models import densenet121

from cxrlit.data.datamodule import CXRDataModule
from cxrlit.model.module import CXRModule

REPO = Path(__file__).resolve().parents[1]
LABELS = ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"]
PACKAGES = ["torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "albumentations", "pandas"]
MODULES = {"pytorch-lightning": "pytorch_lightning", "hydra-core": "hydra"}
"""The module of a package, where it has another name."""


def run(*command: str) -> None:
    """Run a command from the repository root."""
    done = subprocess.run(
        [sys.executable, *command], cwd=REPO, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr


def find_phases(home: Path, name: str) -> set[Path]:
    """The folders of all finished phases of that name."""
    records = home.glob(f"runs/*/{name}-*/phase.json")
    return {path.parent for path in records if json.loads(path.read_text())["status"] == "done"}


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a highres phase."""
    return yaml.safe_load((folder / "config.yaml").read_text())["phases"]["highres"]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, named as torchvision's DenseNet121 names them."""
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {re.sub(r"^head\.", "classifier.", name.removeprefix("network.")): state[name] for name in state}


def list_changes(before: Path, after: Path) -> set[str]:
    """Names of the weights and statistics of which any bit differs between two checkpoints."""
    one, two = read_weights(before), read_weights(after)
    assert one.keys() == two.keys()
    return {name for name in one if one[name].numpy().tobytes() != two[name].numpy().tobytes()}


def list_trained(n_unfreeze: int) -> set[str]:
    """Names of what trains: the head, and the convolutions of the last layers (at most 114) as Keras counts them."""
    parts = ("norm1", "relu1", "conv1", "norm2", "relu2", "conv2", "concat")
    block = [f"denseblock4.denselayer{number}.{part}" for number in range(1, 17) for part in parts]
    last = [*block, "norm5", "relu5"][-n_unfreeze:]
    return {"classifier.weight", "classifier.bias"} | {f"features.{name}.weight" for name in last if "conv" in name}


def recount_confusion(folder: Path) -> None:
    """The confusion table follows from the predictions of the test part by either threshold, and by the decisions."""
    predictions = pd.read_csv(folder / "predictions_test.csv")
    point = json.loads((folder / "thresholds.json").read_text())
    for row in pd.read_csv(folder / "confusion_template.csv").to_dict("records"):
        label = row["label"]
        preds, target = predictions[f"pred_{label}"], predictions[f"target_{label}"]
        if np.isnan(row["threshold"]):
            assert np.isnan(row["threshold_prob"])
            assert preds.isna().all()
            continue
        assert row["threshold"] == point["thresholds"][label]
        assert row["threshold_prob"] == point["threshold_prob"][label]
        ways = {
            "calibrated": predictions[f"calibrated_{label}"] >= row["threshold"],
            "raw": predictions[f"prob_{label}"] >= row["threshold_prob"],
            "decided": preds == 1,
        }
        for way, present in ways.items():
            counted = [(present & (target == 1)).sum(), (present & (target == 0)).sum()]
            counted += [(~present & (target == 0)).sum(), (~present & (target == 1)).sum()]
            assert counted == [row[name] for name in ("TP", "FP", "TN", "FN")], f"{label}, {way}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the runs and the cache of all commands, so that the phases before highres are trained once."""
    return tmp_path_factory.mktemp("card")


@pytest.fixture(scope="module")
def small(home: Path) -> list[str]:
    """Small sizes and 24 patients, chosen so that each label has positive and negative training images."""
    folders = [f"runs_dir={home / 'runs'}", f"cache_dir={home / 'cache'}"]
    return ["experiment=smoke", "data.n_patients=24", "data.seed=7", *folders]


@pytest.fixture(scope="module")
def highres(home: Path, small: list[str]) -> Path:
    """The highres phase, trained at 320 px after the phases before it."""
    run("train.py", "phase=highres", "img_size=320", *small)
    (folder,) = find_phases(home, "highres")
    return folder


@pytest.fixture(scope="module")
def split(highres: Path) -> pd.DataFrame:
    """The split of the trained phase, a row an image."""
    return pd.read_csv(highres / "split.csv", index_col="image")


@pytest.fixture(scope="module")
def table(home: Path, highres: Path) -> pd.DataFrame:
    """The label table of the synthetic set, a row an image."""
    (path,) = home.glob("cache/synthetic-*/Data_Entry_2017_v2020.csv")
    return pd.read_csv(path, index_col="Image Index")


def test_highres_trains_at_320_px(highres: Path) -> None:
    assert read_settings(highres)["img_size"] == 320


def test_sweep_trains_each_setting_and_shares_the_phases_before(home: Path, small: list[str], highres: Path) -> None:
    before = [folder for name in ("scratch", "frozen", "finetune") for folder in find_phases(home, name)]
    times = [(folder / "best.ckpt").stat().st_mtime_ns for folder in before]
    run("train.py", "-m", "phase=highres", "n_unfreeze=25,50", "lr=1e-5,5e-6", *small)
    swept = find_phases(home, "highres") - {highres}
    assert len(swept) == 4
    settings = {(read_settings(folder)["n_unfreeze"], read_settings(folder)["lr"]): folder for folder in swept}
    assert sorted(settings) == [(25, 5e-6), (25, 1e-5), (50, 5e-6), (50, 1e-5)]
    assert [len(find_phases(home, name)) for name in ("scratch", "frozen", "finetune")] == [1, 1, 1]
    assert [(folder / "best.ckpt").stat().st_mtime_ns for folder in before] == times
    for (n_unfreeze, _), folder in settings.items():
        assert list_changes(before[-1] / "best.ckpt", folder / "last.ckpt") == list_trained(n_unfreeze)


def test_evaluation_writes_auroc_thresholds_f1_and_confusion_of_eight_labels(home: Path, highres: Path) -> None:
    quick = ("n_replicates=100", "localise=none", "report=false")
    run("evaluate.py", f"ckpt={highres}", f"cache_dir={home / 'cache'}", *quick)
    folder = highres / "eval"
    predictions = pd.read_csv(folder / "predictions_test.csv")
    scores = pd.read_csv(folder / "eval_per_label_auroc.csv").query("split == 'test'").set_index("label")
    counts = pd.read_csv(folder / "confusion_template.csv").set_index("label")
    thresholds = json.loads((folder / "thresholds.json").read_text())["thresholds"]
    assert scores.index.tolist() == counts.index.tolist() == list(thresholds) == LABELS
    for label in LABELS:
        target, prob = predictions[f"target_{label}"], predictions[f"prob_{label}"]
        expected = roc_auc_score(target, prob) if target.nunique() == 2 else np.nan
        assert scores["auroc"][label] == pytest.approx(expected, nan_ok=True)
    decided = counts[counts["threshold"].notna()]
    assert decided["threshold"].to_dict() == {name: value for name, value in thresholds.items() if value is not None}
    assert (decided[["TP", "FP", "TN", "FN"]].sum(axis=1) == len(predictions)).all()
    recount_confusion(folder)
    f1 = 2 * decided["TP"] / (2 * decided["TP"] + decided["FP"] + decided["FN"])
    f1 = f1.where(decided["TP"] + decided["FN"] > 0)  # without a positive it is undefined
    assert f1.notna().any()
    np.testing.assert_allclose(decided["F1"], f1)
    np.testing.assert_allclose(scores["f1"][f1.index], f1)


def test_data_module_is_lightnings() -> None:
    assert issubclass(CXRDataModule, LightningDataModule)


def test_no_patient_is_in_two_splits(split: pd.DataFrame, table: pd.DataFrame) -> None:
    patients = table["Patient ID"]
    assert patients.duplicated().any()
    assert sorted(split.index) == sorted(patients.index)
    parts = {part: set(patients[rows.index]) for part, rows in split.groupby("split")}
    assert parts.keys() == {"train", "val", "test"}
    for one, two in itertools.combinations(parts, 2):
        assert parts[one].isdisjoint(parts[two]), f"{one} and {two} share patients"


def test_module_is_lightnings_around_torchvisions_densenet121(highres: Path) -> None:
    assert issubclass(CXRModule, LightningModule)
    densenet121(num_classes=len(LABELS)).load_state_dict(read_weights(highres / "best.ckpt"), strict=True)


def test_positives_are_weighted_by_the_training_split_alone(
    highres: Path, split: pd.DataFrame, table: pd.DataFrame
) -> None:
    present = table["Finding Labels"].str.get_dummies("|").reindex(columns=LABELS, fill_value=0)

    def weigh(*parts: str) -> pd.Series:
        counted = present.loc[split.index[split["split"].isin(parts)]]
        return ((1 - counted).sum() / counted.sum()).clip(upper=10)

    used = pd.read_csv(highres / "pos_weight.csv", index_col="label")["weight"]
    assert used.index.tolist() == LABELS
    np.testing.assert_allclose(used, weigh("train"), rtol=1e-6)
    for more in ("val", "test"):
        assert not np.allclose(used, weigh("train", more), rtol=1e-3), f"{more} images would make no difference"


@pytest.mark.parametrize(
    ("key", "name"), [("phased_unfreezing", "PhasedUnfreezing"), ("freeze_batch_norm", "FreezeBatchNorm")]
)
def test_freezing_is_a_lightning_callback_composed_from_the_config(key: str, name: str) -> None:
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        target = compose("train").callbacks[key]["_target_"]
    assert target.rpartition(".")[2] == name
    assert issubclass(get_class(target), Callback)


def test_highres_trains_the_last_50_layers_and_keeps_every_batch_norm(home: Path, highres: Path) -> None:
    (finetune,) = find_phases(home, "finetune")
    assert list_changes(finetune / "best.ckpt", highres / "last.ckpt") == list_trained(n_unfreeze=50)
    assert list_changes(finetune / "best.ckpt", highres / "best.ckpt") <= list_trained(n_unfreeze=50)


@pytest.mark.parametrize("package", PACKAGES)
def test_named_package_is_required_and_imported(package: str) -> None:
    required = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    assert package in {re.split(r"[^\w.-]", requirement)[0] for requirement in required}
    imported = set()
    for path in [REPO / "train.py", REPO / "evaluate.py", *(REPO / "cxrlit").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.partition(".")[0] for name in names}
    assert MODULES.get(package, package) in imported
