"""The statistics of an evaluation against scikit-learn and against formulas written out, each a ratio within one run.

At the size of NIH's test part (25,596 images of 2,797 patients, 8 labels), on one core:

- AUROC and average precision of all labels, against a loop over scikit-learn, and 1,000 random cases for equality;
- 2,000 patient-bootstrap replicates, against a loop over scikit-learn, extrapolated from a few;
- memory of those replicates;
- DeLong's variance against the direct formula over all pairs;
- what else an evaluation computes: all metrics, thresholds, calibration, a comparison;
- the whole command, from a predictions table of test and validation to the report.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # one core, and so before numpy is loaded
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
from figures import add_options, report
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlit.core.labels import LABELS
from cxrlit.evaluation.compare.changes import compare_metric
from cxrlit.evaluation.measure.roc_pr_curves import make_curves
from cxrlit.evaluation.measure.tune_thresholds import measure_stability, tune_thresholds
from cxrlit.evaluation.predictions import make_predictions
from cxrlit.evaluation.subgroups.subgroup_metrics import measure_subgroups
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.average_precision import average_precision
from cxrlit.metrics.bootstrap import bootstrap, draw_weights
from cxrlit.metrics.bootstrap_engine import DECISIONS, ERRORS, RANKING
from cxrlit.metrics.calibration import fit_calibration
from cxrlit.metrics.delong import estimate_areas
from cxrlit.metrics.intervals import interval
from cxrlit.metrics.macro import per_label
from cxrlit.metrics.operating_point import OperatingPoint

N_IMAGES, N_PATIENTS, N_REPLICATES = 25_596, 2_797, 2_000
N_VAL_IMAGES, N_VAL_PATIENTS = 10_000, 3_200
PREVALENCE = (0.128, 0.042, 0.182, 0.239, 0.068, 0.063, 0.022, 0.104)  # of NIH's test part
GROUPS, AGE_BANDS = ("sex", "age", "view"), (18, 40, 60, 80)
ROUNDS = 5

Row = dict[str, Any]


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    arguments = parser.parse_args()
    scores, targets, patients = draw_predictions(0)
    rows = [
        *measure_replicates(scores, targets, patients),  # first: peak memory is that of the process so far
        *measure_metrics(scores, targets),
        measure_equality(),
        *measure_delong(scores, targets),
        *measure_rest(scores, targets, patients),
        *measure_command(),
    ]
    report("evaluation", "make bench-eval", rows, arguments.keep)


def draw_predictions(
    seed: int, n_images: int = N_IMAGES, n_patients: int = N_PATIENTS
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """(N, 8) probs of AUROC 0.76, (N, 8) targets, (N,) patients."""
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, n_patients, n_images)
    patients[:n_patients] = np.arange(n_patients)
    targets = (rng.random((n_images, len(PREVALENCE))) < PREVALENCE).astype(np.float32)
    logits = rng.normal(size=targets.shape) + targets - 1
    return (1 / (1 + np.exp(-logits))).astype(np.float32), targets, patients


def take_turns(*programs: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each program; they run one after the other, again and again."""

    def measure(program: Callable[[], object]) -> float:
        start = time.perf_counter()
        program()
        return time.perf_counter() - start

    results = [[measure(program) for program in programs] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


def loop(metric: Callable[..., float], scores: Any, targets: Any, weights: Any = None) -> list[float]:
    """What most people write: scikit-learn, a label after the other."""
    labels = range(scores.shape[1])
    return [metric(targets[:, label], scores[:, label], sample_weight=weights) for label in labels]


def measure_metrics(scores: NDArray[np.float32], targets: NDArray[np.float32]) -> list[Row]:
    """All labels once."""
    rows = []
    for name, ours, theirs in (
        ("AUROC", auroc, roc_auc_score),
        ("average precision", average_precision, average_precision_score),
    ):
        mine, plain = take_turns(
            lambda metric=ours: per_label(metric, scores, targets),  # type: ignore[misc]
            lambda metric=theirs: loop(metric, scores, targets),  # type: ignore[misc]
        )
        rows.append(
            {
                "what": f"{name} of 25,596 x 8, scikit-learn's loop",
                "ours": 1000 * mine,
                "baseline": 1000 * plain,
                "unit": "ms",
                "ratio": plain / mine,
                "wanted": ">= 2.5" if name == "AUROC" else "",
            }
        )
    return rows


def measure_equality() -> Row:
    """The largest difference from scikit-learn over random cases with ties, one-class ones among them."""
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(1000):
        n = int(rng.integers(1, 60))
        scores = np.round(rng.random(n), int(rng.choice([0, 1, 9]))).astype(np.float32)
        targets = (rng.random(n) < rng.choice([0.05, 0.5])).astype(np.float32)
        value = auroc(scores, targets)
        if len(np.unique(targets)) < 2:
            assert np.isnan(value), "an AUROC without both classes"
        else:
            worst = max(worst, abs(value - float(roc_auc_score(targets, scores))))
    return {"what": "AUROC, 1,000 random cases: largest difference", "ours": worst, "wanted": "<= 1e-12"}


def measure_replicates(
    scores: NDArray[np.float32], targets: NDArray[np.float32], patients: NDArray[np.int64]
) -> list[Row]:
    """Replicates of all AUROCs, and of average precision with them."""
    before = peak_memory()
    weights = next(draw_weights(N_PATIENTS, 3, 0))
    rows = []
    for names, theirs in ((("auroc",), (roc_auc_score,)), (RANKING, (roc_auc_score, average_precision_score))):
        mine, plain = take_turns(
            lambda names=names: bootstrap(names, scores, targets, patients, None, N_REPLICATES, 0),  # type: ignore[misc]
            lambda theirs=theirs: [  # type: ignore[misc]
                loop(metric, scores, targets, weights[patients, column])
                for metric in theirs
                for column in range(weights.shape[1])
            ],
            rounds=3,
        )
        plain *= N_REPLICATES / weights.shape[1]
        rows.append(
            {
                "what": f"2,000 replicates of {' and '.join(names)}, scikit-learn's loop",
                "ours": mine,
                "baseline": plain,
                "unit": "s",
                "ratio": plain / mine,
                "wanted": "< 8 s, >= 15" if len(names) == 1 else "",
            }
        )
    found = bootstrap(["auroc"], scores, targets, patients, None, 3, 0)["auroc"].values
    wanted = [loop(roc_auc_score, scores, targets, weights[patients, column]) for column in range(3)]
    difference = float(np.abs(found - wanted).max())
    rows.append({"what": "replicates: largest difference from scikit-learn", "ours": difference, "wanted": "<= 1e-12"})
    rows.append({"what": "memory of the whole process", "ours": peak_memory(), "unit": "MB", "wanted": "< 1,000"})
    rows.append({"what": "of which the replicates", "ours": peak_memory() - before, "unit": "MB"})
    return rows


def peak_memory() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_delong(scores: NDArray[np.float32], targets: NDArray[np.float32]) -> list[Row]:
    """The covariance of two AUROCs, by ranks and over all pairs, of a tenth of the images."""
    pair, present = scores[:2559, :2].astype(np.float64).round(3), targets[:2559, 3]

    def direct() -> NDArray[np.float64]:
        positives, negatives = pair[present == 1], pair[present == 0]
        above = (positives[:, None] > negatives[None]) + 0.5 * (positives[:, None] == negatives[None])
        s10, s01 = np.cov(above.mean(axis=1).T), np.cov(above.mean(axis=0).T)
        return np.asarray(s10 / len(positives) + s01 / len(negatives))

    mine, plain = take_turns(lambda: estimate_areas(pair, present), direct)
    difference = float(np.abs(estimate_areas(pair, present).covariance - direct()).max())
    return [
        {
            "what": "DeLong's covariance of 2,559 x 2, all pairs",
            "ours": 1000 * mine,
            "baseline": 1000 * plain,
            "unit": "ms",
            "ratio": plain / mine,
        },
        {"what": "DeLong's covariance: largest difference", "ours": difference, "wanted": "<= 1e-10"},
    ]


def measure_rest(scores: NDArray[np.float32], targets: NDArray[np.float32], patients: NDArray[np.int64]) -> list[Row]:
    """Seconds of what else an evaluation computes."""
    tuned = tune_thresholds(scores, targets, LABELS)
    youden = tune_thresholds(scores, targets, LABELS, "youden")
    other = draw_predictions(1)[0]
    table = draw_table(0, "test", N_IMAGES, N_PATIENTS)
    point = OperatingPoint(None, tuned, {})

    def all_metrics() -> None:
        found = bootstrap((*RANKING, *ERRORS, *DECISIONS), scores, targets, patients, tuned.values)
        for replicates in found.values():
            interval(replicates)
            interval(replicates.macro())

    steps: dict[str, Callable[[], object]] = {
        "2,000 replicates and intervals of all metrics": all_metrics,
        "thresholds by F1 over the grid: stability": lambda: measure_stability(tuned, scores, targets, patients),
        "thresholds by Youden's J: stability": lambda: measure_stability(youden, scores, targets, patients),
        "Platt scaling": lambda: fit_calibration(scores, targets, LABELS, "platt"),
        "ROC and precision-recall curves with bands": lambda: make_curves(scores, targets, patients),
        "comparison of AUROC": lambda: compare_metric("auroc", scores, other, targets, patients, LABELS),
        "all metrics by sex, age and view, and gaps": lambda: measure_subgroups(table, point, GROUPS, AGE_BANDS),
    }
    return [{"what": name, "ours": take_turns(step, rounds=1)[0], "unit": "s"} for name, step in steps.items()]


def measure_command() -> list[Row]:
    """Seconds and memory of ``evaluate.py`` on predictions, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "predictions.csv"
        write_table(table)
        script = Path(__file__).resolve().parents[1] / "evaluate.py"
        command = [sys.executable, str(script), f"predictions={table}", f"out={folder}/out"]
        start = time.perf_counter()
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if ended.returncode:
            sys.exit(f"evaluate.py: {ended.stderr.strip()}")
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # there was no other child
    what = f"evaluate.py of {N_IMAGES:,} test and {N_VAL_IMAGES:,} val predictions"
    return [
        {"what": f"{what}, with report", "ours": seconds, "unit": "s", "wanted": "< 60"},
        {"what": f"{what}: memory", "ours": megabytes, "unit": "MB"},
    ]


def write_table(path: Path) -> None:
    """Predictions of validation and test in one table, with what is known of the patients."""
    parts = [
        draw_table(0, "val", N_VAL_IMAGES, N_VAL_PATIENTS).assign(split="val"),
        draw_table(1, "test", N_IMAGES, N_PATIENTS).assign(split="test"),
    ]
    pd.concat(parts).to_csv(path, index=False, float_format="%.9g")


def draw_table(seed: int, split: str, n_images: int, n_patients: int) -> pd.DataFrame:
    """A predictions table with view, age and sex."""
    rng = np.random.default_rng(seed)
    probs, targets, patients = draw_predictions(seed, n_images, n_patients)
    part = pd.DataFrame(targets, columns=list(LABELS)).assign(
        image=[f"{split}_{row:06d}.png" for row in range(n_images)],
        patient=[f"{split}_{patient}" for patient in patients.tolist()],
        view=rng.choice(["PA", "AP"], n_images, p=[0.6, 0.4]),
        age=rng.integers(1, 95, n_patients)[patients].astype(np.float32),
        sex=rng.choice(["M", "F"], n_patients)[patients],
    )
    return make_predictions(part, LABELS, probs)


if __name__ == "__main__":
    main()
