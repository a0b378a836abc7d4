"""From one common start, over folds: ours against the plain script of ``plain.py``, and the choices of ``batch_norm``.

In each fold a scratch phase is the start. Without ``--batch-norm`` the plain script and ours continue from it with
finetune at the small size and highres at the large one, and both are compared after each, on the images that no
fold has trained on. Ours after highres is what the program hands on: where highres is rejected, the phase before at its
own size. It fails where ours is worse: the interval of the mean difference of test macro AUROC is below 0, or the mean
below -0.02. With ``--batch-norm`` highres begins at ours after finetune, once with each ``batch_norm``.

Each step keeps its result in the work folder, so the same command resumes after an interruption.

    python benchmarks/folds.py --root PATH_OF_NIH_DATA [--folds 0 1 2 3 4] [--work cache/folds]
    python benchmarks/folds.py --batch-norm [--root PATH_OF_NIH_DATA]      without a root: on the synthetic set
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from figures import add_options, report
from recipe import describe_phase, run, save_for_torchvision, take_patients

from cxrlit.config import EvaluateConfig, TrainConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.evaluation.predict import predict_parts
from cxrlit.evaluation.predictions import list_labels, write_predictions
from cxrlit.evaluation.validation.internal import load_internal
from cxrlit.metrics.bootstrap import Replicates, bootstrap
from cxrlit.metrics.intervals import interval_of_change
from cxrlit.model.checkpoint import find_checkpoint, read_checkpoint
from cxrlit.training.chain import train
from cxrlit.training.phase_folder import REJECTED, find_own_best

CHOICES = ("frozen", "affine", "adapt", "train")
LEAST = -0.02
"""The mean difference of macro AUROC from the plain script at which ours is worse, whatever the interval."""


def main() -> None:
    """Measure, print the table, and fail where ours is worse than the plain script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of an NIH data set; without it the synthetic set")
    parser.add_argument("--patients", type=int, help="take the images of so many patients of the label table alone")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of five; each is a seed, too")
    parser.add_argument("--sizes", type=int, nargs=2, default=[96, 160], help="px of finetune, of highres")
    parser.add_argument("--start-size", type=int, help="px of scratch, if not that of finetune")
    parser.add_argument("--epochs", type=int, nargs=3, default=[8, 5, 2], help="of scratch, finetune and highres")
    parser.add_argument("--batch-norm", nargs="*", choices=CHOICES, help="compare these in highres; none named: all")
    parser.add_argument("--work", type=Path, default=Path("cache/folds"), help="folder of what the steps have found")
    parser.add_argument("--name", help="of the file of figures: one for each choice of settings kept")
    add_options(parser)
    arguments = parser.parse_args()
    bench = Bench(arguments)
    if arguments.batch_norm is None:
        if arguments.root is None:
            parser.error("the plain script reads NIH's data: --root is needed")
        (rows, worse), name = bench.compare_with_plain(), "folds"
    else:
        rows, worse, name = bench.compare_batch_norms(arguments.batch_norm or CHOICES), [], "batch-norm"
    places = {str(arguments.root): "PATH", str(arguments.work): "FOLDER"}
    options = [places.get(word, word) for word in sys.argv[1:] if word != "--keep"]
    report(arguments.name or name, " ".join(["python benchmarks/folds.py", *options]), rows, arguments.keep)
    if worse:
        raise SystemExit(f"worse than the plain script: {', '.join(worse)}")


class Ours(NamedTuple):
    """Test predictions of a fold after a highres phase: of its own best epoch, and of what it hands on."""

    own: pd.DataFrame
    handed_on: pd.DataFrame
    is_rejected: bool


