"""Assessments to report on: of few simulated images, with whatever labels a test wants."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir

from cxrlit.config import EvaluateConfig, read_config
from cxrlit.evaluation.measure.assessment import Assessment, EvaluatedModel, assess
from cxrlit.evaluation.predictions import make_predictions

CONF = Path(__file__).parents[3] / "conf"

SUBJECT = EvaluatedModel(
    name="finetune-1a2b3c4d/best.ckpt",
    data="nih",
    split_name="official",
    split_hash="4f1c2d9a8b7e",
    facts={"test-time augmentation": "each image and its mirror image"},
    config={
        "seed": 7,
        "data": {
            "root": "/srv/images/nih",
            "store": "https://me:hunter2@example.org/stores/nih",
            "labels": ("Effusion", None),
        },
    },
)
NOTHING_DROPPED = pd.DataFrame({"image": [], "path": [], "reason": []}, dtype=str)


def draw_table(seed: int, labels: Sequence[str], n_images: int, n_patients: int) -> pd.DataFrame:
    """Predictions that know something: a quarter of the targets are present."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n_images, len(labels))) < 0.25).astype(np.float32)
    probs = 1 / (1 + np.exp(-(rng.normal(size=targets.shape) + targets - 0.5)))
    patients = [f"{seed}-{number}" for number in rng.integers(0, n_patients, n_images)]
    part = pd.DataFrame(targets, columns=list(labels)).assign(
        image=[f"{seed}-{row:04d}.png" for row in range(n_images)], patient=patients
    )
    return make_predictions(part, labels, probs.astype(np.float32))


def make_assessment(
    labels: Sequence[str] = ("Effusion", "Mass"),
    parts: Sequence[str] = ("val", "test"),
    *settings: str,
    change: Callable[[dict[str, pd.DataFrame]], None] = lambda tables: None,
    subject: EvaluatedModel = SUBJECT,
    dropped: pd.DataFrame = NOTHING_DROPPED,
    n_images: int = 150,
    n_patients: int = 60,
) -> Assessment:
    """Assess simulated predictions; ``change`` is given the table of each part to spoil."""
    tables = {part: draw_table(seed, labels, n_images, n_patients) for seed, part in enumerate(parts)}
    change(tables)
    return assess(tables, subject, dropped, read_settings(*settings))


def read_settings(*settings: str) -> EvaluateConfig:
    """The config of ``evaluate.py predictions=...`` with few resamples."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["predictions=predictions.csv", "n_replicates=100", *settings]
        return read_config(compose("evaluate", overrides=overrides), EvaluateConfig)
