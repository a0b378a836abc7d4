"""The losses against their plain formulas, and the weights of the positives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxrlit.config import Instantiable, SamplerConfig
from cxrlit.core.errors import ConfigError
from cxrlit.core.labels import LABELS
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import load_data
from cxrlit.data.index import read_targets
from cxrlit.model.losses import AsymmetricLoss, FocalLoss, build_loss, mask_loss, share_loss
from cxrlit.model.pos_weight import capped_pos_weight, weigh_positives


def plain_bce(logits: torch.Tensor, targets: torch.Tensor, pos_weight: torch.Tensor | None) -> float:
    """The definition, a target at a time, in float64."""
    terms = []
    for row in range(len(logits)):
        for label in range(logits.shape[1]):
            target = float(targets[row, label])
            if np.isnan(target):
                continue
            prob = 1 / (1 + np.exp(-float(logits[row, label])))
            weight = 1.0 if pos_weight is None else float(pos_weight[label])
            terms.append(-(weight * target * np.log(prob) + (1 - target) * np.log(1 - prob)))
    return float(np.mean(terms))


def mean_bce(logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """What a training on one device goes backward from."""
    bce = nn.BCEWithLogitsLoss(reduction="none", pos_weight=pos_weight)
    loss: Tensor = share_loss(*mask_loss(bce, logits, targets), len(logits))["loss"]
    return loss


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_loss_is_the_mean_over_the_known_targets(weighted: bool, unknown: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 8, generator=generator) * 3
    targets = (torch.rand(6, 8, generator=generator) < 0.3).float()
    targets[torch.rand(6, 8, generator=generator) < unknown] = torch.nan
    pos_weight = torch.rand(8, generator=generator) * 10 if weighted else None
    assert mean_bce(logits, targets, pos_weight).item() == pytest.approx(
        plain_bce(logits, targets, pos_weight), rel=1e-5
    )


def test_unknown_targets_have_no_gradient() -> None:
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.zeros(4, 8)
    targets[1, 2] = targets[3, 7] = torch.nan
    mean_bce(logits, targets, torch.full((8,), 3.0)).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, targets.isnan())
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_a_loss_makes_of_an_unknown_target_is_dropped(value: float) -> None:
    targets = torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]])
    total, n_known = mask_loss(
        lambda logits, marks: torch.where(marks == 1, logits, value), torch.full((2, 2), 3.0), targets
    )
    assert (total.item(), n_known.item()) == (6.0, 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_without_a_known_target_changes_nothing(weighted: bool) -> None:
    logits = torch.full((2, 8), 50.0, requires_grad=True)
    loss = mean_bce(logits, torch.full((2, 8), torch.nan), torch.full((8,), 2.0) if weighted else None)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(2, 8))


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    loss = mean_bce(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.item() == 1000
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_pos_weight_is_negatives_over_positives_up_to_the_cap() -> None:
    nan = np.nan
    targets = np.array([[1, 1, 0, 0, nan], [1, 0, 0, nan, nan], [1, 0, 0, 1, 1], [0, 0, 0, 0, nan]], dtype=np.float32)
    weight = capped_pos_weight(targets, cap=2.5)
    assert weight.dtype == np.float32
    # 1/3; 3/1 is above the cap; no positive: the cap; 2/1 without the unknown one; no negative: 0
    np.testing.assert_array_equal(weight, np.array([1 / 3, 2.5, 2.5, 2, 0], dtype=np.float32))


def test_positives_that_are_drawn_more_often_weigh_less(nih_tree: Path, make_nih_config: Any, tmp_path: Path) -> None:
    sampler = SamplerConfig(name="oversample", labels=["Mass"], prevalence=0.9)
    data = load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    datamodule = CXRDataModule(data, img_size=32, batch_size=8, resize="pad", cache_dir=tmp_path, sampler=sampler)
    datamodule.setup()
    weight = weigh_positives(datamodule, 10.0)["weight"].to_numpy()
    targets = read_targets(datamodule.parts["train"], LABELS)
    np.testing.assert_array_equal(weight, capped_pos_weight(targets, 10.0, datamodule.repeats))
    column = LABELS.index("Mass")
    assert weight[column] < capped_pos_weight(targets, 10.0)[column]


def test_a_label_without_a_positive_gets_the_cap_however_few_its_negatives() -> None:
    targets = np.array([[0, np.nan], [0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(capped_pos_weight(targets, cap=10.0), [10, 10])


def test_a_label_without_a_known_target_is_not_weighted() -> None:
    targets = np.zeros((3, len(LABELS)), dtype=np.float32)
    targets[:, 5] = np.nan
    assert capped_pos_weight(targets, cap=10.0).tolist() == [1 if label == 5 else 10 for label in range(len(LABELS))]


def sample(seed: int = 0) -> tuple[Tensor, Tensor]:
    """(6, 8) logits and targets, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 8, generator=generator) * 3, (torch.rand(6, 8, generator=generator) < 0.3).float()


