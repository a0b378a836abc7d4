"""The optimizer's groups, and the rate that each schedule gives to every step."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import Parameter

from cxrlit.config import Instantiable
from cxrlit.core.errors import ConfigError
from cxrlit.model.optimizer import WARMUP_START, build_optimizer, build_schedulers

SGD = {"_target_": "torch.optim.SGD", "weight_decay": 0.1}
LR_SCHEDULER = "torch.optim.lr_scheduler"


def make_parameters() -> tuple[list[Parameter], list[Parameter]]:
    """A convolution with a norm as backbone, and a linear head."""
    backbone, head = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2)), nn.Linear(2, 3)
    return list(backbone.parameters()), list(head.parameters())


def test_by_default_all_parameters_are_one_group() -> None:
    backbone, head = make_parameters()
    [group] = build_optimizer(backbone, head, 0.5, SGD).param_groups
    assert [id(one) for one in group["params"]] == [id(one) for one in (*backbone, *head)]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.1)


def test_norms_and_biases_have_no_decay_and_the_backbone_a_rate_of_its_own() -> None:
    backbone, head = make_parameters()
    groups = build_optimizer(backbone, head, 0.5, {**SGD, "decay_norms": False, "backbone_lr_factor": 0.1}).param_groups
    seen = [([tuple(one.shape) for one in group["params"]], group["lr"], group["weight_decay"]) for group in groups]
    assert seen == [
        ([(2, 1, 3, 3)], 0.05, 0.1),
        ([(2,), (2,)], 0.05, 0.0),
        ([(3, 2)], 0.5, 0.1),
        ([(3,)], 0.5, 0.0),
    ]


def list_rates(spec: Instantiable | None, n_epochs: int = 4, steps: int = 5, **options: Any) -> list[list[float]]:
    """The rates of all groups at each step, where the schedule is stepped as Lightning steps it."""
    backbone, head = make_parameters()
    optimizer = build_optimizer(backbone, head, 1.0, {**SGD, "backbone_lr_factor": 0.1})
    built = build_schedulers(
        optimizer, spec, n_epochs=n_epochs, n_steps=n_epochs * steps, monitor="val/loss", mode="min", **options
    )
    rates = []
    for _ in range(n_epochs):
        for _ in range(steps):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            for one in built:
                if one["interval"] == "step":
                    one["scheduler"].step()
        for one in built:
            if one["interval"] == "epoch":
                plateau = isinstance(one["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau)
                one["scheduler"].step(*([1.0] if plateau else []))
    assert all(backbone == pytest.approx(0.1 * head) for backbone, head in rates)
    return rates


def list_head_rates(spec: Instantiable | None, **options: Any) -> list[float]:
    return [head for _, head in list_rates(spec, **options)]


def test_cosine_falls_to_its_end_at_the_last_step() -> None:
    spec = {"_target_": f"{LR_SCHEDULER}.CosineAnnealingLR", "eta_min": 0.0}
    expected = [(1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert list_head_rates(spec) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [1, 0.25])
def test_a_warm_up_of_epochs_or_of_a_fraction_scales_what_the_schedule_says(warmup: float) -> None:
    spec = {"_target_": f"{LR_SCHEDULER}.CosineAnnealingLR", "eta_min": 0.0, "warmup": warmup}
    cosine = [(1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    ramp = [WARMUP_START + (1 - WARMUP_START) * min(step / 5, 1) for step in range(20)]
    assert list_head_rates(spec) == pytest.approx([one * other for one, other in zip(cosine, ramp, strict=True)])


def test_a_warm_up_leads_to_a_rate_that_stays_or_drops_with_the_plateau() -> None:
    constant = list_head_rates({"_target_": f"{LR_SCHEDULER}.ConstantLR", "factor": 1.0, "warmup": 0.5})
    assert constant[10:] == pytest.approx([1.0] * 10)
    assert constant[:3] == pytest.approx([WARMUP_START + (1 - WARMUP_START) * step / 10 for step in range(3)])
    spec = {"_target_": f"{LR_SCHEDULER}.ReduceLROnPlateau", "factor": 0.1, "patience": 0, "warmup": 1}
    plateau = list_head_rates(spec)  # the loss stands still from the first epoch on
    assert plateau[5:10] == pytest.approx([1.0] * 5)
    assert plateau[10:] == pytest.approx([0.1] * 5 + [0.01] * 5)


def test_one_cycle_peaks_at_each_groups_own_rate() -> None:
    rates = list_head_rates({"_target_": f"{LR_SCHEDULER}.OneCycleLR", "pct_start": 0.3})
    assert max(rates) == pytest.approx(1.0, rel=0.02)
    assert rates[-1] < 1e-2


def test_a_length_of_the_users_counts_epochs_unless_interval_says_steps() -> None:
    step_lr = {"_target_": f"{LR_SCHEDULER}.StepLR", "step_size": 2, "gamma": 0.1}
    assert list_head_rates(step_lr) == pytest.approx([1.0] * 10 + [0.1] * 10)
    assert list_head_rates({**step_lr, "interval": "step"})[:4] == pytest.approx([1.0, 1.0, 0.1, 0.1])
    cosine = {"_target_": f"{LR_SCHEDULER}.CosineAnnealingLR", "T_max": 4}
    assert list_head_rates(cosine)[5] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_a_mode_that_is_no_direction_is_left_alone() -> None:
    spec = {"_target_": f"{LR_SCHEDULER}.CyclicLR", "base_lr": 0.1, "max_lr": 1.0, "cycle_momentum": False}
    optimizer = build_optimizer(*make_parameters(), 1.0, SGD)
    [built] = build_schedulers(optimizer, spec, n_epochs=1, n_steps=1, monitor="val/x", mode="max")
    assert built["scheduler"].mode == "triangular"


def test_the_mode_is_that_of_the_monitor() -> None:
    optimizer = build_optimizer(*make_parameters(), 1.0, SGD)
    spec = {"_target_": f"{LR_SCHEDULER}.ReduceLROnPlateau"}
    [built] = build_schedulers(optimizer, spec, n_epochs=1, n_steps=1, monitor="val/x", mode="max")
    assert (built["scheduler"].mode, built["monitor"]) == ("max", "val/x")


WRONG = [
    (
        {"_target_": f"{LR_SCHEDULER}.CosineAnnealingLR", "T_max": 5},
        "T_max=5: it is longer than the phase",
    ),
    ({"_target_": f"{LR_SCHEDULER}.CosineAnnealingLR", "T_max": 21, "interval": "step"}, "which has 20 steps"),
    ({"_target_": f"{LR_SCHEDULER}.ConstantLR", "warmup": 4}, "warmup=4: the phase has 4 epochs"),
    ({"_target_": f"{LR_SCHEDULER}.ConstantLR", "warmup": -1}, "warmup=-1: it must be a number of epochs"),
    ({"_target_": f"{LR_SCHEDULER}.CosineAnnealingWarmRestarts", "T_0": 5, "warmup": 1}, "would multiply it"),
    ({"_target_": f"{LR_SCHEDULER}.ReduceLROnPlateau", "mode": "max"}, "mode=max: val/loss is better lower: min"),
    ({"_target_": f"{LR_SCHEDULER}.ConstantLR", "interval": "day"}, "interval=day: it may be step or epoch"),
    ({"_target_": f"{LR_SCHEDULER}.OneCycleLR", "warmup": 1}, "has its own warm-up, pct_start"),
    ({"_target_": f"{LR_SCHEDULER}.ConstantLR", "fun": 1}, "scheduler.fun: .* has no such argument"),
    ({"_target_": f"{LR_SCHEDULER}.NoSuchLR"}, "has no NoSuchLR"),
]


@pytest.mark.parametrize(("spec", "line"), WRONG)
def test_a_schedule_that_cannot_be_is_one_line(spec: Instantiable, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as fault:
        list_rates(spec, key="phases.frozen.scheduler")
    assert str(fault.value).startswith("phases.frozen.scheduler.")
    assert "\n" not in str(fault.value)
