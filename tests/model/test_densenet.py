"""Layers as Keras counts them, what of them trains, and that the network is torchvision's."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torchvision.models import densenet121

from cxrlit.config import N_LAYERS
from cxrlit.core.labels import LABELS
from cxrlit.model.densenet import IMAGES_A_THREAD, NORMALIZE, CXRNet, build_network, list_layers, unfreeze_last
from cxrlit.training.callbacks import FreezeBatchNorm

# Read off Keras 3: DenseNet121(include_top=False), the last n layers trainable.
KERAS = {
    0: (0, 0),
    10: (163_840, 168_128),
    25: (516_096, 524_672),
    50: (1_060_864, 1_075_648),
    100: (1_921_024, 1_948_608),
    200: (4_349_952, 4_403_584),
    427: (6_870_208, 6_953_856),
}
HEAD = len(LABELS) * 1024 + len(LABELS)


@pytest.fixture(scope="module")
def network() -> CXRNet:
    return build_network("none", "imagenet", len(LABELS), seed=0)


def name_trainable(network: CXRNet) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def count_trainable(network: CXRNet) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(("n_unfreeze", "counts"), KERAS.items())
@pytest.mark.parametrize("freeze_bn", [True, False])
def test_as_many_weights_train_as_in_keras(
    network: CXRNet, n_unfreeze: int, counts: tuple[int, int], freeze_bn: bool
) -> None:
    unfreeze_last(network, n_unfreeze)
    FreezeBatchNorm("frozen" if freeze_bn else "train").freeze(network)
    assert count_trainable(network) == counts[not freeze_bn] + HEAD


def test_layers_are_counted_as_in_keras(network: CXRNet) -> None:
    names = [name for name, _ in list_layers(network)]
    assert len(names) == len(set(names)) == N_LAYERS == 427
    modules = [module for _, module in list_layers(network) if module is not None]
    held = [module for module in network.features.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    assert modules == held  # every one, once, in the order of the forward pass


def last_modules() -> Iterator[str]:
    """What each of the last layers adds, written down from the architecture: '' where it has no weights."""
    yield from ("", "norm5")
    for number in (16, 15):
        dense = f"denseblock4.denselayer{number}"
        yield from ("", f"{dense}.conv2", "", f"{dense}.norm2", f"{dense}.conv1", "", f"{dense}.norm1")


def test_a_cut_inside_a_dense_layer_unfreezes_what_comes_after_it(network: CXRNet) -> None:
    expected: set[str] = set()
    for n_unfreeze, module in enumerate(last_modules(), start=1):
        expected |= {module} - {""}
        unfreeze_last(network, n_unfreeze)
        names = {name.removeprefix("features.").rpartition(".")[0] for name in name_trainable(network)}
        assert names == expected | {"head"}, n_unfreeze


@pytest.mark.parametrize("freeze_bn", [True, False])
def test_more_layers_train_all_that_fewer_do(network: CXRNet, freeze_bn: bool) -> None:
    before: set[str] = set()
    for n_unfreeze in range(N_LAYERS + 1):
        unfreeze_last(network, n_unfreeze)
        FreezeBatchNorm("frozen" if freeze_bn else "train").freeze(network)
        names = name_trainable(network)
        assert before <= names
        assert {"head.weight", "head.bias"} <= names
        assert not freeze_bn or not [name for name in names if "norm" in name]
        before = names
    if not freeze_bn:
        assert before == {name for name, _ in network.named_parameters()}


def test_batch_norms_that_train_are_those_whose_weights_train(network: CXRNet) -> None:
    for n_unfreeze in range(0, N_LAYERS + 1, 7):
        network.train()
        unfreeze_last(network, n_unfreeze)
        FreezeBatchNorm("train").set_modes(network)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert [norm.training for norm in norms] == [norm.weight.requires_grad for norm in norms]
        FreezeBatchNorm("frozen").freeze(network)
        FreezeBatchNorm("frozen").set_modes(network)
        assert not any(norm.training for norm in norms)


@pytest.mark.parametrize("n_unfreeze", [-1, N_LAYERS + 1])
def test_a_number_of_layers_out_of_range_is_refused(network: CXRNet, n_unfreeze: int) -> None:
    with pytest.raises(ValueError, match="0 to 427"):
        unfreeze_last(network, n_unfreeze)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_logits_are_those_of_torchvision(normalize: str) -> None:
    torch.manual_seed(3)
    network = build_network("none", normalize, len(LABELS), seed=1)
    for norm in network.modules():  # statistics that are not 0 and 1
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(network.head.bias)
    reference = densenet121(weights=None, num_classes=len(LABELS))
    state = {name.replace("head.", "classifier."): tensor for name, tensor in network.state_dict().items()}
    reference.load_state_dict(state)
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALIZE[normalize])
    with torch.inference_mode():
        expected = reference.eval()((torch.cat([images] * 3, dim=1).float() / 255 - mean) / std)
        logits = network.eval()(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_images", [0, 1, 9])
def test_what_is_frozen_is_computed_a_few_images_at_a_time(network: CXRNet, n_images: int) -> None:
    images = torch.randint(0, 256, (n_images, 1, 64, 64), dtype=torch.uint8)
    network.eval()
    with patch.object(network, "_forward_frozen_few", wraps=network._forward_frozen_few) as few:
        [made] = network.forward_frozen(images, [20])
    numbers = [len(call.args[0]) for call in few.call_args_list]
    assert sum(numbers) == n_images
    assert max(numbers) == min(n_images, IMAGES_A_THREAD * torch.get_num_threads())
    with torch.no_grad():
        torch.testing.assert_close(made, network._forward_frozen_few(images, [20])[0], rtol=0, atol=1e-4)


def test_logits_are_float32_under_autocast(network: CXRNet) -> None:
    images = torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = network.eval()(images)
    assert logits.dtype == torch.float32
    assert logits.shape == (1, len(LABELS))


def test_the_same_seed_builds_the_same_network_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second, other = (build_network("none", "imagenet", len(LABELS), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    for (name, one), two in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(first.features.conv0.weight, other.features.conv0.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
