"""The whole recipe against the plain script of ``plain.py``: time and test AUROC, on real images.

Frozen, finetune and highres after the same scratch phase, three times for each seed: the plain script, ours, and ours
with cached features. Each is a process of its own, timed with its start and with the preparing of its images; all three
predictions are evaluated in the same way. Then the time of a frozen epoch on cached features, from the second one on.

    python benchmarks/recipe.py --root PATH_OF_NIH_DATA [--patients 200] [--seeds 0 1 2]
"""

import argparse
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from figures import add_options, report
from torchvision.models import densenet121

from cxrlit.model.checkpoint import find_checkpoint, read_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
PHASES = ("frozen", "finetune", "highres")
LAYERS = {"frozen": 0, "finetune": 100, "highres": 50}
BATCHES = {"frozen": 32, "finetune": 32, "highres": 16}
RATES = {"frozen": 1e-3, "finetune": 1e-4, "highres": 1e-5}


def main() -> None:
    """Measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of an NIH data set")
    parser.add_argument("--patients", type=int, help="take the images of so many patients of the label table alone")
    parser.add_argument("--sizes", type=int, nargs=2, default=[224, 320], help="px of frozen and finetune, of highres")
    parser.add_argument("--epochs", type=int, nargs=3, default=[5, 5, 2], help="of frozen, finetune and highres")
    parser.add_argument("--scratch-epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--name", default="recipe", help="of the file of figures: one for each choice of settings kept")
    add_options(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = Bench(Path(folder), arguments).measure()
    options = [word if word != str(arguments.root) else "PATH" for word in sys.argv[1:] if word != "--keep"]
    report(arguments.name, " ".join(["python benchmarks/recipe.py", *options]), rows, arguments.keep)


class Score(NamedTuple):
    """Test macro AUROC and its 95 % interval."""

    auroc: float
    low: float
    high: float

    def describe(self) -> str:
        """Number and interval."""
        known = f"[{self.low:.3f}, {self.high:.3f}]" if not math.isnan(self.low) else "(no interval)"
        return f"{self.auroc:.3f} {known}"


class Timed(NamedTuple):
    """A whole recipe."""

    seconds: float
    score: Score


class Bench:
    """The programs, on one split and from one scratch phase."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        self.root = arguments.root.resolve()
        if arguments.patients:
            self.root = take_patients(self.root, folder / "nih", arguments.patients)
        small, large = arguments.sizes
        self.sizes = {"frozen": small, "finetune": small, "highres": large}
        self.epochs = dict(zip(PHASES, arguments.epochs, strict=True))
        self.weights = folder / "scratch.pth"

    def measure(self) -> list[dict[str, Any]]:
        """A row for each program and seed, and one for the frozen epoch."""
        scratch = self.run_ours(
            "scratch", "phase=scratch", "model.weights=none", f"max_epochs={self.arguments.scratch_epochs}",
            f"img_size={self.sizes['frozen']}",
        )[0]  # fmt: skip
        save_for_torchvision(scratch, self.weights)
        rows: list[dict[str, Any]] = []
        scores: dict[str, list[float]] = {}
        for seed in self.arguments.seeds:
            plain, epochs = self.run_plain(scratch / "split.csv", seed)
            scores.setdefault("plain", []).append(plain.score.auroc)
            for name, cached in (("cxrlit", "false"), ("cxrlit, cached features", "true")):
                folder, seconds = self.run_ours(f"{seed}-{cached}", *self.list_recipe(seed, cached))
                print(f"{name}, seed {seed}: {seconds:.0f} s", flush=True)
                ours = self.evaluate(f"ckpt={folder}")
                scores.setdefault(name, []).append(ours.auroc)
                rows.append(
                    {"what": f"whole recipe, {name}, seed {seed}", "ours": seconds, "baseline": plain.seconds,
                     "unit": "s", "ratio": plain.seconds / seconds}
                )  # fmt: skip
                said = f"its test macro AUROC {ours.describe()}, plain {plain.score.describe()}"
                rows.append({"what": said, "ours": ours.auroc, "baseline": plain.score.auroc})
        means = {name: statistics.fmean(values) for name, values in scores.items()}
        theirs = means.pop("plain")
        if len(self.arguments.seeds) > 1:
            said = f"mean test macro AUROC of {len(self.arguments.seeds)} seeds"
            rows += [{"what": f"{said}, {name}", "ours": mean, "baseline": theirs} for name, mean in means.items()]
        ours_s, theirs_s = self.time_frozen_epoch(), min(epochs[: self.epochs["frozen"]])
        rows.append(
            {"what": "frozen epoch on cached features, from the second on", "ours": ours_s, "baseline": theirs_s,
             "unit": "s", "ratio": theirs_s / ours_s, "wanted": ">= 50" if self.sizes["frozen"] >= 224 else ""}
        )  # fmt: skip
        return rows

    def list_recipe(self, seed: int, cached: str) -> list[str]:
        """The command line of the recipe."""
        settings = [
            f"phases.{phase}.{key}"
            for phase in PHASES
            for key in (f"img_size={self.sizes[phase]}", f"max_epochs={self.epochs[phase]}", f"lr={RATES[phase]:g}")
        ]
        return ["phase=highres", f"seed={seed}", f"model.weights={self.weights}", f"cache_features={cached}", *settings]

    def run_plain(self, split: Path, seed: int) -> tuple[Timed, list[float]]:
        """Seconds and score of the plain script, and the seconds of its epochs."""
        out = self.folder / f"plain-{seed}"
        phases = [describe_phase(name, self.sizes[name], self.epochs[name]) for name in PHASES]
        start = time.perf_counter()
        run(
            "benchmarks/plain.py", "--root", self.root, "--split", split, "--weights", self.weights, "--out", out,
            "--seed", seed, "--phases", *phases,
        )  # fmt: skip
        figures = json.loads((out / "figures.json").read_text())
        seconds = time.perf_counter() - start - figures["predicting"]  # ours trains alone
        print(f"plain script, seed {seed}: {seconds:.0f} s", flush=True)
        predictions = out / f"predictions-{len(PHASES)}.csv"
        score = self.evaluate(f"predictions={predictions}", f"out={out / 'eval'}", out=out / "eval")
        return Timed(seconds, score), figures["epochs"]

    def run_ours(self, name: str, *settings: str) -> tuple[Path, float]:
        """The goal's folder, and the seconds of the command; nothing is prepared for it."""
        places = [f"runs_dir={self.folder / name}", f"cache_dir={self.folder / name / 'cache'}"]
        start = time.perf_counter()
        printed = run(
            "train.py", "data=nih", f"data.root={self.root}", "callbacks.early_stopping=null", *places, *settings
        )
        seconds = time.perf_counter() - start
        [folder] = re.findall(r"^Trained: (\S+)", printed, re.MULTILINE)
        return (REPOSITORY / folder), seconds

    def evaluate(self, *settings: str, out: Path | None = None) -> Score:
        """Test macro AUROC and its interval."""
        run("evaluate.py", *settings, "report=false", "localise=none", "subgroups=[]")
        folder = out or Path(settings[0].removeprefix("ckpt=")) / "eval"
        row: Any = pd.read_csv(folder / "eval_summary.csv").set_index("split").loc["test"]
        return Score(*(float(row[f"auroc_macro{end}"]) for end in ("", "_low", "_high")))

    def time_frozen_epoch(self) -> float:
        """Seconds of a frozen epoch whose features are there: of twenty more of them, one."""
        settings = [f"model.weights={self.weights}", f"img_size={self.sizes['frozen']}", "cache_features=true"]
        seconds = [
            self.run_ours("frozen", "phase=frozen", f"max_epochs={epochs}", *settings)[1] for epochs in (2, 3, 23)
        ]
        return (seconds[2] - seconds[1]) / 20


