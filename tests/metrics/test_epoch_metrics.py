"""Metrics of an epoch: what is undefined, what is unknown, what may be named in the config."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import Tensor
from torchmetrics import Metric

from cxrlit.config import Instantiable
from cxrlit.core.errors import ConfigError
from cxrlit.metrics.epoch_metrics import EpochMetrics, build_metrics

LABELS = ["Mass", "Nodule", "Pneumonia"]
AUROC = {"_target_": "cxrlit.metrics.auroc.LabelAUROC"}
CLASSIFICATION = "torchmetrics.classification"


class MeanProb(Metric):
    """A metric of the user's own: one number, and it does not say what is better."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, probs: Tensor, targets: Tensor) -> None:
        self.total = self.total + probs.mean()

    def compute(self) -> Tensor:
        return self.total


class Pairs(MeanProb):
    def compute(self) -> Tensor:
        return torch.zeros(2)


class Broken(MeanProb):
    def update(self, probs: Tensor, targets: Tensor) -> None:
        raise RuntimeError("no\nway")


def build(**specs: Instantiable | None) -> EpochMetrics:
    return EpochMetrics(build_metrics(specs, LABELS), LABELS)


def test_one_label_is_measured_as_each_of_several_is() -> None:
    probs, targets = sample()
    specs = {"auroc": AUROC, "ap": {"_target_": f"{CLASSIFICATION}.MultilabelAveragePrecision"}}
    measured = EpochMetrics(build_metrics(specs, LABELS[:1]), LABELS[:1]).measure(probs[:, :1], targets[:, :1])
    of_all = build(**specs).measure(probs, targets)
    assert measured["ap_macro"] == measured["ap_Mass"]
    assert {name: measured[name] for name in ("auroc_Mass", "ap_Mass")} == {
        name: pytest.approx(of_all[name]) for name in ("auroc_Mass", "ap_Mass")
    }


def test_two_results_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two results are logged as auroc_macro"):
        build(auroc=AUROC, auroc_macro={"_target_": "test_epoch_metrics.MeanProb"})


def sample() -> tuple[Tensor, Tensor]:
    """(200, 3); some targets are unknown, and the last label has no positive."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(200, 3, generator=generator)
    targets = (torch.rand(200, 3, generator=generator) < 0.3).float()
    targets[torch.rand(200, 3, generator=generator) < 0.2] = torch.nan
    targets[:, 2] = torch.where(targets[:, 2] == 1, 0.0, targets[:, 2])
    return probs, targets


def test_each_metric_sees_the_known_targets_alone_and_a_label_without_positives_is_undefined() -> None:
    probs, targets = sample()
    metrics = build(
        auroc=AUROC,
        ap={"_target_": f"{CLASSIFICATION}.MultilabelAveragePrecision"},
        f1={"_target_": f"{CLASSIFICATION}.MultilabelF1Score", "threshold": 0.4},
    )
    values = metrics.measure(probs, targets)
    for column, label in enumerate(LABELS[:2]):
        known = ~targets[:, column].isnan()
        target, prob = targets[known, column].numpy(), probs[known, column].numpy()
        assert values[f"auroc_{label}"] == pytest.approx(roc_auc_score(target, prob), abs=1e-12)
        assert values[f"ap_{label}"] == pytest.approx(average_precision_score(target, prob), abs=1e-6)
        assert values[f"f1_{label}"] == pytest.approx(f1_score(target, prob > 0.4), abs=1e-6)
    for name in ("auroc", "ap", "f1"):
        assert math.isnan(values[f"{name}_Pneumonia"])
        assert values[f"{name}_macro"] == pytest.approx(np.mean([values[f"{name}_{label}"] for label in LABELS[:2]]))
    assert list(values) == metrics.list_names()


def test_a_second_epoch_begins_anew() -> None:
    probs, targets = sample()
    metrics = build(auroc=AUROC, own={"_target_": "test_epoch_metrics.MeanProb"})
    assert metrics.measure(probs, targets) == pytest.approx(metrics.measure(probs, targets), nan_ok=True)
    assert metrics.measure(probs, targets)["own"] == pytest.approx(float(probs.mean()))


def test_null_drops_a_metric() -> None:
    assert build(auroc=AUROC, ap=None).list_names() == ["auroc_macro", *(f"auroc_{label}" for label in LABELS)]


def test_a_single_label_is_a_label() -> None:
    metrics = EpochMetrics(build_metrics({"auroc": AUROC}, ["Mass"]), ["Mass"])
    assert metrics.measure(torch.tensor([[0.1], [0.8]]), torch.tensor([[0.0], [1.0]])) == {
        "auroc_macro": 1.0,
        "auroc_Mass": 1.0,
    }


def test_the_monitor_says_whether_higher_is_better() -> None:
    metrics = build(
        auroc=AUROC,
        own={"_target_": "test_epoch_metrics.MeanProb"},
        hamming={"_target_": f"{CLASSIFICATION}.MultilabelHammingDistance"},
    )
    modes = {
        name: metrics.choose_mode(f"val/{name}") for name in ("auroc_macro", "auroc_Mass", "loss", "hamming_macro")
    }
    assert modes == {"auroc_macro": "max", "auroc_Mass": "max", "loss": "min", "hamming_macro": "min"}
    with pytest.raises(ConfigError, match=r"monitor=val/nodule: it is not measured; it may be val/auroc_macro, "):
        metrics.choose_mode("val/nodule")
    with pytest.raises(ConfigError, match="own does not say whether higher is better"):
        metrics.choose_mode("val/own")


def test_a_nan_probability_is_a_fault() -> None:
    with pytest.raises(ValueError, match="NaN"):
        build(auroc=AUROC).measure(torch.tensor([[torch.nan] * 3]), torch.zeros(1, 3))


WRONG: list[tuple[str, Instantiable, str]] = [
    ("x", {"_target_": "test_epoch_metrics.Pairs"}, "its result has shape"),
    ("x", {"_target_": "test_epoch_metrics.Broken"}, "it fails on probs and targets: RuntimeError: no"),
    ("x", {"_target_": "fractions.Fraction"}, r"it must be a torchmetrics.Metric, not a Fraction"),
    ("x", {"_target_": "no.such.Metric"}, "No module named 'no'"),
    (
        "x",
        {"_target_": f"{CLASSIFICATION}.MultilabelF1Score", "averge": "none"},
        "Unexpected keyword arguments: `averge`",
    ),
    ("x", {"_target_": f"{CLASSIFICATION}.MultilabelF1Score", "average": "macro"}, "would count as 0: drop it"),
    ("loss", AUROC, "is not loss"),
    ("a-b", AUROC, "letters, digits and _"),
]


@pytest.mark.parametrize(("name", "spec", "line"), WRONG)
def test_a_metric_that_cannot_be_used_is_one_line(name: str, spec: Instantiable, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as fault:
        build(**{name: spec})
    assert str(fault.value).startswith(f"metrics.collection.{name}")
    assert "\n" not in str(fault.value)
