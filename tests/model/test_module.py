"""The schedules that a phase gets, and the metrics of an epoch."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from sklearn.metrics import roc_auc_score
from tiny import RandomImages, fit, make_loader, make_module
from torch import Tensor

from cxrlit.core.errors import DivergenceError
from cxrlit.core.labels import LABELS
from cxrlit.model.module import CXRModule
from cxrlit.training.callbacks import EpochReport, FreezeBatchNorm, PhasedUnfreezing

PLATEAU = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "factor": 0.1, "patience": 0}
ONE_CYCLE = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "pct_start": 0.3}


class RateRecorder(Callback):
    """The learning rate of every batch, by epoch."""

    def __init__(self) -> None:
        self.rates: dict[int, list[float]] = defaultdict(list)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.rates[trainer.current_epoch].append(trainer.optimizers[0].param_groups[0]["lr"])


def freeze_all() -> list[Callback]:
    return [PhasedUnfreezing(0), FreezeBatchNorm()]


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}])
def test_the_rate_drops_where_validation_stands_still(options: dict[str, Any]) -> None:
    recorder = RateRecorder()
    module = make_module(lr=1e-3, scheduler=PLATEAU)
    val = make_loader(seed=1, constant=True)  # images that are all the same: AUROC is 0.5 in every epoch
    fit(module, [*freeze_all(), recorder], max_epochs=4, val=val, **options)
    np.testing.assert_allclose([recorder.rates[epoch][0] for epoch in range(4)], [1e-3, 1e-3, 1e-4, 1e-5])
    assert all(len(set(rates)) == 1 for rates in recorder.rates.values())
    assert {module.scores["val"][f"auroc_{label}"] for label in LABELS} == {0.5}


def test_the_rate_stays_where_validation_gets_better() -> None:
    """The mode is max: with min, as PyTorch has it by default, a rise would be no progress."""
    recorder, rising = RateRecorder(), Rising()
    module = make_module(lr=1e-3, scheduler=PLATEAU)
    images = make_loader(n_images=16, seed=0)
    fit(module, [*freeze_all(), recorder, rising], max_epochs=3, train=images, val=images)
    assert rising.scores[0] < 0.5 < rising.scores[1]
    assert [recorder.rates[epoch][0] for epoch in range(3)] == [1e-3, 1e-3, 1e-3]


class Rising(Callback):
    """Turns the head, epoch by epoch, from all wrong to all right."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        images = RandomImages(16, 0)
        pl_module.network.eval()
        features: list[Tensor] = []
        hook = pl_module.network.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        with torch.no_grad():
            pl_module.network(images.images)
        hook.remove()
        centred = features[0] - features[0].mean(dim=0)
        self.right = torch.linalg.pinv(centred) @ (images.targets - images.targets.mean(dim=0))
        self.scores: list[float] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        share = (trainer.current_epoch + 1) / trainer.max_epochs
        with torch.no_grad():
            pl_module.network.head.weight.copy_(((2 * share - 1) * self.right).T * 10)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CXRModule)
        self.scores.append(pl_module.scores["val"]["auroc_macro"])


def test_one_cycle_steps_after_every_batch_and_ends_low() -> None:
    recorder = RateRecorder()
    fit(make_module(lr=1e-2, scheduler=ONE_CYCLE), [*freeze_all(), recorder], max_epochs=5)
    rates = [rate for epoch in range(5) for rate in recorder.rates[epoch]]
    assert len(rates) == len(set(rates)) == 20
    assert max(rates) == pytest.approx(1e-2, rel=0.01)
    assert rates[0] == pytest.approx(1e-2 / 25)
    assert rates[-1] < 1e-2 * 1e-4
    assert rates.index(max(rates)) == pytest.approx(0.3 * 20, abs=1)


def test_without_a_schedule_the_rate_stays() -> None:
    recorder = RateRecorder()
    fit(make_module(lr=3e-3), [*freeze_all(), recorder], max_epochs=2)
    assert {rate for rates in recorder.rates.values() for rate in rates} == {3e-3}


