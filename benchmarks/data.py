"""The data layer against the plain way to do the same, each a ratio within one run.

Draws radiographs of 1024 x 1024 pixels as PNG files, then measures, taking turns so that a noisy machine hurts both:

- index: reading and splitting whole label tables, against pandas reading the same file;
- prepare: decode each file once for 224 and 320 px and write the store, against a bare loop that decodes and resizes
  in as many threads and writes nothing;
- load: training batches at 224 px with and without augmentation, from the loaders that the Trainer is given, against a
  plain DataLoader over the files (PIL, torchvision transforms) with the same ``num_workers``, and against
  torchxrayvision's NIH data set where it is installed. A batch counts when it is there whole, images and targets: ours
  uint8, which the network makes float on the device, theirs float. Without augmentation ours needs no process;
- memory of a loader process with 10,000 and with 100,000 images;
- open: a store of 112,120 images.

    python benchmarks/data.py --workers 2 [--nih-table PATH]
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from figures import add_options, report
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cxrlit.config import AugmentConfig, CheXpertConfig, PrepareConfig, read_config
from cxrlit.core.labels import LABELS
from cxrlit.data.augment import Augment
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.dataset import SplitData, UnsplitData, load_data, split_data
from cxrlit.data.image_files import StoredFiles
from cxrlit.data.sources.chexpert import read_chexpert
from cxrlit.data.sources.nih import read_nih
from cxrlit.data.store.open_stores import open_data_store, open_data_stores
from cxrlit.data.synthetic.drawn_set import write_synthetic

CONF = Path(__file__).resolve().parents[1] / "conf"
SIZES = (224, 320)
BATCH_SIZE = 32
ROUNDS = 3
MAX_LINKS = 10_000
"""Names of one file; a file system allows some 65,000."""


def main() -> None:
    """Measure everything and print each row when it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="decoding threads and loader processes of every program")
    parser.add_argument("--patients", type=int, default=300, help="patients that are drawn, three images each or so")
    parser.add_argument(
        "--nih-table", type=Path, help="Data_Entry_2017_v2020.csv.gz, where torchxrayvision is not installed"
    )
    add_options(parser)
    arguments = parser.parse_args()
    rows = measure(arguments.patients, arguments.workers, arguments.nih_table)
    report("data", "make bench-data", rows, arguments.keep)


def measure(n_patients: int, workers: int, nih_table: Path | None) -> Iterator[dict[str, Any]]:
    """All rows, one after another; arguments as on the command line."""
    yield from measure_tables(nih_table)
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "nih", Path(folder) / "cache"
        write_synthetic(root, n_patients=n_patients, seed=0, image_px=1024)
        data = load_data(read_data_config(root), LABELS, cache)
        yield from measure_prepare(data, Path(folder), workers)
        yield from measure_loading(data, root, cache, workers)
        yield from measure_worker_memory(Path(folder))
        yield from measure_opening(Path(folder))


def read_data_config(root: Path, name: str = "nih") -> Any:
    """``data=NAME`` with a root."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("prepare", overrides=[f"data={name}", f"data.root={root}"])
    return read_config(composed, PrepareConfig).data


def make_augment(img_size: int) -> Augment:
    """The augmentation that is the default of a training."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "augment" / "default.yaml"))
    return Augment(AugmentConfig.model_validate(values), img_size)


def take_turns(*programs: Callable[[], float], rounds: int = ROUNDS) -> list[float]:
    """Median result of each program; they run one after the other, again and again."""
    results = [[program() for program in programs] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


def measure_prepare(data: SplitData, folder: Path, workers: int) -> Iterator[dict[str, Any]]:
    """Images a second of ``cxrlit prepare`` and of a bare loop."""
    paths, number = data.index["path"].tolist(), iter(range(1000))

    def ours() -> float:
        start = time.perf_counter()
        open_data_stores(data, SIZES, "pad", folder / f"prepare-{next(number)}", workers)
        return len(paths) / (time.perf_counter() - start)

    def decode(path: str) -> list[Any]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
        return [cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA) for size in SIZES]

    def bare() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(decode, paths):
                pass
        return len(paths) / (time.perf_counter() - start)

    cv2.setNumThreads(0)
    mine, plain = take_turns(ours, bare)
    yield compare(f"prepare, {len(paths)} PNGs of 1024 px to 224 and 320", mine, plain, "images/s", ">= 0.85")


class PlainFiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """What most people write first: open the file, and let torchvision do the rest."""

    def __init__(self, paths: list[str], targets: Any, augmented: bool) -> None:
        self.paths, self.targets = paths, torch.tensor(np.asarray(targets, dtype=np.float32))
        change = [
            transforms.RandomAffine(7, scale=(0.9, 1.1)),
            transforms.ColorJitter(0.15, 0.15),
            transforms.RandomHorizontalFlip(),
        ]
        self.transform = transforms.Compose(
            [transforms.Resize((224, 224)), *(change if augmented else []), transforms.ToTensor(),
             transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB")), self.targets[row]


def measure_loading(data: SplitData, root: Path, cache: Path, workers: int) -> Iterator[dict[str, Any]]:
    """Images a second of the loaders, with loader processes that have started."""
    part = data.index
    for augmented, wanted in ((True, ">= 35"), (False, ">= 150")):
        augment = make_augment(224) if augmented else None
        module = CXRDataModule(
            data, img_size=224, batch_size=BATCH_SIZE, resize="pad", cache_dir=cache, augment=augment,
            num_workers=workers,
        )  # fmt: skip
        module.setup()
        plain = DataLoader(
            PlainFiles(part["path"].tolist(), part[list(LABELS)], augmented), batch_size=BATCH_SIZE, shuffle=True,
            num_workers=workers, persistent_workers=True,
        )  # fmt: skip
        mine, theirs, epochs = module.train_dataloader(), plain, 40 if augmented else 200
        speeds = take_turns(lambda: count_speed(mine, epochs), lambda: count_speed(theirs, 1))  # noqa: B023
        name = "with augmentation" if augmented else "without augmentation"
        yield compare(f"load at 224 px, {name}, {workers} workers", speeds[0], speeds[1], "images/s", wanted)
        if augmented and find_spec("torchxrayvision"):
            (other,) = take_turns(lambda: count_speed(build_torchxrayvision(root, workers), 1), rounds=1)
            yield compare("  the same, torchxrayvision's NIH data set", speeds[0], other, "images/s")


def build_torchxrayvision(root: Path, workers: int) -> DataLoader[Any]:
    """Its NIH data set with its own transforms, over the same files."""
    import torchxrayvision

    folder = root / "images_001" / "images"
    shape = transforms.Compose([torchxrayvision.datasets.XRayCenterCrop(), torchxrayvision.datasets.XRayResizer(224)])
    change = transforms.Compose(
        [torchxrayvision.datasets.ToPILImage(), transforms.RandomAffine(7, scale=(0.9, 1.1)), transforms.ToTensor()]
    )
    dataset = torchxrayvision.datasets.NIH_Dataset(
        str(folder), csvpath=str(root / "Data_Entry_2017_v2020.csv"), transform=shape, data_aug=change,
        views=["PA", "AP"], unique_patients=False,
    )  # fmt: skip
    return DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=True)


def count_speed(loader: DataLoader[Any], epochs: int) -> float:
    """Images a second after the first batch has come."""
    n_images, start = 0, 0.0
    for epoch in range(epochs):
        sampler: Any = getattr(loader.batch_sampler, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        for batch in loader:
            images, targets = batch if isinstance(batch, list) else (batch[key] for key in find_keys(batch))
            assert images.shape[-2:] == (224, 224)
            assert len(images) == len(targets)
            if start:
                n_images += len(images)
            else:
                start = time.perf_counter()
    return n_images / (time.perf_counter() - start)


def find_keys(batch: dict[str, Any]) -> tuple[str, str]:
    """What images and targets are called in our batches, and in torchxrayvision's."""
    return ("image", "target") if "image" in batch else ("img", "lab")


def measure_worker_memory(folder: Path) -> Iterator[dict[str, Any]]:
    """Memory of a loader process after two epochs, MiB."""
    used = []
    for n_images in (10_000, 100_000):
        data, cache = make_many(folder / f"many-{n_images}", n_images), folder / f"many-cache-{n_images}"
        open_data_store(data, 32, "pad", cache)
        used.append(run_alone(load_twice, data, cache))
    yield compare("memory of a loader process, 100,000 images against 10,000", used[1], used[0], "MiB", "~ 1")


def load_twice(data: SplitData, cache: Path) -> float:
    """Memory of a loader process that has seen every image twice, MiB."""
    multiprocessing.set_start_method("fork", force=True)  # this process was spawned, and would hand that on
    module = CXRDataModule(
        data, img_size=32, batch_size=256, resize="pad", cache_dir=cache, augment=make_augment(32), num_workers=1
    )
    module.setup()
    loader = module.train_dataloader()
    for _ in range(2):
        for _ in loader:
            pass
    (worker,) = multiprocessing.active_children()
    return read_own_memory(worker.pid)


def measure_opening(folder: Path, n_images: int = 112_120) -> Iterator[dict[str, Any]]:
    """Seconds and memory of opening a store of the size of NIH's."""
    data, cache = make_many(folder / "whole", n_images), folder / "whole-cache"
    open_data_store(data, 32, "pad", cache)
    seconds, mib = run_alone(open_once, data, cache)
    yield {"what": f"open a store of {n_images:,} images", "ours": seconds, "unit": "s", "wanted": "< 1"}
    yield {"what": "  its memory", "ours": mib, "unit": "MiB", "wanted": "< 100"}


def open_once(data: SplitData, cache: Path) -> tuple[float, float]:
    """Seconds and MiB of opening a store in a process that has done nothing else."""
    before, start = read_own_memory(os.getpid()), time.perf_counter()
    store = open_data_store(data, 32, "pad", cache)
    seconds = time.perf_counter() - start
    assert (store.positions >= 0).all()
    return seconds, read_own_memory(os.getpid()) - before


def run_alone(measure: Callable[[SplitData, Path], Any], data: SplitData, cache: Path) -> Any:
    """Run a function in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, data, cache).result()


def make_many(root: Path, n_images: int) -> SplitData:
    """A data set of many names for one small file, in NIH's layout."""
    images = root / "images"
    images.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    for copy in range(0, n_images, MAX_LINKS):
        Image.fromarray(noise).save(root / f"{copy}.png")
    names = [f"{row // 4:08d}_{row % 4:03d}.png" for row in range(n_images)]
    for row, name in enumerate(names):
        os.link(root / f"{row // MAX_LINKS * MAX_LINKS}.png", images / name)
    findings = [LABELS[row % len(LABELS)] for row in range(n_images)]
    table = pd.DataFrame(
        {"Image Index": names, "Finding Labels": findings, "Patient ID": [row // 4 for row in range(n_images)]}
    )
    table.to_csv(root / "Data_Entry_2017_v2020.csv", index=False)
    return load_data(read_data_config(root).model_copy(update={"allow_copies": True}), LABELS, root)


def read_own_memory(pid: int | None) -> float:
    """MiB that a process has written and shares with no other (Linux); pages of a mapped store are the disk cache's."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1024


def measure_tables(nih_table: Path | None) -> Iterator[dict[str, Any]]:
    """Seconds to read and split whole tables, every image taken to be there, against pandas reading the file."""
    packaged = find_spec("torchxrayvision")
    tables = Path(packaged.origin).parent / "data" if packaged and packaged.origin else None
    sources = [
        ("nih", nih_table or (tables and tables / "Data_Entry_2017_v2020.csv.gz"), "Data_Entry_2017_v2020.csv.gz"),
        ("chexpert", tables and tables / "chexpert_train.csv.gz", "train.csv.gz"),
    ]
    for name, path, called in sources:
        if path is None:
            print(f"skipped: the table of {name}; install torchxrayvision", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / called).symlink_to(path)
            config = read_data_config(Path(folder), name)
            files = list_files(name, path)

            def ours(config: Any = config, files: StoredFiles = files, folder: str = folder) -> float:
                start = time.perf_counter()
                if isinstance(config, CheXpertConfig):
                    source = read_chexpert(config, files, LABELS)
                else:
                    source = read_nih(Path(folder), files, LABELS)
                dropped = source.dropped.assign(source=source.name)
                data = UnsplitData((source.name,), LABELS, source.index, dropped, dropped.iloc[:0], {}, {})
                split_data(data, config)
                return time.perf_counter() - start

            def theirs(path: Path = path) -> float:
                start = time.perf_counter()
                pd.read_csv(path, index_col=False)
                return time.perf_counter() - start

            mine, plain = take_turns(ours, theirs)
        what = f"index and split of the whole table of {name}, {len(files.sizes):,} rows"
        yield compare(what, mine, plain, "s", "<= 10")


def list_files(name: str, path: Path) -> StoredFiles:
    """Every image of a table, as if it were there."""
    if name == "nih":
        files = "images/" + pd.read_csv(path, index_col=False, usecols=["Image Index"])["Image Index"]
    else:
        files = pd.read_csv(path, usecols=["Path"])["Path"].str.partition("/")[2]
    return StoredFiles("memory://", dict.fromkeys(files.tolist(), 1))


def compare(what: str, ours: float, baseline: float, unit: str, wanted: str = "") -> dict[str, Any]:
    """A row of the table."""
    return {
        "what": what, "ours": ours, "baseline": baseline, "unit": unit, "ratio": ours / baseline, "wanted": wanted
    }  # fmt: skip


if __name__ == "__main__":
    main()
