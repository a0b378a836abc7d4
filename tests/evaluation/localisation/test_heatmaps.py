"""Heatmaps against autograd and the papers' definitions; they must find what was planted, and leave no trace."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted import make_bright_network
from tiny import make_module, snapshot
from torch import Tensor, nn

from cxrlit.evaluation.localisation.box_scores import detect
from cxrlit.evaluation.localisation.heatmaps import (
    Method,
    evaluating,
    make_heatmaps,
    normalise,
    weigh_features,
)
from cxrlit.evaluation.localisation.overlays import enlarge
from cxrlit.model.densenet import build_network, unfreeze_last
from cxrlit.training.callbacks import FreezeBatchNorm

METHODS: tuple[Method, ...] = ("gradcam", "gradcam++")


def draw_images(n: int = 2, size: int = 96, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def plain_gradcam(features: Tensor, logit: Tensor) -> Tensor:
    """Grad-CAM as in its paper, from any differentiable logit of (B, C, h, w) features."""
    gradient = torch.autograd.grad(logit.sum(), features, retain_graph=True)[0]
    return torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1)).detach()


def plain_gradcam_plus(features: Tensor, logit: Tensor) -> Tensor:
    """Grad-CAM++ as in its paper, with derivatives of exp(logit) for a logit whose own second derivative is 0."""
    score = logit.exp()[:, None, None, None]
    gradient = torch.autograd.grad(logit.sum(), features, retain_graph=True)[0]
    first, second, third = score * gradient, score * gradient**2, score * gradient**3
    below = 2 * second + features.sum(dim=(2, 3), keepdim=True) * third
    alpha = torch.where(second > 0, second / torch.where(below != 0, below, 1), 0)
    weights = (alpha * torch.relu(first)).sum(dim=(2, 3), keepdim=True)
    return torch.relu((weights * features).sum(dim=1)).detach()


@pytest.mark.parametrize(("method", "plain"), [("gradcam", plain_gradcam), ("gradcam++", plain_gradcam_plus)])
def test_maps_are_those_of_autograd(method: Method, plain: Callable[[Tensor, Tensor], Tensor]) -> None:
    network = build_network("none", "imagenet", 8, seed=3)
    images = draw_images()
    logits, maps = make_heatmaps(network, images, method)
    with evaluating(network):
        torch.testing.assert_close(logits, network(images), rtol=0, atol=0)
        features = network.forward_features(images).detach().double().requires_grad_()
    head = nn.Linear(1024, 8).double()
    head.load_state_dict(network.head.state_dict())
    of_head = head(features.mean(dim=(2, 3)))
    for label in range(8):
        wanted = normalise(plain(features, of_head[:, label]))
        torch.testing.assert_close(maps[:, label].double(), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("cell", [(0, 0, 0), (5, 1, 2)])
def test_all_derivatives_of_the_score_are_powers_of_the_first(cell: tuple[int, int, int]) -> None:
    """What the closed form of Grad-CAM++ rests on, by autograd to the third order."""
    torch.manual_seed(0)
    features, head = torch.rand(1, 6, 2, 3, dtype=torch.float64), nn.Linear(6, 1).double()
    step = torch.zeros(1, 6, 2, 3, dtype=torch.float64)
    step[(0, *cell)] = 1
    moved = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = head((features + moved * step).mean(dim=(2, 3))).exp().sum()
    derivatives = []
    for _ in range(3):
        (value,) = torch.autograd.grad(value, moved, create_graph=True)
        derivatives.append(value)
    first, second, third = derivatives
    alpha = second / (2 * second + features[0, cell[0]].sum() * third)
    weight = head.weight[0, cell[0]]
    torch.testing.assert_close(alpha, 1 / (2 + weight * features[0, cell[0]].mean()))
    torch.testing.assert_close(first, head(features.mean(dim=(2, 3))).exp().sum() * weight / 6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_gradcam_is_a_share_of_the_logit(seed: int) -> None:
    """Where nothing speaks against the label, the mean of its map is the logit without its bias."""
    generator = torch.Generator().manual_seed(seed)
    features, weight = torch.rand(2, 5, 3, 4, generator=generator), torch.rand(3, 5, generator=generator)
    maps = weigh_features(features, weight, "gradcam")
    torch.testing.assert_close(maps.mean(dim=(2, 3)), features.mean(dim=(2, 3)) @ weight.T)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_in_the_unit_interval_and_reach_its_end(method: Method) -> None:
    maps = make_heatmaps(build_network("none", "imagenet", 8, seed=0), draw_images(), method).maps
    assert maps.dtype == torch.float32
    assert maps.shape == (2, 8, 3, 3)
    assert maps.min() >= 0
    assert set(maps.amax(dim=(2, 3)).flatten().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("method", METHODS)
def test_a_map_that_nothing_speaks_for_is_zero(method: Method) -> None:
    network = build_network("none", "imagenet", 3, seed=0)
    with torch.no_grad():
        network.head.weight[1] = -network.head.weight[1].abs()
    maps = make_heatmaps(network, draw_images(), method).maps
    assert not maps[:, 1].any()
    assert maps[:, [0, 2]].amax(dim=(2, 3)).eq(1).all()


def test_a_network_that_overflows_is_an_error() -> None:
    network = build_network("none", "imagenet", 3, seed=0)
    with torch.no_grad():
        network.head.weight[1, 0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        make_heatmaps(network, draw_images())


def test_nothing_of_the_network_changes() -> None:
    network = make_module().network
    unfreeze_last(network, 50)
    network.train()
    FreezeBatchNorm("train").set_modes(network)
    before = snapshot(network)
    trains = [parameter.requires_grad for parameter in network.parameters()]
    modes = [module.training for module in network.modules()]
    assert len(set(modes)) == 2
    first = make_heatmaps(network, draw_images()).maps
    assert torch.equal(first, make_heatmaps(network, draw_images()).maps)
    assert not first.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [parameter.requires_grad for parameter in network.parameters()] == trains
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


def test_modes_come_back_when_something_fails() -> None:
    network = make_bright_network().train()
    with pytest.raises(RuntimeError):  # of a batch that is too small for the pooling
        make_heatmaps(network, draw_images(size=16))
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_place_is_found(method: Method) -> None:
    network = make_bright_network()
    for row, column in np.ndindex(4, 6):
        images = torch.full((1, 1, 128, 192), 40, dtype=torch.uint8)
        images[0, 0, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = 240
        maps = make_heatmaps(network, images, method).maps[0]
        assert maps[0].argmax() == row * 6 + column
        assert maps[0].count_nonzero() == 1
        assert maps[1, row, column] == 0
        assert maps[1].count_nonzero() == 23


def draw_disks(n: int, seed: int, radius: int = 14, size: int = 128) -> tuple[Tensor, NDArray[np.float64]]:
    """Noise; every second image has a bright disk somewhere. And (N, 2) x and y of the disks' centres."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 120, (n, 1, size, size), dtype=np.uint8)
    centres = rng.uniform(radius, size - radius, (n, 2))
    y, x = np.mgrid[:size, :size] + 0.5
    for image, centre in zip(images[::2], centres[::2], strict=True):
        image[0][np.hypot(x - centre[0], y - centre[1]) < radius] += 130
    return torch.from_numpy(images), centres