def run(script: str, *arguments: Any) -> str:
    """What a script of the repository prints."""
    command = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def describe_phase(name: str, img_size: int, n_epochs: int) -> str:
    """A phase as ``plain.py`` takes it."""
    return f"{img_size}:{BATCHES[name]}:{LAYERS[name]}:{RATES[name]:g}:{n_epochs}"


def take_patients(root: Path, folder: Path, n_patients: int) -> Path:
    """The same layout with the images of a few patients."""
    table = pd.read_csv(root / "Data_Entry_2017_v2020.csv", dtype=str, index_col=False)
    chosen = table["Patient ID"].drop_duplicates().sample(n_patients, random_state=0)
    table = table[table["Patient ID"].isin(chosen)]
    (folder / "images").mkdir(parents=True)
    paths = {path.name: path for path in root.rglob("*.png")}
    for name in table["Image Index"]:
        shutil.copy(paths[name], folder / "images" / name)  # a link to another folder is refused
    table.to_csv(folder / "Data_Entry_2017_v2020.csv", index=False)
    for name in ("train_val_list.txt", "test_list.txt"):
        (folder / name).write_text((root / name).read_text())
    return folder


def save_for_torchvision(phase: Path, path: Path, with_head: bool = False) -> None:
    """A phase's best checkpoint as a state dict of torchvision's densenet121; without its head, with any of 1,000."""
    weights = read_checkpoint(find_checkpoint(phase)).weights
    state = densenet121(weights=None).state_dict()
    for name in state:
        if name.startswith("features."):
            state[name] = weights[name]
        elif with_head:
            state[name] = weights[name.replace("classifier", "head")]
    torch.save(state, path)


if __name__ == "__main__":
    main()
