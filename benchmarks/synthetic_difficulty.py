"""How hard the synthetic data set is, and what a split by image would pretend.

Logistic regression on 32 x 32 pixels sees how bright the image is where. On the official split it stays at or below
a macro AUROC of 0.70, so that a network that goes well beyond has learned to see. Split by image instead of by
patient it looks better, because it recognises patients: the inflation is printed in standard deviations.

    python benchmarks/synthetic_difficulty.py --out benchmarks/synthetic_difficulty.json
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cxrlit.core.labels import LABELS
from cxrlit.data.image_files import DiskFiles
from cxrlit.data.index import read_targets
from cxrlit.data.sources.nih import read_nih
from cxrlit.data.synthetic.drawn_set import SYNTHETIC_VERSION, TEST_FRACTION, write_synthetic

SIDE_PX = 32
GRID = (1e-4, 1e-3, 1e-2, 1e-1)  # of C, the inverse strength of the regularisation
N_VAL_SPLITS = 3  # of the training patients, to choose C: one is noisier than the choice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="drawn there if it is not there yet; a temporary folder by default")
    parser.add_argument("--n-patients", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the data set")
    parser.add_argument("--n-splits", type=int, default=10, help="random splits of each kind")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    # An optimum that is a little off costs nothing here.
    warnings.filterwarnings("ignore", category=ConvergenceWarning)

    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.root or Path(scratch) / "synthetic"
        if not root.exists():
            write_synthetic(root, n_patients=arguments.n_patients, seed=arguments.seed)
        pixels, targets, patients, is_test = read_data(root)
    numbers = measure(pixels, targets, patients, is_test, arguments.n_splits)
    numbers = {"synthetic_version": SYNTHETIC_VERSION, "seed": arguments.seed, **numbers}

    by_patient, by_image = numbers["split_by_patient"], numbers["split_by_image"]
    print(f"{numbers['n_images']} images of {numbers['n_patients']} patients, {numbers['n_test']} in the test list")
    print(f"official split: macro AUROC {numbers['official']['macro']:.3f}, C = {numbers['C']:g}")
    for label in LABELS:
        print(f"    {label:13s} {numbers['official'][label]:.3f}")
    for name, split in (("by patient", by_patient), ("by image", by_image)):
        print(f"{arguments.n_splits} random splits {name}: {split['mean']:.3f}, standard deviation {split['std']:.3f}")
    print(f"inflation by image: {numbers['inflation']:.3f}, {numbers['inflation_in_std']:.1f} standard deviations")
    if arguments.out:
        arguments.out.write_text(json.dumps(numbers, indent=2) + "\n")


def read_data(
    root: Path,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.str_], NDArray[np.bool_]]:
    """Pixels (N, 32 * 32) in [0, 1], targets (N, 8), patients (N,), and whether the test list has them (N,)."""
    source = read_nih(root, DiskFiles(root), LABELS, name="synthetic")
    if source.official is None:
        raise SystemExit(f"{root}: no official split")
    images = []
    for path in source.index["path"]:
        image = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise SystemExit(f"{path}: not an image")
        images.append(cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).reshape(-1))
    pixels = np.stack(images).astype(np.float32) / np.float32(255)
    patients = np.asarray(source.index["patient"], dtype=np.str_)
    return pixels, read_targets(source.index, LABELS), patients, np.asarray(source.official == "test", dtype=np.bool_)


def measure(
    pixels: NDArray[np.float32],
    targets: NDArray[np.float32],
    patients: NDArray[np.str_],
    is_test: NDArray[np.bool_],
    n_splits: int,
) -> dict[str, Any]:
    """AUROC on the official split, and its mean and standard deviation over random splits of both kinds."""
    train = np.flatnonzero(~is_test)
    scores = np.zeros(len(GRID))
    for seed in range(N_VAL_SPLITS):
        is_val = choose_patients(patients[train], TEST_FRACTION, np.random.default_rng([seed, 1]))
        scores += [np.mean(fit_and_score(pixels, targets, train[~is_val], train[is_val], value)) for value in GRID]
    strength = GRID[int(np.argmax(scores))]
    official = fit_and_score(pixels, targets, train, np.flatnonzero(is_test), strength)

    by_patient: list[float] = []
    by_image: list[float] = []
    for seed in range(n_splits):
        rng = np.random.default_rng(seed)
        for chosen, macros in (
            (choose_patients(patients, TEST_FRACTION, rng), by_patient),
            (rng.random(len(patients)) < TEST_FRACTION, by_image),
        ):
            aurocs = fit_and_score(pixels, targets, np.flatnonzero(~chosen), np.flatnonzero(chosen), strength)
            macros.append(float(np.mean(aurocs)))
    inflation = float(np.mean(by_image) - np.mean(by_patient))
    # Of the difference of two independent splits.
    spread = float(np.hypot(np.std(by_image, ddof=1), np.std(by_patient, ddof=1)))
    return {
        "n_images": len(pixels),
        "n_patients": len(np.unique(patients)),
        "n_test": int(is_test.sum()),
        "C": strength,
        "official": {"macro": round(float(np.mean(official)), 4)}
        | {label: round(auroc, 4) for label, auroc in zip(LABELS, official, strict=True)},
        "split_by_patient": describe(by_patient),
        "split_by_image": describe(by_image),
        "inflation": round(inflation, 4),
        "inflation_in_std": round(inflation / spread, 2),
    }


def choose_patients(patients: NDArray[np.str_], fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N,) whether an image belongs to a random share of the patients."""
    names = rng.permutation(np.unique(patients))
    return np.isin(patients, names[: round(fraction * len(names))])


def fit_and_score(
    pixels: NDArray[np.float32],
    targets: NDArray[np.float32],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    strength: float,
) -> list[float]:
    """AUROC of each label on ``test``, after fitting standardised pixels of ``train``."""
    mean, std = pixels[train].mean(axis=0), pixels[train].std(axis=0) + 1e-6
    standard = (pixels - mean) / std
    aurocs = []
    for label in range(len(LABELS)):
        model = LogisticRegression(C=strength, max_iter=200).fit(standard[train], targets[train, label])
        aurocs.append(float(roc_auc_score(targets[test, label], model.decision_function(standard[test]))))
    return aurocs


def describe(macros: list[float]) -> dict[str, Any]:
    return {
        "mean": round(float(np.mean(macros)), 4),
        "std": round(float(np.std(macros, ddof=1)), 4),
        "macros": [round(macro, 4) for macro in macros],
    }


if __name__ == "__main__":
    main()
