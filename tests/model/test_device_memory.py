"""Batches that do not fit into the memory of a GPU are halved; nothing of them is lost."""

import pytest
import torch
from torch import Tensor

from cxrlit.core.errors import ConfigError
from cxrlit.model.device_memory import BYTES_PER_PIXEL, FittingBatches, choose_batch_size

Capture = pytest.CaptureFixture[str]


class SmallGPU:
    """Has memory for so many images."""

    def __init__(self, n_images: int) -> None:
        self.n_images, self.asked = n_images, list[int]()

    def __call__(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        if len(images) > self.n_images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images * 2


def test_a_batch_that_does_not_fit_is_halved_and_those_after_it_too(capsys: Capture) -> None:
    gpu, batches = SmallGPU(3), FittingBatches()
    for n_images in (10, 7):
        images = torch.arange(n_images)
        assert torch.equal(torch.cat(batches.run(gpu, images)), images * 2)
    assert gpu.asked == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    assert "no memory for 10 images at once: going on with 5 images" in said
    assert batches.n_at_once == 2


def test_where_it_fits_nothing_is_divided(capsys: Capture) -> None:
    gpu = SmallGPU(10)
    assert len(FittingBatches().run(gpu, torch.arange(10))) == 1
    assert capsys.readouterr().out == ""


def test_one_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no memory for one image"):
        FittingBatches().run(SmallGPU(0), torch.arange(4))


def test_compiled_networks_see_one_shape() -> None:
    gpu = SmallGPU(8)
    made = FittingBatches(4, pads=True).run(gpu, torch.arange(10))
    assert gpu.asked == [4, 4, 4]
    assert torch.equal(torch.cat(made)[:10], torch.arange(10) * 2)


def test_the_shape_of_compiled_networks_grows_unless_it_does_not_fit() -> None:
    """The first batch of a folder may have few files that can be read."""
    gpu, batches = SmallGPU(3), FittingBatches(pads=True)
    for n_images in (2, 3, 1, 4, 4):
        batches.grow(n_images)
        batches.run(gpu, torch.arange(n_images))
    assert gpu.asked == [2, 3, 3, 4, 2, 2, 2, 2]


@pytest.mark.parametrize("img_size", [64, 224, 320, 1024])
@pytest.mark.parametrize("gib", [0, 1, 4, 16, 140])
def test_the_batch_size_fits_into_the_free_memory(gib: int, img_size: int) -> None:
    n_images = choose_batch_size(gib * 2**30, img_size)
    assert 1 <= n_images <= 256
    assert n_images & (n_images - 1) == 0
    assert n_images == 1 or n_images * BYTES_PER_PIXEL * img_size**2 <= gib * 2**30