@pytest.mark.parametrize(("gamma", "alpha"), [(0.0, -1.0), (2.0, 0.25), (1.5, 0.75)])
def test_focal_loss_is_its_formula(gamma: float, alpha: float) -> None:
    logits, targets = sample()
    prob = logits.double().sigmoid()
    right = torch.where(targets == 1, prob, 1 - prob)
    weight = 1.0 if alpha == -1 else torch.where(targets == 1, alpha, 1 - alpha)
    expected = -weight * (1 - right) ** gamma * right.log()
    torch.testing.assert_close(FocalLoss(gamma, alpha)(logits, targets).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), [(4.0, 1.0, 0.05), (0.0, 0.0, 0.0), (2.5, 0.5, 0.2)])
def test_asymmetric_loss_is_its_formula(gamma_neg: float, gamma_pos: float, clip: float, weighted: bool) -> None:
    logits, targets = sample()
    pos_weight = torch.arange(1.0, 9.0) if weighted else None
    prob = logits.double().sigmoid()
    shifted = (prob - clip).clamp(min=0)
    positive = -((1 - prob) ** gamma_pos) * prob.log() * (1.0 if pos_weight is None else pos_weight)
    negative = -(shifted**gamma_neg) * (1 - shifted).log()
    expected = torch.where(targets == 1, positive, negative)
    losses = AsymmetricLoss(gamma_neg, gamma_pos, clip, pos_weight)(logits, targets)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-6)


def test_asymmetric_loss_without_focus_and_clip_is_bce() -> None:
    logits, targets = sample()
    bce = nn.BCEWithLogitsLoss(reduction="none")(logits, targets)
    torch.testing.assert_close(AsymmetricLoss(0, 0, 0)(logits, targets), bce)


LOSSES = [FocalLoss(), FocalLoss(1.5, -1), AsymmetricLoss(), AsymmetricLoss(0.5, 0.5, 0.1), AsymmetricLoss(2, 1, 0)]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss: nn.Module) -> None:
    logits, targets = sample()
    assert torch.autograd.gradcheck(lambda x: loss(x, targets.double()), logits.double().requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_stay_finite_whatever_the_logits(loss: nn.Module) -> None:
    logits = torch.tensor([[-1e4, -200.0, -30.0, 0.0, 30.0, 200.0, 1e4]]).repeat(2, 1).requires_grad_()
    losses = loss(logits, torch.tensor([[0.0], [1.0]]).repeat(1, 7))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert (losses >= 0).all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_unknown_targets_have_no_loss_and_no_gradient(loss: nn.Module) -> None:
    logits, targets = sample()
    known = mask_loss(loss, logits[1:], targets[1:])
    unknown = torch.cat([torch.full((1, 8), torch.nan), targets[1:]])
    logits.requires_grad_()
    total, n_known = mask_loss(loss, logits, unknown)
    total.backward()
    assert n_known == 40
    torch.testing.assert_close(total, known[0])
    assert logits.grad is not None
    assert torch.equal(logits.grad[0], torch.zeros(8))


class MeanLoss(nn.Module):
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits - targets).square().mean()


class NoGradient(nn.Module):
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return targets


WRONG = [
    ({"_target_": "test_losses.MeanLoss"}, r"loss._target_=test_losses.MeanLoss: it must return a loss for each image"),
    ({"_target_": "torch.nn.BCEWithLogitsLoss", "reduction": "mean"}, "reduction=none"),
    ({"_target_": "test_losses.NoGradient"}, "its losses have no gradient"),
    ({"_target_": "fractions.Fraction"}, "it must be a torch.nn.Module"),
    ({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 3}, "it fails on logits and targets"),
    ({"_target_": "test_losses.MeanLoss", "pos_weight_cap": 3.0}, "takes no pos_weight: set loss.pos_weight_cap=null"),
    ({"_target_": "cxrlit.model.losses.FocalLoss", "gamma": -1.0}, "gamma=-1 must be 0, or 1 or more"),
    ({"_target_": "cxrlit.model.losses.FocalLoss", "delta": 1}, r"loss.delta: .* has no such argument"),
    ({"_target_": "no.such.Loss"}, "loss._target_=no.such.Loss"),
]


@pytest.mark.parametrize(("spec", "line"), WRONG)
def test_a_loss_that_cannot_be_used_is_one_line(spec: Instantiable, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as fault:
        build_loss(spec, torch.ones(8))
    assert "\n" not in str(fault.value)


def test_pos_weight_reaches_a_class_that_takes_it_where_a_cap_is_set() -> None:
    spec = {"_target_": "torch.nn.BCEWithLogitsLoss", "reduction": "none", "pos_weight_cap": 10.0}
    weighted = build_loss(spec, torch.full((8,), 3.0))
    assert isinstance(weighted, nn.BCEWithLogitsLoss)
    assert weighted.pos_weight is not None
    assert weighted.pos_weight.tolist() == [3.0] * 8
    plain = build_loss({**spec, "pos_weight_cap": None}, torch.full((8,), 3.0))
    assert isinstance(plain, nn.BCEWithLogitsLoss)
    assert plain.pos_weight is None
