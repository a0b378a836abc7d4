"""Our scratch phase against a plain training loop of the same settings, on real images, over several seeds.

The plain loop is what most people write first: DenseNet121 from random weights in fp32, AdamW, one cycle to 1e-3,
batches of 32, random flips, weighted BCE, the best epoch by validation AUROC. Both train on the same split.

    python benchmarks/plain_loop.py --root PATH_OF_NIH_DATA --img-size 128 --epochs 12 --seeds 0 1 2
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models import densenet121

from cxrlit.config import PrepareConfig, read_config
from cxrlit.core.files import write_json
from cxrlit.core.labels import LABELS
from cxrlit.data.dataset import load_data
from cxrlit.data.index import read_targets

REPOSITORY = Path(__file__).resolve().parents[1]
Part = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    """Train both for each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of an NIH data set")
    parser.add_argument("--img-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()

    parts = read_parts(arguments.root, arguments.img_size)
    rows = []
    for seed in arguments.seeds:
        plain, plain_seconds = train_plain(parts, seed, arguments.epochs)
        print(f"seed {seed}: plain loop {plain:.4f} in {plain_seconds:.0f} s", flush=True)
        ours, our_seconds = train_ours(arguments.root, arguments.img_size, seed, arguments.epochs)
        print(f"seed {seed}: cxrlit     {ours:.4f} in {our_seconds:.0f} s", flush=True)
        rows.append({"seed": seed, "plain": plain, "plain_s": plain_seconds, "cxrlit": ours, "cxrlit_s": our_seconds})
    table = pd.DataFrame(rows)
    mean = table.mean()
    print(table.round(4).to_string(index=False))
    print(
        f"mean test macro AUROC: plain {mean['plain']:.4f}, cxrlit {mean['cxrlit']:.4f} "
        f"({mean['cxrlit'] - mean['plain']:+.4f}); time: {mean['plain_s'] / mean['cxrlit_s']:.2f} times as fast"
    )
    if arguments.out:
        write_json(arguments.out, {"settings": vars(arguments) | {"out": None}, "rows": rows})


def read_parts(root: str, img_size: int) -> dict[str, Part]:
    """(N, 3, S, S) float images and (N, 8) targets of each part of the split that cxrlit makes too."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = read_config(compose("prepare", overrides=["data=nih", f"data.root={root}"]), PrepareConfig)
    data = load_data(config.data, LABELS, Path())
    parts = {}
    for part in ("train", "val", "test"):
        index = data.index[data.split["split"] == part]
        images = [
            cv2.resize(np.asarray(Image.open(path).convert("L")), (img_size, img_size), interpolation=cv2.INTER_AREA)
            for path in index["path"]
        ]
        pixels = torch.from_numpy(np.stack(images)).float().div(255).sub(0.449).div(0.226)
        parts[part] = (pixels.unsqueeze(1).expand(-1, 3, -1, -1), torch.tensor(read_targets(index, LABELS)))
    return parts


def train_plain(parts: dict[str, Part], seed: int, epochs: int) -> tuple[float, float]:
    """Test macro AUROC of the epoch that validates best, and the seconds that it all took."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    model = densenet121(weights=None, num_classes=len(LABELS))
    images, targets = parts["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    n_batches = -(-len(images) // 32)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=epochs * n_batches)
    positives = targets.sum(dim=0)
    pos_weight = ((len(targets) - positives) / positives.clamp(min=1)).clamp(max=10)
    best_val, best_test = -1.0, float("nan")
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(images)).split(32):
            batch = images[rows]
            flipped = torch.rand(len(batch)) < 0.5
            batch = torch.where(flipped[:, None, None, None], batch.flip(3), batch)
            loss = binary_cross_entropy_with_logits(model(batch), targets[rows], pos_weight=pos_weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        val = score(model, parts["val"])
        if val > best_val:
            best_val, best_test = val, score(model, parts["test"])
    return best_test, time.perf_counter() - start


def score(model: torch.nn.Module, part: Part) -> float:
    """Macro AUROC of a part, by scikit-learn."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(batch) for batch in part[0].split(32)])
    return float(roc_auc_score(part[1], logits, average="macro"))


def train_ours(root: str, img_size: int, seed: int, epochs: int) -> tuple[float, float]:
    """The same by the command line, in a process of its own; the time includes its start and its evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        command: list[Any] = [
            sys.executable, "train.py", "data=nih", f"data.root={root}", "model.weights=none", "phase=scratch",
            f"img_size={img_size}", f"max_epochs={epochs}", f"seed={seed}", "evaluate=true",
            f"runs_dir={folder}/runs", f"cache_dir={folder}/cache",
        ]  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr)
        (summary,) = Path(folder).glob("runs/default/scratch-*/eval/eval_summary.csv")
        table = pd.read_csv(summary).set_index("split")
        return float(table["auroc_macro"]["test"]), seconds


if __name__ == "__main__":
    main()
