"""Test-time augmentation: the same views of arrays and of tensors, and the size that they are cut from."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from cxrlit.commands.cli import main
from cxrlit.config import TTA
from cxrlit.data.store.manifest import list_sizes
from cxrlit.data.tta import N_VIEWS, VIEWS, average_logits, choose_side, cut_views


@pytest.mark.parametrize("tta", get_args(TTA))
@pytest.mark.parametrize("size", [32, 33, 320])
def test_views_of_arrays_and_tensors_are_the_same(tta: TTA, size: int) -> None:
    side = choose_side(size, tta)
    images = np.random.default_rng(0).integers(0, 256, (2, side, side), dtype=np.uint8)
    arrays, tensors = cut_views(images, size, tta), cut_views(torch.from_numpy(images), size, tta)
    assert len(arrays) == len(tensors) == N_VIEWS[tta]
    for array, tensor in zip(arrays, tensors, strict=True):
        assert array.shape == (2, size, size)
        np.testing.assert_array_equal(array, tensor.numpy())
    assert len({array.tobytes() for array in arrays}) == N_VIEWS[tta]
    assert set(VIEWS) == set(N_VIEWS) == set(get_args(TTA))


def test_the_mean_is_of_probs_or_of_logits() -> None:
    logits = np.array([[[0.0, 100.0]], [[2.0, -100.0]]], np.float32)
    np.testing.assert_allclose(average_logits(logits, "probs"), [[0.690399, 0.5]], atol=1e-6)
    np.testing.assert_allclose(average_logits(logits, "logits"), [[0.731059, 0.5]], atol=1e-6)
    assert average_logits(logits, "probs").dtype == np.float32


def test_prepare_makes_the_size_that_crops_are_cut_from(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["prepare", "data=nih", f"data.root={tree}", f"cache_dir={tmp_path}", "sizes=[32]"]
    main([*command, "tta=crops"])
    assert "at 32, 37 px" in " ".join(capsys.readouterr().out.split())
    [store] = (tmp_path / "store").glob("nih-*")
    assert list_sizes(store) == [32, 37]