class Bench:
    """The steps, each done once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work = arguments.work.resolve()
        self.cache = self.work / "cache"
        self.folds, (self.small, self.large) = arguments.folds, arguments.sizes
        self.start_size = arguments.start_size or self.small
        self.epochs = dict(zip(("scratch", "finetune", "highres"), arguments.epochs, strict=True))
        self.root = arguments.root and arguments.root.resolve()
        if self.root and arguments.patients:
            folder = self.work / f"nih-{arguments.patients}"
            self.root = folder if folder.is_dir() else take_patients(self.root, folder, arguments.patients)

    def compare_with_plain(self) -> tuple[list[dict[str, Any]], list[str]]:
        """A row after each phase, and the phases after which ours is worse."""
        after: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]] = {"finetune": [], "highres": []}
        n_rejected = 0
        for fold in self.folds:
            finetune, plain = self.finetune(fold), self.run_plain(fold)
            ours = self.run_highres(fold)
            n_rejected += ours.is_rejected
            after["finetune"].append((plain[0], self.predict(find_checkpoint(finetune))))
            after["highres"].append((plain[1], ours.handed_on))
        rows, worse = [], []
        for (phase, pairs), size in zip(after.items(), (self.small, self.large), strict=True):
            theirs, mine = (resample(tables) for tables in zip(*pairs, strict=True))
            mean, low, high = compare(theirs, mine)
            is_met = high >= 0 and mean >= LEAST
            worse += [] if is_met else [phase]
            rejected = f", rejected in {n_rejected}" if phase == "highres" else ""
            rows.append(
                {"what": f"after {phase} at {size} px ({self.count_folds()}{rejected}): test macro AUROC, "
                 f"{describe(mean, low, high)}", "ours": mine.estimate[0], "baseline": theirs.estimate[0],
                 "wanted": f"mean >= {LEAST:g}, upper limit >= 0: {'met' if is_met else 'not met'}"}
            )  # fmt: skip
        return rows, worse

    def compare_batch_norms(self, choices: Sequence[str]) -> list[dict[str, Any]]:
        """Two rows for each choice: its own best epoch, and what the program hands on, against the finetune before."""
        before = resample([self.predict(find_checkpoint(self.finetune(fold))) for fold in self.folds])
        rows, frozen = [], None
        for choice in choices:
            found = [self.run_highres(fold, choice) for fold in self.folds]
            own, handed_on = (resample([getattr(ours, kind) for ours in found]) for kind in ("own", "handed_on"))
            frozen = own if choice == "frozen" else frozen
            against = f", from frozen {describe(*compare(frozen, own))}" if frozen and choice != "frozen" else ""
            n_rejected = sum(ours.is_rejected for ours in found)
            for kind, after, more in (
                (f"highres with {choice} at {self.large} px", own, against),
                (f"the same, handed on ({n_rejected} of {self.count_folds()} rejected)", handed_on, ""),
            ):
                said = f"{kind}: from finetune {describe(*compare(before, after))}{more}"
                rows.append({"what": said, "ours": after.estimate[0], "baseline": before.estimate[0]})
        return rows

    def count_folds(self) -> str:
        """How many."""
        return f"{len(self.folds)} fold{'s' if len(self.folds) > 1 else ''}"

    def start(self, fold: int) -> Path:
        """The scratch phase that all start from."""
        return self.train(fold, "scratch", self.start_size, "model.weights=none")

    def finetune(self, fold: int) -> Path:
        """Ours after finetune."""
        return self.train(fold, "finetune", self.small, f"init_from={self.start(fold)}")

    def run_highres(self, fold: int, choice: str = "") -> Ours:
        """Ours after highres, with the default ``batch_norm`` or another."""
        finetune = self.finetune(fold)
        settings = [f"batch_norm={choice}"] if choice else []
        folder = self.train(fold, "highres", self.large, f"init_from={finetune}", *settings)
        path = find_own_best(folder)
        own, is_rejected = self.predict(path), path.name == REJECTED
        return Ours(own, self.predict(find_checkpoint(finetune)) if is_rejected else own, is_rejected)

    def train(self, fold: int, phase: str, img_size: int, *settings: str) -> Path:
        """The folder of a phase."""
        data = ["data=nih", f"data.root={self.root}"] if self.root else ["data=synthetic"]
        chosen = [
            *data, f"data.fold={fold}", f"seed={fold}", f"runs_dir={self.work / 'runs'}", f"cache_dir={self.cache}",
            f"phase={phase}", f"img_size={img_size}", f"max_epochs={self.epochs[phase]}",
            "callbacks.early_stopping=null", *settings,
        ]  # fmt: skip
        return train(compose_defaults("train", TrainConfig, {}, chosen)).folder

    def run_plain(self, fold: int) -> list[pd.DataFrame]:
        """Test predictions of the plain script after finetune and after highres."""
        start = self.start(fold)
        phases = [
            describe_phase(phase, size, self.epochs[phase])
            for phase, size in (("finetune", self.small), ("highres", self.large))
        ]
        weights, out = start / "torchvision.pth", start / f"plain-{'-'.join(phases)}".replace(":", "_")
        if not (out / "figures.json").is_file():
            save_for_torchvision(start, weights, with_head=True)
            print(f"The plain script in fold {fold}", flush=True)
            run(
                "benchmarks/plain.py", "--root", self.root, "--split", start / "split.csv", "--weights", weights,
                "--out", out, "--seed", fold, "--phases", *phases,
            )  # fmt: skip
        tables = [pd.read_csv(out / f"predictions-{number}.csv") for number in (1, 2)]
        return [table[table["split"] == "test"] for table in tables]

    def predict(self, path: Path) -> pd.DataFrame:
        """Test predictions of a checkpoint of ours."""
        table = path.with_name(f"test-{path.stem}.csv")
        if not table.is_file():
            settings = {"ckpt": [str(path)], "cache_dir": str(self.cache)}
            config, checkpoint = compose_defaults("evaluate", EvaluateConfig, settings), read_checkpoint(path)
            data = load_internal([checkpoint], config)
            write_predictions(table, predict_parts([checkpoint], data, ("test",), config)[0]["test"])
        return pd.read_csv(table)


def resample(tables: Sequence[pd.DataFrame]) -> Replicates:
    """Macro AUROC, the mean over folds, and the same of resampled patients.

    A label of a fold is a column of its own, whose targets are unknown in other folds. Those without both classes there
    are left out.
    """
    labels = list_labels(tables[0])
    n_images, n_columns = sum(map(len, tables)), len(labels) * len(tables)
    scores, targets = np.zeros((n_images, n_columns)), np.full((n_images, n_columns), np.nan)
    row = 0
    for fold, table in enumerate(tables):
        place = slice(row, row := row + len(table)), slice(fold * len(labels), (fold + 1) * len(labels))
        scores[place] = table[[f"prob_{label}" for label in labels]]
        targets[place] = table[[f"target_{label}" for label in labels]]
    patients = np.concatenate([table["patient"].astype(str) for table in tables])
    return bootstrap(["auroc"], scores, targets, patients)["auroc"].macro()


def compare(before: Replicates, after: Replicates) -> tuple[float, float, float]:
    """The mean difference and its paired interval over patients."""
    change = after.minus(before)
    low, high, *_ = interval_of_change(change)
    return float(change.estimate[0]), float(low[0]), float(high[0])


def describe(mean: float, low: float, high: float) -> str:
    """A difference and its interval."""
    return f"{mean:+.3f} " + ("(no interval)" if np.isnan(low) else f"[{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