def test_a_head_that_tells_images_with_a_disk_looks_at_the_disk() -> None:
    """No place is ever told: random features, a head by ridge regression, and the maps point to the disks."""
    network = build_network("none", "imagenet", 1, seed=0)
    images, _ = draw_disks(32, seed=0)
    with torch.no_grad(), evaluating(network):
        pooled = network.forward_features(images).mean(dim=(2, 3)).double()
    mean, spread = pooled.mean(dim=0), pooled.std(dim=0) + 1e-9
    standard = (pooled - mean) / spread
    present = torch.tensor([0.5, -0.5] * 16, dtype=torch.float64)
    weight = standard.T @ torch.linalg.solve(standard @ standard.T + 32 * torch.eye(32), present) / spread
    with torch.no_grad():
        network.head.weight[0] = weight.float()
    images, centres = draw_disks(24, seed=1)
    logits, maps = make_heatmaps(network, images)
    assert logits[::2].min() > logits[1::2].max()
    found = detect([of_one[0].numpy() for of_one in maps[::2]], 128).points
    assert (np.abs(found - centres[::2]).max(axis=1) < 32).mean() > 0.7  # by chance a fifth


@given(st.integers(0, 2**32 - 1), st.sampled_from([(7, 7, 224), (4, 4, 128), (10, 10, 320), (3, 5, 60)]))
@settings(max_examples=50, deadline=None)
def test_an_enlarged_map_is_that_of_torch(seed: int, shape: tuple[int, int, int]) -> None:
    height, width, size = shape
    coarse = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    large = enlarge(coarse, size)
    wanted = nn.functional.interpolate(torch.from_numpy(coarse)[None, None], size=(size, size), mode="bilinear")[0, 0]
    np.testing.assert_allclose(large, wanted.numpy(), atol=1e-6)
    assert large.max() <= coarse.max()
