"""The model card: its words and figures are those of the bundle, and no name in it is markup."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from bundles import make_config, write_int8_bundle

from cxrlit.handoff.bundle import CONFIG, TABLES
from cxrlit.handoff.bundle_config import parse_config
from cxrlit.handoff.model_card import LIMITS, MACROS, MISUSES, write_card
from cxrlit.metrics.read_operating_point import parse_operating_point

NAME = "<b>|`x`"
SUMMARY = dict.fromkeys(MACROS.values(), "0.81234") | {"split": "test", "n_images": "1200", "n_patients": "600"}
SUMMARY |= {f"{key}_low": "0.7" for key in MACROS.values()} | {f"{key}_high": "0.9" for key in MACROS.values()}
SUMMARY |= {"n_labels": "2", "f1_micro": "", "brier_macro_low": ""}


def make_tables(labels: list[str]) -> dict[str, bytes]:
    """As an evaluation writes them; of the first label nothing is known."""
    rates = {"threshold": "0.4", "precision": "0.51", "recall": "0.52", "specificity": "0.53", "F1": "0.54"}
    counts = {"TP": "3", "FP": "4", "TN": "5", "FN": "6"}
    area = {"auroc": "0.75", "auroc_low": "0.7", "auroc_high": "0.8", "average_precision": "0.25", "images": "1200"}
    per_label = [{"split": "test", "label": label, "positives": "9", **area} for label in labels]
    per_label[0] |= dict.fromkeys(("auroc", "auroc_low", "auroc_high", "average_precision"), "")
    per_label.append(per_label[1 % len(labels)] | {"split": "val", "images": "77"})
    confusion = [{"label": label, **rates, **counts} for label in labels]
    elsewhere = SUMMARY | {"split": "val", "auroc_macro": "0.1"}
    frames = map(pd.DataFrame, ([elsewhere, SUMMARY], per_label, confusion))
    return {name: frame.to_csv(index=False).encode() for name, frame in zip(TABLES, frames, strict=True)}


def write(labels: Sequence[str] = ("Effusion", "Mass", "Nodule"), **changes: object) -> str:
    config = parse_config(json.dumps(make_config(tuple(labels)) | changes).encode(), Path("config.json"))
    point = parse_operating_point(config.operating_point, Path("config.json")).only(config.labels)
    return write_card(config, point, {**make_tables(config.labels), "model.onnx": b"\x88"}, ["bf16"])


def test_the_card_has_the_figures_of_the_tables() -> None:
    card = write()
    for row in (
        "| frozen-1a2b3c4d | 32 | 4 | 0.001 | 0 | frozen | 1 |",
        "| train | 40 | 20 |",
        "| AUROC, macro | 0.812 | 0.700 to 0.900 |",
        "| F1, micro |  | 0.700 to 0.900 |",
        "| Brier score, macro | 0.812 |  |",
        "| Effusion |  |  |  | 9 | 1200 |",
        "| Mass | 0.750 | 0.700 to 0.800 | 0.250 | 9 | 1200 |",
        "| Effusion | none | 0.400 | 0.400 | 3 | 4 | 5 | 6 | 0.510 | 0.520 | 0.530 | 0.540 |",
        "| Mass | 0.800, -0.300 | 0.400 | 0.467 | 3 | 4 | 5 | 6 | 0.510 | 0.520 | 0.530 | 0.540 |",
    ):
        assert card.count(f"\n{row}\n") == 1, row
    words = " ".join(card.split())
    for text in (
        "each of 3 findings: Effusion, Mass, Nodule. It sees the image at 32 x 32 pixels.",
        "at most 0.5 % of 40 validation images",
        "Of the last phase, epoch 1: validation macro AUROC 0.700. Trained in bf16, evaluated in fp32.",
        "Probabilities are calibrated (platt), then held against the threshold; both were fitted on the validation "
        "part (rule: `f1_quantiles`). At or above it",
        "1,200 images of 600 patients; the macro AUROC is over 2 labels.",
        *MISUSES,
        *LIMITS,
    ):
        assert text.lower() in words.lower(), text
    assert "77" not in card  # validation
    assert card.endswith("- cxrlit 0.1.0\n")
    assert "\n\n\n" not in card


def test_what_a_bundle_need_not_have() -> None:
    point = make_config(("Mass",))["operating_point"] | {"calibration": None, "rule": "sensitivity", "wanted": 0.9}
    card = write(("Mass",), operating_point=point, epoch=0, precision="bf16")
    assert "| Mass | none |" in card
    assert "was fixed on the validation part (rule: `sensitivity` 0.9)." in card
    assert "the weights that it started from: validation macro AUROC 0.700." in card
    assert "Trained in bf16.\n" in card


def test_figures_of_int8_stand_in_it(tmp_path: Path) -> None:
    record = json.loads((write_int8_bundle(tmp_path / "bundle", is_forced=True) / CONFIG).read_text())["int8"]
    card = write(int8=record)
    assert "quantised by onnxruntime 1.32.0 on 256 training images" in card
    assert "the largest loss of AUROC is 0.0010 over 8 labels (limit 0.002); 99.50% of the decisions agree" in card
    assert "\n| Mass | 60 | 0.8000 | 0.7990 | 0.0010 | 0.0010 | 99.5% |  |\n" in card
    assert "its exporter forced it" in card
    assert "## In int8" not in write()


def test_names_are_no_markup() -> None:
    data = make_config()["data"] | {"name": NAME, "split_name": NAME}
    card = write(name=NAME, data=data)
    front, body = card.split("---\n")[1], card.split("---\n", 2)[2]
    [index] = yaml.safe_load(front)["model-index"]
    assert (index["name"], index["results"][0]["dataset"]["name"]) == (NAME, NAME)
    assert body.count("&lt;b&gt;&#124;&#96;x&#96;") == 5
    assert "<b>" not in body


def read_front(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_front_matter_is_what_the_hub_reads() -> None:
    start = {"weights": "imagenet, xrv:nih, mine.pth", "saw": None, "caveats": []}
    front = read_front(write(start=start))
    assert front["license"] == "unknown"
    assert front["datasets"] == [make_config()["data"]["name"]]
    assert front["base_model"] == ["timm/densenet121.tv_in1k", "torchxrayvision/densenet121-res224-nih"]
    assert front["metrics"] == ["roc_auc", "f1"]
    [result] = front["model-index"][0]["results"]
    assert [metric["type"] for metric in result["metrics"]] == front["metrics"]
    data = make_config()["data"] | {"name": NAME}
    assert (
        read_front(write(data=data, start=start | {"weights": "random weights"}))
        .keys()
        .isdisjoint({"datasets", "base_model"})
    )
