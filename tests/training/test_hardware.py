"""What of a machine may change a result: the precision."""

import pytest
import torch
from lab import Lab, pretend_bf16

from cxrlit.config import Precision
from cxrlit.core import instruction_sets
from cxrlit.training.hardware import choose_precision


def test_precision_that_is_named_is_taken() -> None:
    assert choose_precision("fp32", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"


def test_fp16_is_for_gpus(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    outcome = lab.train("trainer.precision=fp16", "trainer.accelerator=cpu")
    assert outcome.code == 2
    assert outcome.err == (
        "error: trainer.precision=fp16: it needs a CUDA GPU, and this trains on cpu: take precision=auto or fp32\n"
    )
    assert not lab.runs.exists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_precision("fp16", "auto") == "fp16"


@pytest.mark.parametrize(("is_supported", "precision"), [(False, "fp32"), (True, "bf16")])
def test_auto_is_bf16_on_a_cpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, is_supported: bool, precision: Precision
) -> None:
    pretend_bf16(monkeypatch, is_supported)
    assert choose_precision("auto", "cpu") == precision
    monkeypatch.setattr(instruction_sets, "find_instruction_sets", lambda: ("AMX-BF16",))
    assert choose_precision("auto", "cpu") == "bf16"


@pytest.mark.parametrize(("is_supported", "precision"), [(False, "fp32"), (True, "bf16")])
@pytest.mark.parametrize("accelerator", ["auto", "cuda"])
def test_auto_is_bf16_on_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, is_supported: bool, precision: Precision
) -> None:
    pretend_bf16(monkeypatch, not is_supported)  # the CPU does not matter
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: is_supported)
    assert choose_precision("auto", accelerator) == precision
