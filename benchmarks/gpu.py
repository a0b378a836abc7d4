"""A GPU against the CPU of its machine, and what it computes a second. ``benchmarks/gpu.sh`` runs all parts.

- parity: probs of a bundle on 1,000 drawn images, in fp32 and bf16 against fp32 on the CPU, and each label's AUROC;
- loading: training images a second that the loaders yield, with augmentation;
- predict: images a second of ``cxrlit predict`` from 512 px PNGs, against the network alone and reading alone;
- training: images a second of fine-tuning and its memory, against a bare loop, with and without ``trainer.compile``.

    python benchmarks/gpu.py PART --work FOLDER [--sizes 224 320] [--patients 1500] [--keep]
"""

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from figures import add_options, report
from hydra import compose, initialize_config_dir
from predict import Way, draw_images, make_bundle, measure_speed
from trainer import REPOSITORY, list_settings, measure_training, start_frozen

from cxrlit.config import PrepareConfig, read_config
from cxrlit.core.labels import LABELS
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData, load_data
from cxrlit.data.index import read_targets
from cxrlit.handoff.predictor import Predictor
from cxrlit.metrics.auroc import auroc
from cxrlit.metrics.macro import per_label

N_IMAGES = 1000
"""That are predicted."""

WAYS: list[Way] = [("torch", "bf16"), ("torch", "fp32")]
"""In which prediction is measured."""

SECONDS = 10.0
"""How long the loaders of a size are counted."""


def main() -> None:
    """Measure a part, print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("parity", "loading", "predict", "training"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 320])
    parser.add_argument("--patients", type=int, default=1500)
    parser.add_argument("--work", type=Path, required=True, help="folder for what the parts share")
    add_options(parser)
    arguments = parser.parse_args()
    folder, sizes, patients = arguments.work.absolute(), arguments.sizes, arguments.patients
    if arguments.part == "parity":
        rows = measure_parity(folder, sizes[0], patients)
    elif arguments.part == "loading":
        rows = [measure_loading(folder / "cache", size, patients) for size in sizes]
    elif arguments.part == "predict":
        rows = measure_predict(folder, sizes[0], patients)
    else:
        rows = measure_all_training(folder, sizes, patients)
    report(f"gpu-{arguments.part}", "benchmarks/gpu.sh", rows, arguments.keep)


def measure_parity(folder: Path, img_size: int, patients: int) -> list[dict[str, Any]]:
    """Rows of the largest and mean difference of probs, and of AUROC, in fp32 and in bf16."""
    bundle = find_bundle(folder, img_size, patients)
    index = load_synthetic(folder / "cache", patients).index[:N_IMAGES]
    targets, paths = read_targets(index, LABELS), index["path"].tolist()

    def predict(device: Any, precision: Any) -> Any:
        predictions = Predictor.load(bundle, "torch", device=device, precision=precision).predict(paths)
        return np.array([list(one.probs.values()) for one in predictions])

    theirs = predict("cpu", "fp32")
    rows = []
    for precision in ("fp32", "bf16"):
        ours = predict("cuda", precision)
        differences = np.abs(ours - theirs)
        lost = np.abs(per_label(auroc, ours, targets) - per_label(auroc, theirs, targets))
        in_fp32 = precision == "fp32"
        what = f"{precision} against the CPU, {len(paths):,} images at {img_size} px"
        rows += [
            {"what": f"{what}: largest difference of a probability", "ours": float(differences.max()),
             "wanted": "<= 1e-5" if in_fp32 else ""},
            {"what": f"{what}: mean difference", "ours": float(differences.mean()),
             "wanted": "" if in_fp32 else "<= 2e-3"},
            {"what": f"{what}: largest difference of a label's AUROC", "ours": float(np.nanmax(lost)),
             "wanted": "" if in_fp32 else "<= 0.002"},
        ]  # fmt: skip
    return rows


def find_bundle(folder: Path, img_size: int, patients: int) -> Path:
    """A bundle that was trained for some epochs, by whichever part needs it first."""
    made = folder / "bundle"
    return made if made.exists() else make_bundle(folder, img_size, patients, epochs=3)


def load_synthetic(cache: Path, patients: int) -> SplitData:
    """The drawn set that a training with this cache has."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        drawn = compose("prepare", overrides=["data=synthetic", f"data.n_patients={patients}", f"cache_dir={cache}"])
    return load_data(read_config(drawn, PrepareConfig).data, LABELS, cache)


def measure_loading(cache: Path, img_size: int, patients: int) -> dict[str, Any]:
    """A row of the training images a second, epoch after epoch, with as many processes as the machine gives."""
    settings = {"n_patients": patients}
    module = CXRDataModule.from_synthetic(settings, img_size=img_size, batch_size=32, cache_dir=cache)
    module.setup("fit")
    loader = module.train_dataloader()
    batches = (batch for _ in range(1000) for batch in loader)
    next(batches)  # the processes have started
    n_images, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS:
        n_images += sum(len(batch["row"]) for batch in islice(batches, 8))
    what = f"load at {img_size} px with augmentation, {module.num_workers} loader workers"
    return {"what": what, "ours": n_images / seconds, "unit": "images/s"}


def measure_predict(folder: Path, img_size: int, patients: int) -> list[dict[str, Any]]:
    """Rows of images a second of prediction on 512 px PNGs."""
    images = draw_images(folder / "images", N_IMAGES)
    return measure_speed(find_bundle(folder, img_size, patients), images, folder, 1, WAYS, "512 px PNGs")


def measure_all_training(folder: Path, sizes: list[int], patients: int) -> list[dict[str, Any]]:
    """Rows of fine-tuning at each size; those without ``trainer.compile`` first, and each printed when it is there."""
    rows: list[dict[str, Any]] = []
    for compiles in ([], ["trainer.compile=true"]):
        for size in sizes:
            place = folder / f"training-{size}"
            if not place.exists():
                start_frozen(place, size, patients)
            settings = [*list_settings(place, size, patients), *compiles]
            rows += measure_training(settings, size, rounds=1, n_warm=0)
            print(*rows[-2:], sep="\n", flush=True)
    return rows


if __name__ == "__main__":
    main()
