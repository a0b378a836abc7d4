"""bf16 and fp32 on the same weights."""

import numpy as np
import pytest
import torch

from cxrlit.core.labels import LABELS
from cxrlit.metrics.auroc import auroc
from cxrlit.model.densenet import build_network
from cxrlit.model.module import to_probs
from cxrlit.training.hardware import choose_precision


@pytest.mark.slow
def test_the_auroc_in_bf16_is_that_in_fp32() -> None:
    if choose_precision("auto", "cpu") != "bf16":
        pytest.skip("this CPU has no bf16, and emulates it hundreds of times slower")
    rng = np.random.default_rng(0)
    network = build_network("none", "imagenet", len(LABELS), seed=0).eval()
    shades = rng.normal(0, 20, (1024, 1, 1, 1))
    images = np.clip(128 + shades + rng.normal(0, 40, (1024, 1, 64, 64)), 0, 255).astype(np.uint8)
    targets = (shades[:, 0, 0] + rng.normal(0, 20, (1024, len(LABELS))) > 0).astype(np.float32)
    scores = []
    for in_bf16 in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            probs = torch.cat([to_probs(network(part)) for part in torch.from_numpy(images).split(64)]).numpy()
        scores.append([auroc(probs[:, label], targets[:, label]) for label in range(len(LABELS))])
    assert np.abs(np.subtract(*scores)).max() < 0.001
