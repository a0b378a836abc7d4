"""The loss against its plain formula, and the weights of the positives."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cxrlit.core.labels import LABELS
from cxrlit.model.losses import capped_pos_weight, masked_bce, share_loss


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
    loss: Tensor = share_loss(*masked_bce(logits, targets, pos_weight), len(logits))["loss"]
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


def test_a_label_without_a_positive_gets_the_cap_however_few_its_negatives() -> None:
    targets = np.array([[0, np.nan], [0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(capped_pos_weight(targets, cap=10.0), [10, 10])


def test_a_label_without_a_known_target_is_not_weighted() -> None:
    targets = np.zeros((3, len(LABELS)), dtype=np.float32)
    targets[:, 5] = np.nan
    assert capped_pos_weight(targets, cap=10.0).tolist() == [1 if label == 5 else 10 for label in range(len(LABELS))]
