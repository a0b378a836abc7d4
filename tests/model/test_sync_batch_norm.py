"""Devices that share a batch compute what one device computes of all of it."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import spawn

from cxrlit.core.ranks import set_ranks
from cxrlit.model.losses import mask_loss, share_loss
from cxrlit.model.sync_batch_norm import SyncedBatchNorm, sync_batch_norms


def make_batch(n_images: int) -> tuple[Tensor, Tensor]:
    """Images, and targets of which many are unknown."""
    generator = torch.Generator().manual_seed(n_images)
    images = torch.randn(n_images, 3, 6, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(-1, 2, (n_images, 4), generator=generator).double()
    return images, targets.where(targets >= 0, torch.nan)


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.Tanh()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


def learn(network: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Mean loss, gradients and buffers after two steps in the same direction."""
    for _ in range(2):
        total, n_known = mask_loss(nn.BCEWithLogitsLoss(reduction="none"), network(images), targets)
        step = share_loss(total, n_known, len(images))
        step["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    made = {**gradients, **dict(network.named_buffers()), "mean_loss": step["mean_loss"]}
    return {**made, "n_images": torch.as_tensor(step["n_images"], dtype=torch.float64)}


def learn_share(rank: int, n_ranks: int, port: int, path: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=n_ranks)
    set_ranks(rank, n_ranks, n_ranks)
    made = {}
    for n_images in (7, 1):
        network = make_network()
        sync_batch_norms(network)
        assert isinstance(network[1], SyncedBatchNorm)
        images, targets = make_batch(n_images)
        learned = learn(network, images[rank::n_ranks], targets[rank::n_ranks])
        for name, _ in network.named_parameters():  # as DistributedDataParallel does it
            dist.all_reduce(learned[name])
            learned[name] /= n_ranks
        made[n_images] = learned
    if rank == 0:
        torch.save(made, path)


@pytest.mark.slow
def test_gradients_statistics_and_loss_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    spawn(learn_share, (2, port, tmp_path / "made.pt"), nprocs=2)
    made = torch.load(tmp_path / "made.pt")
    for n_images, learned in made.items():  # of a single image one device has no share
        whole = learn(make_network(), *make_batch(n_images))
        assert whole.keys() == learned.keys()
        for name, value in whole.items():
            torch.testing.assert_close(learned[name], value, rtol=1e-9, atol=1e-12, msg=f"{name} of {n_images}")
