"""BatchNorm over the images of all devices."""

from typing import Any

import torch
from torch import Tensor, nn

from cxrlit.core.distributed import sum_over_ranks


class SyncedBatchNorm(nn.BatchNorm2d):
    """A BatchNorm that trains on the statistics of the global batch; the devices' shares may differ in size.

    PyTorch's ``SyncBatchNorm`` does not run on CPUs. Weights and buffers are those of ``nn.BatchNorm2d``.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Normalize (B, C, h, w) maps; B may be 0 on some devices."""
        if not self.training:
            return super().forward(maps)
        values = maps.to(self.weight.dtype)
        n_values = values.new_full((1,), values.numel() // values.shape[1])
        sums = _sum(torch.cat([values.sum(dim=(0, 2, 3)), n_values]))
        n_all = sums[-1].detach()
        mean = sums[:-1] / n_all
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().sum(dim=(0, 2, 3))) / n_all
        self._track(mean.detach(), (variance * n_all / (n_all - 1)).detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normed: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normed.to(maps.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _Sum(torch.autograd.Function):
    """The sum over all devices. Each input affects every device's loss, so the gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return sum_over_ranks(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient)


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)
    return total


def sync_batch_norms(network: nn.Module) -> None:
    """Replace every BatchNorm of a network by a ``SyncedBatchNorm`` with the same weights and statistics."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
