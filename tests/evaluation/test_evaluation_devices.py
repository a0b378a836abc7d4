"""Where checkpoints predict: on a CPU or a GPU, with as many images at once as its memory has room for."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lab import QUICK, evaluate
from tiny import run_command

from cxrlit.model.densenet import CXRNet

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")


def read_probs(folder: Path) -> np.ndarray:
    table = pd.concat(pd.read_csv(folder / f"predictions_{part}.csv") for part in ("val", "test"))
    return table.filter(regex="^prob_").to_numpy()


def test_a_device_without_memory_for_a_batch_predicts_its_halves(
    frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = CXRNet.forward_features, list[int]()

    def compute(network: CXRNet, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(images))
        return whole(network, images)

    monkeypatch.setattr(CXRNet, "forward_features", compute)
    outcome = evaluate(frozen, tmp_path / "out", "trainer.accelerator=cpu")
    assert max(seen) <= 3
    assert re.search(r"no memory for \d images at once: going on with [23] images", outcome.out)
    np.testing.assert_allclose(read_probs(tmp_path / "out"), read_probs(frozen / "eval"), atol=1e-6, rtol=0)


def test_a_batch_size_that_is_set_is_taken(frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, seen = CXRNet.forward, set[int]()

    def compute(network: CXRNet, images: torch.Tensor) -> torch.Tensor:
        seen.add(len(images))
        return whole(network, images)

    monkeypatch.setattr(CXRNet, "forward", compute)
    evaluate(frozen, tmp_path / "out", "trainer.batch_size=5", "trainer.accelerator=cpu")
    assert max(seen) == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_gpu_that_is_not_there_is_one_line(frozen: Path, tmp_path: Path) -> None:
    outcome = run_command("evaluate.py", f"ckpt={frozen}", f"out={tmp_path}", *QUICK, "trainer.accelerator=cuda")
    assert outcome.code == 2
    assert outcome.err == "error: trainer.accelerator=cuda: this machine has none; auto takes what is there\n"


@on_a_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_predicts_what_a_cpu_does(frozen: Path, tmp_path: Path, precision: str) -> None:
    outcome = evaluate(frozen, tmp_path / "gpu", "trainer.accelerator=cuda", f"trainer.precision={precision}")
    assert "at once on each GPU" in outcome.out
    evaluate(frozen, tmp_path / "cpu", "trainer.accelerator=cpu")
    differences = np.abs(read_probs(tmp_path / "gpu") - read_probs(tmp_path / "cpu"))
    assert differences.max() < 1e-5 if precision == "fp32" else differences.mean() < 2e-3
