"""A bundle on files against the plain way to do the same, and how soon the first prediction is there.

- images a second of ``cxrlit predict`` from 512 px PNGs to the table, by backend and precision, against a loop of PIL,
  torchvision and eager fp32, against the backend's forward pass alone, and against the reading of the files alone;
- the same from DICOM files of 2,500 x 3,000 pixels of 12 bits, stored as they are. They all take turns;
- largest difference of the probs in fp32 between torch and the other backends;
- seconds of the whole command on one image, by backend and precision, against torch.

What int8 changes is measured by benchmarks/int8_loss.py.

    python benchmarks/predict.py [--img-size 224] [--images 256] [--dicoms 64] [--rounds 3]
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from figures import add_options, report
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from safetensors.torch import load
from torchvision import transforms
from torchvision.models import densenet121

from cxrlit.core.cores import count_cores
from cxrlit.core.instruction_sets import computes_bf16, find_instruction_sets
from cxrlit.data.synthetic.drawn_set import write_synthetic
from cxrlit.handoff.backends.backend import BackendName, Precision
from cxrlit.handoff.bundle import CONFIG, SUMS, WEIGHTS, format_sums, name_int8_files, read_bundle
from cxrlit.handoff.bundle_config import write_config
from cxrlit.handoff.engine import PredictOptions, make_local
from cxrlit.handoff.int8.quantise import quantise_graph
from cxrlit.handoff.int8_record import Int8Record
from cxrlit.handoff.journal import name_journal, read_journal
from cxrlit.handoff.predict_files import predict_all, write_rows
from cxrlit.handoff.predictor import Predictor
from cxrlit.handoff.read_inputs import list_files, read_inputs

REPOSITORY = Path(__file__).resolve().parents[1]
Way = tuple[BackendName, Precision]
DICOM_WAYS: list[Way] = [("torch", "fp32"), ("onnx", "int8")]
"""Of files whose reading is the work."""


def main() -> None:
    """Measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--dicoms", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--bundle", type=Path, help="a bundle to measure; without one, a network is trained for a moment"
    )
    add_options(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = arguments.bundle or make_bundle(folder, arguments.img_size)
        images = draw_images(folder / "images", arguments.images)
        bundle = bundle if read_bundle(bundle).int8_files else add_int8(bundle, folder / "int8")
        dicoms = draw_dicoms(folder / "dicoms", images[: arguments.dicoms])
        rows = [
            *measure_speed(bundle, images, folder, arguments.rounds, list_ways(), "512 px PNGs"),
            *measure_speed(bundle, dicoms, folder, arguments.rounds, DICOM_WAYS, "2,500 x 3,000 px DICOM"),
            *measure_start(bundle, images[0], folder, arguments.rounds),
        ]
    report("predict", "make bench-predict", rows, arguments.keep)


def make_bundle(folder: Path, img_size: int, patients: int = 40, epochs: int = 1) -> Path:
    """Train on a few synthetic images, evaluate and export: what it has learnt does not matter here."""
    places = [f"cache_dir={folder / 'cache'}"]
    printed = run(
        "train.py", "phase=scratch", f"max_epochs={epochs}", f"img_size={img_size}", f"data.n_patients={patients}",
        "evaluate=true", f"runs_dir={folder / 'runs'}", *places,
    )  # fmt: skip
    [phase] = re.findall(r"^Trained: (\S+)", printed, re.MULTILINE)
    run("-m", "cxrlit", "export", REPOSITORY / phase, "--out", folder / "bundle", *places)
    return folder / "bundle"


def add_int8(bundle: Path, out: Path) -> Path:
    """A copy of a bundle that has int8, whatever its gate would say of it: its speed is measured here."""
    read = read_bundle(bundle)
    images = np.random.default_rng(0).integers(0, 256, (16, *[read.config.preprocessing.img_size] * 2), dtype=np.uint8)
    made = {
        name: quantise_graph(read.contents[graph], images)
        for name, (_, graph) in zip(name_int8_files(len(read.member_files)), read.member_files, strict=True)
    }
    record = Int8Record(
        onnxruntime=version("onnxruntime"), n_calibration=len(images), n_val=0, max_auroc_loss=1, is_forced=True,
        agreement=None, labels=[],
    )  # fmt: skip
    config = read.config.model_copy(update={"int8": record})
    contents = {**read.contents, **made, CONFIG: write_config(config)}
    out.mkdir()
    for name, content in {**contents, SUMS: format_sums(contents).encode()}.items():
        (out / name).write_bytes(content)
    return out


def draw_images(folder: Path, n_images: int) -> list[Path]:
    """Synthetic radiographs of 512 px."""
    write_synthetic(folder, n_patients=n_images, seed=1, image_px=512)
    return sorted(folder.rglob("*.png"))[:n_images]


def draw_dicoms(folder: Path, images: list[Path]) -> list[Path]:
    """The same radiographs as detectors make them: 2,500 x 3,000 pixels of 12 bits, stored as they are."""
    folder.mkdir()
    paths = []
    for number, image in enumerate(images):
        with Image.open(image) as drawn:
            pixels = cv2.resize(np.asarray(drawn.convert("L")), (2500, 3000)).astype(np.uint16) * 16
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
        dataset.Modality = "DX"
        dataset.set_pixel_data(pixels, "MONOCHROME2", bits_stored=12)
        paths.append(folder / f"{number:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def run(*arguments: Any) -> str:
    """What a program of the repository prints."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def measure_speed(
    bundle: Path, files: list[Path], folder: Path, rounds: int, ways: Sequence[Way], what: str
) -> list[dict[str, Any]]:
    """Rows of images a second, and of the difference of the backends.

    Args:
        bundle: What predicts.
        files: That are predicted.
        folder: Gets the tables.
        rounds: That count; the median is taken.
        ways: Backends and precisions.
        what: The files are.
    """
    backends = {f"{name} {precision}": Predictor.load(bundle, name, precision=precision) for name, precision in ways}
    first = next(iter(backends.values()))
    plain = PlainLoop(bundle, first) if files[0].suffix == ".png" else None
    times: dict[str, list[float]] = {}
    probs: dict[str, Any] = {}
    for number in range(rounds + 1):
        programs: dict[str, Any] = {"reading": lambda: read_images(first, files)}
        if plain is not None:
            programs["plain"] = lambda: plain.predict(files)
        for name, predictor in backends.items():
            out = folder / f"{name}.csv"
            programs[name] = lambda predictor=predictor, out=out: predict(predictor, files, out)
            programs[f"{name} bare"] = lambda predictor=predictor: run_bare(predictor, files)
        for name, program in programs.items():
            start = time.perf_counter()
            made = program()
            seconds = made if isinstance(made, float) else time.perf_counter() - start
            if number:  # the first warms up
                times.setdefault(name, []).append(len(files) / seconds)
    for name in backends:
        table = pd.read_csv(folder / f"{name}.csv")
        assert table["reason"].isna().all()
        probs[name] = table.filter(regex="^prob_").to_numpy()
    speed = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    unquantised, int8 = choose_wanted()
    for name in backends:
        wanted = f">= {int8 if name.endswith('int8') else unquantised} with the best"
        for baseline, against, goal in (
            ("plain", "eager fp32 with PIL", wanted),
            (f"{name} bare", "its forward pass alone", "" if plain is None else ">= 0.85"),
            ("reading", "reading alone", ""),
        ):
            if baseline in speed:
                rows.append(
                    {"what": f"predict, {name}, {what}, against {against}", "ours": speed[name],
                     "baseline": speed[baseline], "unit": "images/s", "ratio": speed[name] / speed[baseline],
                     "wanted": goal}
                )  # fmt: skip
    in_fp32 = [probs[name] for name in backends if name.endswith("fp32")]
    if len(in_fp32) > 1:
        difference = max(float(np.abs(in_fp32[0] - other).max()) for other in in_fp32[1:])
        rows.append(
            {"what": f"largest difference of the probs in fp32, {what}", "ours": difference, "wanted": "<= 1e-5"}
        )
    return rows


def list_ways() -> list[Way]:
    """Each backend in each precision that this CPU has."""
    ways: list[Way] = [
        ("torch", "fp32"), ("onnx", "fp32"), ("openvino", "fp32"), ("onnx", "int8"), ("openvino", "int8")
    ]  # fmt: skip
    return [*ways, ("torch", "bf16"), ("openvino", "bf16")] if computes_bf16() else ways


def choose_wanted() -> tuple[float, float]:
    """The ratios that are wanted on this kind of CPU, without quantisation and in int8."""
    return (3.0, 4.5) if {"AVX512-VNNI", "AVX512-BF16"} <= set(find_instruction_sets()) else (2.0, 3.0)


class PlainLoop:
    """What most people write first."""

    def __init__(self, bundle: Path, predictor: Predictor) -> None:
        config = predictor.bundle.config
        state = load((bundle / WEIGHTS).read_bytes())
        self.model = densenet121(weights=None)
        self.model.classifier = torch.nn.Linear(self.model.classifier.in_features, len(config.labels))
        self.model.load_state_dict({name.replace("head.", "classifier."): tensor for name, tensor in state.items()})
        self.model.eval()
        self.batch_size = config.batch_size
        size = config.preprocessing.img_size
        self.transform = transforms.Compose(
            [transforms.Resize((size, size)), transforms.ToTensor(),
             transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        )  # fmt: skip

    def predict(self, paths: list[Path]) -> None:
        """Read, transform and score files batch by batch."""
        torch.set_num_threads(count_cores())
        with torch.no_grad():
            for start in range(0, len(paths), self.batch_size):
                batch = [self._read(path) for path in paths[start : start + self.batch_size]]
                self.model(torch.stack(batch)).sigmoid().numpy()

    def _read(self, path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            pixels: torch.Tensor = self.transform(image.convert("RGB"))
        return pixels


def predict(predictor: Predictor, images: list[Path], out: Path) -> None:
    """Files to a table, as the command does it."""
    options = PredictOptions(
        bundle=predictor.bundle.folder, files=images, out=out, backend="torch", precision=None, batch_size=None,
        n_threads=None, heatmaps=False, as_json=False,
    )  # fmt: skip
    predict_all(make_local(predictor, options), list_files(images), out, options)
    write_rows(out, read_journal(name_journal(out)), predictor.labels, options)
    name_journal(out).unlink()


def read_images(predictor: Predictor, files: list[Path]) -> Any:
    """(N, S, S) what the network is given of files."""
    config = predictor.bundle.config
    return np.stack([seen.image for seen in read_inputs(list_files(files), config, 64) if seen.image is not None])


def run_bare(predictor: Predictor, files: list[Path]) -> float:
    """Seconds of the network alone, on the same batches."""
    pixels = read_images(predictor, files)
    start = time.perf_counter()
    size = predictor.backend.batch_size
    for first in range(0, len(pixels), size):
        predictor.backend.run(pixels[first : first + size], False)
    return time.perf_counter() - start


def measure_start(bundle: Path, image: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows of the seconds that the command takes for one image."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, precision in list_ways():
            start = time.perf_counter()
            chosen = ["--backend", name, "--precision", precision]
            run("-m", "cxrlit", "predict", bundle, image, "--out", folder / "one.csv", *chosen)
            seconds.setdefault(f"{name} {precision}", []).append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    theirs = medians.pop("torch fp32")
    return [
        {"what": f"one image, the whole command, {name}, against torch fp32", "ours": ours, "baseline": theirs,
         "unit": "s", "ratio": ours / theirs, "wanted": "<= 0.33 with the best"}
        for name, ours in medians.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
