"""What int8 changes, of a model that was trained and evaluated: the AUROC of each label in fp32 and in int8.

Labels with at least 50 positives and 50 negatives are judged, on the validation part (which is what the gate of
``cxrlit export --int8`` sees), on the test part, and on both together.

    python benchmarks/int8_loss.py CKPT [--cache-dir cache] [KEY=VALUE ...]    settings as for cxrlit export
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from figures import add_options, report
from rich import print as show

from cxrlit.commands.cli import main as run_cxrlit
from cxrlit.config import EvaluateConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.data.index import read_targets
from cxrlit.evaluation.predict import open_images
from cxrlit.evaluation.validation.internal import load_internal
from cxrlit.handoff.bundle import Bundle, read_bundle
from cxrlit.handoff.export import take_evenly
from cxrlit.handoff.int8.gate import average_agreement, compare_labels, is_judged, make_table
from cxrlit.handoff.int8.make_int8 import MAX_CALIBRATION, PRECISIONS, make_int8, predict_part
from cxrlit.handoff.int8_record import Int8Record
from cxrlit.model.checkpoint import read_checkpoint


def main() -> None:
    """Measure, print a table for each part and the largest losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path, help="a phase folder that was evaluated, without tta")
    parser.add_argument("--cache-dir", default="cache")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    add_options(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name, "bundle")
        given = [f"cache_dir={arguments.cache_dir}", *arguments.settings]
        run_cxrlit(["export", str(arguments.ckpt), "--out", str(out), *given])
        rows = measure(arguments.ckpt, read_bundle(out), arguments.cache_dir)
    report("int8_loss", "python benchmarks/int8_loss.py CKPT", rows, arguments.keep)


def measure(ckpt: Path, bundle: Bundle, cache_dir: str) -> list[dict[str, Any]]:
    """A row of the largest loss for each part."""
    checkpoint = read_checkpoint(ckpt)
    evaluation = compose_defaults("evaluate", EvaluateConfig, {"ckpt": [str(ckpt)], "cache_dir": cache_dir})
    images = open_images(checkpoint, load_internal([checkpoint], evaluation), evaluation.trainer, Path(cache_dir))
    graphs, record = make_int8(bundle, take_evenly(images, "train", MAX_CALIBRATION), images, 1, True)
    bundle = replace(bundle, contents={**bundle.contents, **graphs})
    parts = ("val", "test")
    targets = [read_targets(images.parts[part], bundle.labels) for part in parts]
    exact, quantised = ([predict_part(bundle, images, part, one) for part in parts] for one in PRECISIONS)
    rows = []
    for part, chosen in (("validation", slice(0, 1)), ("test", slice(1, 2)), ("validation and test", slice(0, 2))):
        before, after, known = (np.concatenate(made[chosen]) for made in (exact, quantised, targets))
        labels = compare_labels(before, after, known, bundle.point)
        rows.append(describe(record.model_copy(update={"labels": labels}), part))
    return rows


def describe(record: Int8Record, part: str) -> dict[str, Any]:
    """Print the figures of a part; returns the row of its largest loss."""
    show(make_table(record))
    agreement = average_agreement(record.labels)
    losses = [one.auroc_loss for one in record.labels if is_judged(one) and one.auroc_loss is not None]
    agree = "" if agreement is None else f", {agreement:.2%} of decisions agree"
    what = f"{part}: largest loss of AUROC by int8 over {len(losses)} labels with 50 positives and negatives{agree}"
    return {"what": what, "ours": max(losses) if losses else None, "wanted": "<= 0.002"}


if __name__ == "__main__":
    main()
