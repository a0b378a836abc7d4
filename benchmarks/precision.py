"""bf16 against fp32 in training steps, on this machine: what the rule of ``trainer.precision=auto`` rests on.

Steps of the network, its optimizer and its frozen layers, in fp32 and under bf16 autocast, at several sizes: all layers
training, the last 100, and the head alone. The two take turns.

    python benchmarks/precision.py [--sizes 64 96 224 320] [--batch-size 8] [--rounds 3]
"""

import argparse
import statistics
import time
from typing import Any

import torch
from figures import add_options, report
from torch.nn.functional import binary_cross_entropy_with_logits

from cxrlit.config import N_LAYERS, Precision
from cxrlit.model.densenet import CXRNet, build_network, unfreeze_last
from cxrlit.training.hardware import AUTOCAST, choose_device

LAYERS = {"all layers": N_LAYERS, "last 100 layers": 100, "head alone": 0}
PRECISIONS: tuple[Precision, Precision] = ("bf16", "fp32")


def main() -> None:
    """Measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 224, 320])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    add_options(parser)
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        images = torch.randint(0, 256, (arguments.batch_size, 1, size, size), dtype=torch.uint8)
        for name, n_unfreeze in LAYERS.items():
            ours, baseline = measure(n_unfreeze, images, arguments.rounds)
            rows.append(
                {"what": f"bf16 against fp32, {size} px, {name}", "ours": ours, "baseline": baseline,
                 "unit": "images/s", "ratio": ours / baseline}
            )  # fmt: skip
            print(rows[-1], flush=True)
    report("precision", "python benchmarks/precision.py", rows, arguments.keep)


def measure(n_unfreeze: int, images: torch.Tensor, rounds: int) -> list[float]:
    """Images a second in bf16 and in fp32."""
    device = choose_device("auto")
    network = build_network("none", "imagenet", 8, seed=0).to(device)
    unfreeze_last(network, n_unfreeze)
    network.train(n_unfreeze == N_LAYERS)
    optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad])
    images = images.to(device)
    seconds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for number in range(rounds + 1):
        for name in PRECISIONS:
            start = time.perf_counter()
            step(network, optimizer, images, name)
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return [len(images) / statistics.median(values) for values in seconds.values()]


def step(network: CXRNet, optimizer: Any, images: torch.Tensor, precision: Precision) -> None:
    """One optimizer step."""
    with torch.autocast(images.device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        logits = network(images)
    loss = binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    loss.item()  # waits for the device


if __name__ == "__main__":
    main()
