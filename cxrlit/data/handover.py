"""How the processes of a loader hand their batches over.

A tensor's own way takes new shared memory for each, and a connection between the processes: together a sixth of the
time a batch takes. Here images lie in shared memory that stays, and what is small goes by value.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

PREFETCH_FACTOR = 2
"""Batches that each process is asked for ahead: ``prefetch_factor``. The next is asked for when one has been taken."""

_KEYS = count()
_SLOTS: WeakValueDictionary[int, "Slots"] = WeakValueDictionary()


class Slots:
    """Shared memory for the images of a loader with processes; its ``send`` is the loader's ``collate_fn``.

    A process fills its slots in turn. When it comes to one again, this process has copied what was in it: batches are
    yielded in their order, and no process is asked for more than ``PREFETCH_FACTOR`` that have not been.

    Args:
        n_processes: Of the loader, which has ``prefetch_factor=PREFETCH_FACTOR``.
        batch_size: Images of a batch at most.
        img_size: S, pixels.
    """

    def __init__(self, n_processes: int, batch_size: int, img_size: int) -> None:
        self.key, self.n_filled = next(_KEYS), 0
        shape = (n_processes * PREFETCH_FACTOR, batch_size, 1, img_size, img_size)
        images: Any = torch.zeros(shape, dtype=torch.uint8)
        self.images: Tensor = images.share_memory_()
        _SLOTS[self.key] = self

    def send(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Called in a loader process: what of a batch is sent from there, and arrives as the batch."""
        worker: Any = get_worker_info()
        slot = worker.id * PREFETCH_FACTOR + self.n_filled % PREFETCH_FACTOR
        self.n_filled += 1
        images = batch["image"]
        self.images[slot, : len(images)].numpy()[:] = images.numpy()
        small = {name: _ByValue(tensor) for name, tensor in batch.items() if name != "image"}
        return {"image": _InSlot(self.key, slot, len(images)), **small}


class _InSlot:
    """Images on their way."""

    def __init__(self, *place: int) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return _take, self.place


def _take(key: int, slot: int, n_images: int) -> Tensor:
    # NumPy's copy: torch's would wake its threads, which then wait for work beside the loader processes.
    return torch.from_numpy(_SLOTS[key].images[slot, :n_images].numpy().copy())


class _ByValue:
    """A small tensor on its way."""

    def __init__(self, tensor: Tensor) -> None:
        self.array = tensor.numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.from_numpy, (self.array,)