def test_the_optimizer_holds_what_trains_and_nothing_else() -> None:
    module = make_module(optimizer={"_target_": "torch.optim.SGD", "momentum": 0.5}, lr=1e-4)
    trainer = fit(module, [PhasedUnfreezing(10), FreezeBatchNorm()])
    [optimizer] = trainer.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.5
    assert sum(weight.numel() for group in optimizer.param_groups for weight in group["params"]) == 163_840 + 8_200


class StepGradients(Callback):
    """The gradient of the head's bias at every step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        assert isinstance(pl_module, CXRModule)
        grad = pl_module.network.head.bias.grad
        assert grad is not None
        self.seen.append(grad.clone())


def test_a_step_is_of_the_mean_gradient_of_its_batches_also_at_an_epochs_end() -> None:
    found = []
    for n_batches in (1, 3):
        gradients = StepGradients()
        fit(
            make_module(lr=1e-12), [*freeze_all(), gradients], train=make_loader(n_images=20),
            accumulate_grad_batches=n_batches,
        )  # fmt: skip
        found.append(torch.stack(gradients.seen))
    alone, together = found  # the weights hardly change
    torch.testing.assert_close(together, torch.stack([alone[:3].mean(dim=0), alone[3:].mean(dim=0)]))


def test_train_auroc_is_that_of_the_epoch_that_is_reported(tmp_path: Any) -> None:
    module = make_module(lr=1e-2, train_metrics=True)
    logits: dict[int, list[Tensor]] = defaultdict(list)

    def keep(network: torch.nn.Module, _: Any, output: Tensor) -> None:
        if network.training:
            logits[module.current_epoch].append(output.detach())

    module.network.register_forward_hook(keep)
    report = EpochReport(tmp_path)
    fit(module, [*freeze_all(), report], max_epochs=3, val_check_interval=0.5)
    targets = RandomImages().targets.numpy()
    seen = set()
    for epoch, row in enumerate(report._rows):
        scores = torch.cat(logits[epoch]).sigmoid().numpy()
        expected = [roc_auc_score(targets[:, label], scores[:, label]) for label in range(8)]
        assert row["train_auroc_macro"] == pytest.approx(np.mean(expected), abs=1e-12)
        seen.add(row["train_auroc_macro"])
    assert len(seen) == 3


def test_a_training_that_is_stopped_in_an_epoch_reports_what_it_saw_of_it(tmp_path: Any) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = True

    module, report = make_module(lr=1e-2, train_metrics=True), EpochReport(tmp_path)
    fit(module, [*freeze_all(), report, Stop()], max_epochs=3)
    [row] = report._rows
    assert row["step"] == 1
    assert len(module.predictions["train"].probs) < len(RandomImages().targets)


def test_a_training_that_diverges_ends_with_a_line() -> None:
    class Explode(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            assert isinstance(pl_module, CXRModule)
            torch.nn.init.constant_(pl_module.network.head.weight, float("nan"))

    with pytest.raises(DivergenceError, match=r"lr=0\.5: the training diverged") as fault:
        fit(make_module(lr=0.5), [*freeze_all(), Explode()])
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("epochs", [1, 2])
def test_val_auroc_is_exact_whatever_the_batches(epochs: int) -> None:
    module = make_module(lr=1e-3)
    fit(module, freeze_all(), max_epochs=epochs, val=make_loader(batch_size=5, n_images=17, seed=1))
    images = RandomImages(17, 1)
    module.eval()
    with torch.inference_mode():
        scores = torch.cat([module(part) for part in images.images.split(5)]).sigmoid().numpy()
    expected = [roc_auc_score(images.targets[:, label], scores[:, label]) for label in range(8)]
    measured = [module.scores["val"][f"auroc_{label}"] for label in LABELS]
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-12)
