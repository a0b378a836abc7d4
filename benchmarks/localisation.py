"""Heatmaps and their scores against the plain ways, each a ratio within one run, on one core.

- heatmaps of all labels against the forward pass alone, and against the common way, a backward pass through the
  network for each label;
- the largest difference between the two ways' maps;
- seconds for what else a localisation does, at the size of NIH's 984 boxes: scores, priors, intervals; and a picture.

    OMP_NUM_THREADS=1 python benchmarks/localisation.py
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from evaluation import Row, take_turns
from figures import add_options, report
from numpy.typing import NDArray
from torch import Tensor

from cxrlit.core.labels import LABELS
from cxrlit.evaluation.localisation.box_scores import detect, score
from cxrlit.evaluation.localisation.heatmaps import evaluating, make_heatmaps, normalise
from cxrlit.evaluation.localisation.localisation_table import tabulate_localisation
from cxrlit.evaluation.localisation.overlays import Shown, draw_overlays
from cxrlit.evaluation.localisation.priors import score_centre, score_elsewhere, score_random
from cxrlit.evaluation.localisation.shown_images import ShownImage
from cxrlit.model.densenet import CXRNet, build_network

N_BOXES, N_PATIENTS = 984, 726
CELLS = 7


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=4, help="images of a batch")
    add_options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [*measure_heatmaps(arguments.size, arguments.batch), *measure_scores(arguments.size)]
    report("localisation", "make bench-localisation", rows, arguments.keep)


def make_common_maps(network: CXRNet, images: Tensor) -> Tensor:
    """(B, L, h, w) Grad-CAM as it is mostly written: a backward pass through the network for each label."""
    features = network.forward_features(images)
    features.retain_grad()
    logits = network.forward_head(features)
    maps: list[Tensor] = []
    for label in range(logits.shape[1]):
        network.zero_grad()
        features.grad = None
        logits[:, label].sum().backward(retain_graph=True)
        assert features.grad is not None
        weights = features.grad.mean(dim=(2, 3), keepdim=True)
        maps.append(torch.relu((weights * features.detach()).sum(dim=1)))
    network.zero_grad()
    return torch.stack(maps, dim=1)


def measure_heatmaps(size: int, batch: int) -> list[Row]:
    """All labels' maps of a batch."""
    network = build_network("none", "imagenet", len(LABELS), seed=0)
    images = torch.randint(
        0, 256, (batch, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )

    def forward() -> None:
        with torch.no_grad(), evaluating(network):
            network(images)

    def common() -> None:
        with evaluating(network):
            make_common_maps(network, images)

    plain, ours, theirs = take_turns(forward, lambda: make_heatmaps(network, images), common, rounds=3)
    plus = take_turns(lambda: make_heatmaps(network, images, "gradcam++"), rounds=3)[0]
    with evaluating(network):
        wanted = normalise(make_common_maps(network, images))
    difference = float((make_heatmaps(network, images).maps - wanted).abs().max())
    name = f"Grad-CAM of 8 labels, {size} px"
    return [
        {"what": f"{name}, a forward pass alone", "ours": 1000 * ours / batch, "baseline": 1000 * plain / batch,
         "unit": "ms an image", "ratio": plain / ours},
        {"what": f"{name}, a backward pass a label", "ours": 1000 * ours / batch, "baseline": 1000 * theirs / batch,
         "unit": "ms an image", "ratio": theirs / ours},
        {"what": f"{name}: largest difference", "ours": difference},
        {"what": "Grad-CAM++ of the same", "ours": 1000 * plus / batch, "unit": "ms an image"},
    ]  # fmt: skip


def measure_scores(size: int) -> list[Row]:
    """Seconds of the rest."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.7, (N_BOXES, 2))
    boxes = [one[None] for one in size * np.concatenate([low, low + rng.uniform(0.05, 0.3, (N_BOXES, 2))], axis=1)]
    maps = list(rng.random((N_BOXES, CELLS, CELLS), dtype=np.float32))
    patients = np.array([f"{number}" for number in rng.integers(0, N_PATIENTS, N_BOXES)], dtype=object)
    labels = np.array(LABELS, dtype=object)[rng.integers(0, len(LABELS), N_BOXES)]
    pairs = pd.DataFrame({"label": labels, "image": np.arange(N_BOXES), "patient": patients, "n_boxes": 1})
    scores: dict[str, NDArray[np.float64]] = {}

    def score_maps() -> None:
        found = [score(detect([one], size), box, size)[0] for one, box in zip(maps, boxes, strict=True)]
        scores["value"] = np.array(found)

    def score_priors() -> None:
        scores["random"] = score_random(boxes, (CELLS, CELLS), size, seed=0)
        scores["centre"] = score_centre(boxes, size)
        scores["elsewhere"] = np.full_like(scores["centre"], np.nan)
        for label in LABELS:
            rows = np.flatnonzero(labels == label)
            scores["elsewhere"][rows] = score_elsewhere([boxes[row] for row in rows], patients[rows], size)

    steps: dict[str, Any] = {
        "scores of 984 maps": score_maps,
        "scores of the priors": score_priors,
        "2,000 replicates and intervals": lambda: tabulate_localisation(pairs, scores, LABELS),
    }
    pixels = rng.integers(0, 256, (size, size)).astype(np.uint8)
    example = ShownImage("Mass", "true_positive", 1, "a.png", 0.9, 0.5, 1.0)
    shown = {example._replace(rank=rank): Shown(pixels, maps[0], boxes[0]) for rank in range(1, 9)}
    with tempfile.TemporaryDirectory() as folder:
        steps["8 pictures and their sheet"] = lambda: draw_overlays(shown, Path(folder))
        return [{"what": name, "ours": take_turns(step, rounds=1)[0], "unit": "s"} for name, step in steps.items()]


if __name__ == "__main__":
    main()
