"""Re-estimate BatchNorm statistics on other images."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from cxrlit.core.console import track
from cxrlit.core.distributed import sum_over_ranks
from cxrlit.core.ranks import n_ranks
from cxrlit.model.densenet import CXRNet


def adapt_batch_norms(network: CXRNet, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Set the running mean and variance of every BatchNorm to their mean over batches.

    Activations have other statistics at another image size. Each BatchNorm normalizes by the batch meanwhile, so one
    pass is enough for all of them. Nothing else changes; the network returns to its previous mode.

    Args:
        network: On the device that computes.
        batches: This rank's batches, with (B, 1, S, S) uint8 images under ``image``.

    Source: Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019; the cumulative mean as in
        ``torch.optim.swa_utils.update_bn``.
    """
    shown = track(batches, "Estimating BatchNorm statistics", transient=True)
    update_bn((batch["image"] for batch in shown), network, network.mean.device)
    if n_ranks() > 1:
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                _average_over_ranks(norm)


def _average_over_ranks(norm: nn.BatchNorm2d) -> None:
    """Average the statistics over the ranks, weighted by their numbers of batches, which may be 0."""
    mean, variance, n_batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert mean is not None
    assert variance is not None
    assert n_batches is not None
    n_all = sum_over_ranks(n_batches)
    for tensor in (mean, variance):
        tensor.copy_(sum_over_ranks(tensor.double() * n_batches) / n_all)
    n_batches.copy_(n_all)
