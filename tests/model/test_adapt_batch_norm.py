"""BatchNorm statistics estimated anew: the mean over batches, and nothing else changes."""

import pytest
import torch
from tiny import list_changes, snapshot
from torch import nn

from cxrlit.data.sampler import draw_whole_batches
from cxrlit.model.adapt_batch_norm import adapt_batch_norms
from cxrlit.model.densenet import CXRNet, build_network

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def network() -> CXRNet:
    return build_network("none", "imagenet", 8, seed=0).eval()


def draw_batches(n_batches: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 1, 64, 64)
    return [{"image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)} for _ in range(n_batches)]


def test_the_first_batch_norm_has_the_mean_of_what_its_batches_are(network: CXRNet) -> None:
    batches = draw_batches(3)
    maps = []
    for batch in batches:
        pixels = (batch["image"] / 255.0).expand(-1, 3, -1, -1)
        maps.append(network.features.conv0((pixels - network.mean) / network.std))
    adapt_batch_norms(network, batches)
    norm = network.features.norm0
    expected = torch.stack([one.mean(dim=(0, 2, 3)) for one in maps]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-5, atol=1e-6)
    expected = torch.stack([one.var(dim=(0, 2, 3)) for one in maps]).mean(dim=0)
    torch.testing.assert_close(norm.running_var, expected, rtol=1e-4, atol=1e-6)


def test_every_batch_norm_adapts_and_nothing_else_changes(network: CXRNet) -> None:
    before, momenta = snapshot(network), [one.momentum for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    adapt_batch_norms(network, draw_batches(2))
    assert list_changes(before, snapshot(network)) == {name for name in before if name.endswith(STATISTICS)}
    assert [one.momentum for one in network.modules() if isinstance(one, nn.BatchNorm2d)] == momenta
    assert not any(module.training for module in network.modules())


def test_what_was_estimated_before_is_forgotten(network: CXRNet) -> None:
    adapt_batch_norms(network, draw_batches(2, seed=1))
    adapt_batch_norms(network, draw_batches(2))
    again = snapshot(network)
    other = build_network("none", "imagenet", 8, seed=0).eval()
    adapt_batch_norms(other, draw_batches(2))
    assert list_changes(again, snapshot(other)) == set()


def test_batches_hold_each_row_once_in_an_order_of_the_seed() -> None:
    batches = draw_whole_batches(11, batch_size=4, seed=3)
    assert [len(batch) for batch in batches] == [4, 4]
    assert len({row for batch in batches for row in batch}) == 8
    assert batches == draw_whole_batches(11, batch_size=4, seed=3) != draw_whole_batches(11, batch_size=4, seed=4)
    assert [sorted(batch) for batch in draw_whole_batches(3, batch_size=4, seed=0)] == [[0, 1, 2]]
