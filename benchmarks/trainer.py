"""Our Trainer against bare PyTorch, and the start of the command line.

- images a second of fine-tuning, and its peak memory: the Trainer with all its callbacks against a bare loop over the
  same model, optimizer, precision and batches, each in a process of its own, taking turns;
- seconds of ``train.py --help`` and to the first step on prepared images, against importing torch and Lightning, and
  where they go.

    python benchmarks/trainer.py [--img-size 224] [--rounds 3] [--compile]
"""

import argparse
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import add_options, report

REPOSITORY = Path(__file__).resolve().parents[1]
N_WARM = 3
"""Steps before the clock starts."""


def main() -> None:
    """Measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--patients", type=int, default=120, help="patients of the synthetic set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="measure fine-tuning with trainer.compile, too")
    add_options(parser)
    parser.add_argument("--program", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.program:
        name, *settings = arguments.program
        {"trainer": fit_with_trainer, "bare": fit_bare, "step": time_first_step}[name](settings)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "runs"
        start_frozen(folder, arguments.img_size, arguments.patients)
        settings = list_settings(folder, arguments.img_size, arguments.patients)
        rows = measure_training(settings, arguments.img_size, arguments.rounds)
        if arguments.compile:
            rows += measure_training([*settings, "trainer.compile=true"], arguments.img_size, arguments.rounds)
        rows += measure_start(settings, arguments.rounds)
    report("trainer", "make bench-train ROOT=PATH", rows, arguments.keep)


def start_frozen(folder: Path, img_size: int, patients: int) -> None:
    """Train the frozen phase that fine-tuning starts from, from random weights."""
    import torch
    from torchvision.models import densenet121

    folder.mkdir(exist_ok=True)
    torch.save(densenet121(weights=None).state_dict(), folder / "weights.pth")
    frozen = [
        "phase=frozen",
        f"model.weights={folder / 'weights.pth'}",
        *list_common_settings(folder, img_size, patients),
    ]
    subprocess.run([sys.executable, "train.py", *frozen], capture_output=True, check=True, cwd=REPOSITORY)


def list_settings(folder: Path, img_size: int, patients: int) -> list[str]:
    """A fine-tuning of one epoch on the synthetic set, from the frozen phase that lies in the folder."""
    [start] = folder.glob("runs/*/frozen-*")
    return ["phase=finetune", f"init_from={start}", *list_common_settings(folder, img_size, patients)]


def list_common_settings(folder: Path, img_size: int, patients: int) -> list[str]:
    """What both phases are given."""
    return [
        f"data.n_patients={patients}", "max_epochs=1", f"img_size={img_size}", f"runs_dir={folder / 'runs'}",
        f"cache_dir={folder.parent / 'cache'}", "logger=none",
    ]  # fmt: skip


def measure_training(settings: list[str], img_size: int, rounds: int, n_warm: int = 1) -> list[dict[str, Any]]:
    """Rows of images a second and of peak memory.

    Args:
        settings: Of the fine-tuning.
        img_size: Of its images, for the row.
        rounds: That count; the median is taken.
        n_warm: Rounds before them.
    """
    results: dict[str, list[list[float]]] = {"trainer": [], "bare": []}
    for number in range(-n_warm, rounds):
        for name, values in results.items():
            done = run_self(name, settings)
            if number >= 0:
                values.append([float(word) for word in done.split()[-2:]])
    speed, memory = (
        [statistics.median(row[column] for row in results[name]) for name in ("trainer", "bare")] for column in (0, 1)
    )
    what = f"fine-tuning at {img_size} px{', compiled' if 'trainer.compile=true' in settings else ''}"
    return [
        {"what": what, "ours": speed[0], "baseline": speed[1], "unit": "images/s", "ratio": speed[0] / speed[1],
         "wanted": ">= 0.97"},
        {"what": f"{what}: peak memory", "ours": memory[0], "baseline": memory[1], "unit": "MiB",
         "ratio": memory[0] / memory[1], "wanted": "<= 1.05"},
    ]  # fmt: skip


def run_self(name: str, settings: list[str]) -> str:
    """What one of the programs prints, in a process of its own."""
    command = [sys.executable, __file__, "--program", name, *settings]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout


class Clock:
    """Images a second from the end of the first few steps on. A GPU is waited for where the clock is read alone."""

    def __init__(self) -> None:
        self.n_steps, self.n_images, self.start = 0, 0, 0.0

    def count(self, n_images: int) -> None:
        """A step has ended."""
        if self.n_steps < N_WARM:
            wait_for_gpu()
            self.start = time.perf_counter()
        else:
            self.n_images += n_images
        self.n_steps += 1

    def read(self) -> tuple[float, float]:
        """Images a second, and in MiB the peak memory of the process, or of the GPU where one computes."""
        import torch

        wait_for_gpu()
        speed = self.n_images / (time.perf_counter() - self.start)
        if torch.cuda.is_available():
            return speed, torch.cuda.max_memory_allocated() / 2**20
        return speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def wait_for_gpu() -> None:
    """Let the GPU end what it was given, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fit_with_trainer(settings: list[str]) -> None:
    """Our fine-tuning, with every callback that it has, and a clock."""
    from pytorch_lightning import Callback

    from cxrlit.training.chain import train

    clock = Clock()

    class Count(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if len(batch["row"]) < trainer.datamodule.batch_size:  # it would be compiled anew
                leave(*clock.read())

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            clock.count(len(batch["row"]))
            if trainer.is_last_batch:  # the validation comes next, which the bare loop does not do
                leave(*clock.read())

    config, _ = load(settings)
    train(config, [Count()])


def fit_bare(settings: list[str]) -> None:
    """The same steps without a Trainer."""
    config, data = load(settings)
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from cxrlit.data.augment import build_augment
    from cxrlit.data.datamodule import CXRDataModule
    from cxrlit.model.densenet import build_network, unfreeze_last
    from cxrlit.training.callbacks import FreezeBatchNorm
    from cxrlit.training.hardware import AUTOCAST, choose_device, choose_precision

    phase = config.phases["finetune"]
    datamodule = CXRDataModule(
        data, img_size=phase.img_size, batch_size=phase.batch_size, resize=config.data.resize,
        cache_dir=Path(config.cache_dir), augment=build_augment(config.augment, phase.img_size), sampler=config.sampler,
    )  # fmt: skip
    datamodule.setup()
    network = build_network("none", config.model.normalize, len(config.labels), config.seed)
    unfreeze_last(network, phase.n_unfreeze)
    FreezeBatchNorm(phase.batch_norm).freeze(network)
    device = choose_device(config.trainer.accelerator)
    network.eval().to(device)
    if config.trainer.compile:
        network.compile_parts()
    precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
    optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad], lr=phase.lr)
    clock = Clock()
    for batch in datamodule.train_dataloader():
        if len(batch["row"]) < phase.batch_size:
            break
        images, targets = (batch[name].to(device, non_blocking=True) for name in ("image", "target"))
        with torch.autocast(device, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            logits = network(images)
        loss = binary_cross_entropy_with_logits(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock.count(len(logits))
    leave(*clock.read())


def load(settings: list[str]) -> tuple[Any, Any]:
    """The config of a command line, and its data."""
    from hydra import compose, initialize_config_dir

    from cxrlit.config import TrainConfig, read_config
    from cxrlit.data.dataset import load_data

    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = read_config(compose("train", overrides=settings), TrainConfig)
    return config, load_data(config.data, config.labels, Path(config.cache_dir))


def run_train(settings: list[str]) -> None:
    """``python train.py`` in this process."""
    sys.argv = ["train.py", *settings]
    runpy.run_path(str(REPOSITORY / "train.py"), run_name="__main__")


def leave(*numbers: float) -> None:
    """Print numbers and end the process, whatever it is doing."""
    print(*numbers, flush=True)
    os._exit(0)


def measure_start(settings: list[str], rounds: int) -> list[dict[str, Any]]:
    """Rows of the start-up, and of where it goes."""
    imports = [sys.executable, "-c", "import torch, pytorch_lightning"]
    shown = [sys.executable, "train.py", "--help"]
    times: dict[str, list[float]] = {"imports": [], "help": [], "step": []}
    stages: list[list[float]] = []
    for _ in range(rounds):
        for name, command in (("imports", imports), ("help", shown)):
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True, cwd=REPOSITORY)
            times[name].append(time.perf_counter() - start)
        start_clock = time.time()
        stamps = [float(word) - start_clock for word in run_self("step", settings).split()[-len(STAGES) :]]
        times["step"].append(stamps[-1])
        stages.append(stamps)
    base, shown_s, step = (statistics.median(times[name]) for name in ("imports", "help", "step"))
    medians = [0.0, *(statistics.median(column) for column in zip(*stages, strict=True))]
    return [
        {"what": "train.py --help", "ours": shown_s, "baseline": base, "unit": "s", "ratio": shown_s / base,
         "wanted": "<= 1.5"},
        {"what": "to the first step on prepared images", "ours": step, "baseline": base, "unit": "s",
         "ratio": step / base, "wanted": "<= 3"},
        *({"what": f"  of which {stage}", "ours": medians[number + 1] - medians[number], "unit": "s"}
          for number, stage in enumerate(STAGES)),
    ]  # fmt: skip


def time_first_step(settings: list[str]) -> None:
    """Print when each stage of a training ended, up to its first step, seconds since the epoch."""
    stamps: list[float] = []

    def stamp(place: Any, name: str) -> None:
        function = getattr(place, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            stamps.append(time.time())
            return result

        setattr(place, name, timed)

    import pytorch_lightning  # noqa: F401

    stamps.append(time.time())
    from cxrlit.commands import hydra_main as launch
    from cxrlit.training import chain as phases
    from cxrlit.training import phase
    from cxrlit.training.callbacks import ResumeCheckpoint

    stamps.append(time.time())
    stamp(launch, "read_config")
    stamp(phases, "load_data")
    stamp(phase.PhaseRun, "build_trainer")

    def leave_after_step(*_: Any) -> None:
        leave(*stamps, time.time())

    setattr(ResumeCheckpoint, "on_train_batch_end", leave_after_step)  # noqa: B010
    run_train(settings)


STAGES = (
    "importing torch and Lightning",
    "importing cxrlit",
    "checking the command line",
    "reading the data",
    "planning, opening images, network",
    "the first step",
)

if __name__ == "__main__":
    main()
