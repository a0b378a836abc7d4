"""Collect the predictions of an epoch over all devices."""

from typing import NamedTuple

import torch
from torch import Tensor

from cxrlit.core.distributed import gather_over_ranks


class Predictions(NamedTuple):
    """Predictions in the order of the rows.

    Attributes:
        row: (N,) int64, rows of the part's table; a row that was drawn twice occurs twice.
        probs: (N, L) float32.
        targets: (N, L) float32; 1 present, 0 absent, NaN unknown.
    """

    row: Tensor
    probs: Tensor
    targets: Tensor


class PredictionBuffer:
    """Collects the predictions of an epoch, batch by batch: about 70 bytes per image with 8 labels.

    >>> buffer = PredictionBuffer()
    >>> buffer.add(torch.tensor([1, 0]), torch.zeros(2, 1), torch.tensor([[1.0], [0.0]]))
    >>> buffer.gather().row.tolist(), buffer.gather().targets.tolist()
    ([0, 1], [[0.0], [1.0]])
    """

    def __init__(self) -> None:
        self._batches: list[Predictions] = []

    def add(self, row: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add (B,) rows, (B, L) logits and (B, L) targets of this device."""
        self._batches.append(Predictions(row, to_probs(logits), targets))

    def restore(self, predictions: Predictions) -> None:
        """Start from predictions that ``gather`` returned."""
        self._batches = [predictions]

    def clear(self) -> None:
        """Remove all predictions, before the next epoch."""
        self._batches = []

    def gather(self) -> Predictions | None:
        """Return the predictions of all devices, on the CPU; None if there are none. All devices must call it."""
        mine = [tuple(torch.cat(parts).cpu() for parts in zip(*self._batches, strict=True))] if self._batches else []
        shares = [share for shares in gather_over_ranks(mine) for share in shares]
        if not shares:
            return None
        row, probs, targets = (torch.cat(parts) for parts in zip(*shares, strict=True))
        order = torch.argsort(row, stable=True)
        return Predictions(row[order], probs[order], targets[order])


def to_probs(logits: Tensor) -> Tensor:
    """Convert logits to float32 probs via float64, as the evaluation does, so that ties are the same."""
    exact = logits.detach() if logits.device.type != "mps" else logits.detach().cpu()  # MPS has no float64
    return exact.double().sigmoid().float()
