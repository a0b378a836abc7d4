"""What the commands leave in a tiny run on synthetic data: files with their columns and keys, pages, tables."""

import csv
import html
import io
import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import torch

from cxrlit.data.synthetic.drawn_set import write_synthetic

REPO = Path(__file__).resolve().parents[1]
LABELS = ("Effusion", "Infiltration")
DATA = ("data.n_patients=80", "data.image_px=32", f"labels=[{','.join(LABELS)}]")
TINY = ("experiment=smoke", "trainer.accelerator=cpu", "trainer.num_workers=0", *DATA)
QUICK = ("n_replicates=100", "trainer.accelerator=cpu", "trainer.num_workers=0")
SOMETIMES = " | why blank"
"""A column of the reports that stands there only if a value is undefined, which may differ between machines."""


def run(script: str, *arguments: str, codes: Iterable[int] = (0,)) -> str:
    """Run a command in this process, since a start takes seconds; returns what it prints."""
    screen, code = io.StringIO(), 0
    with patch.object(sys, "argv", [script, *arguments]), redirect_stdout(screen), redirect_stderr(screen):
        try:
            if script == "cxrlit":
                runpy.run_module("cxrlit", run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(REPO / script), run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if code not in codes:
        raise SystemExit(f"{script} {' '.join(arguments)}: exit code {code}\n{screen.getvalue()}")
    return screen.getvalue()


def run_all() -> tuple[dict[str, Path], dict[str, str]]:
    """Run the commands in the current folder; returns the folder that each wrote, and what it showed."""
    screens = {"train.py": run("train.py", "evaluate=true", *TINY)}
    [phase], [frozen] = Path("runs/default").glob("finetune-*"), Path("runs/default").glob("frozen-*")
    [drawn] = Path("cache").glob("synthetic-*")
    folders = {"train.py": phase, "evaluate.py": phase / "eval"}
    run("evaluate.py", f"ckpt={frozen}", "report=false", "localise=none", *QUICK)
    write_synthetic(Path("elsewhere"), n_patients=80, seed=1, image_px=32)
    evaluations = {
        "evaluate.py baseline=PHASE": (f"ckpt={phase}", f"baseline={frozen}", "localise=none"),
        "evaluate.py data=nih": (f"ckpt={phase}", "data=nih", "data.root=elsewhere", "recalibrate=true"),
        "evaluate.py predictions=FILE": (f"predictions={phase}/eval/predictions_test.csv",),
    }
    for number, (name, settings) in enumerate(evaluations.items()):
        folders[name] = Path(f"evaluation-{number}")
        screens[name] = run("evaluate.py", *settings, f"out={folders[name]}", *QUICK)
    goal = ("phase=frozen", f"init_from={frozen}")
    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.space.n_unfreeze=null")
    sweeps = {
        "train.py -m lr=A,B": (*goal, "lr=1e-3,1e-2"),
        "train.py -m data.fold=0,1": ("phase=scratch", "data.fold=0,1", "data.n_folds=2"),
        "train.py -m hydra/sweeper=optuna": (*goal, *search),
        "train.py -m hydra/sweeper=ablation": (*goal, "hydra/sweeper=ablation", "hydra.sweeper.change=[focal]"),
    }
    for number, (name, settings) in enumerate(sweeps.items()):
        screens[name] = run("train.py", "-m", f"run=sweep-{number}", *settings, *TINY)
        [folders[name]] = Path(f"runs/sweep-{number}/sweeps").glob("[!.]*")
    folders |= {f"cxrlit {name}": Path(name) for name in ("compare", "export", "inspect", "predict")}
    asked = (str(frozen), str(phase), f"must_improve=[{LABELS[0]}]", "n_replicates=100", "out=compare")
    screens["cxrlit compare"] = run("cxrlit", "compare", *asked, codes=(0, 1, 2))
    run("cxrlit", "export", str(phase), "--out", "export")
    Path("predict").mkdir()
    shutil.copy(min(drawn.glob("*/*/*.png")), "image.png")
    run("cxrlit", "predict", "export", "image.png", "--out", "predict/preds.csv", "--heatmaps")
    run("cxrlit", "predict", "export", "image.png", "--out", "predict/preds.jsonl", "--json", "--backend", "onnx")
    Path("inspect").mkdir()
    screens["cxrlit inspect"] = run("cxrlit", "inspect", "out=inspect/inspect.html", *DATA)
    run("cxrlit", "prepare", "sizes=[32]", *DATA)
    [folders["cxrlit prepare"]] = Path("cache/store").glob("synthetic-*")
    return folders, screens


def list_files(folders: dict[str, Path]) -> list[str]:
    """Each file with its columns or keys."""
    lines = set()
    for command, folder in folders.items():
        others = [other for other in folders.values() if folder in other.parents]
        for path in folder.rglob("*"):
            if path.is_file() and not any(map(path.is_relative_to, others)):
                lines |= {clean(f"{command}: {path.relative_to(folder)}{fact}") for fact in describe_file(path)}
    return sorted(line for line in lines if not line.endswith(".<label>"))


def describe_file(path: Path) -> list[str]:
    """The columns of a CSV file; the keys of JSON files and checkpoints, and the keys below them."""
    if path.suffix == ".csv":
        with path.open(newline="") as lines:
            return [f": {', '.join(next(csv.reader(lines)))}"]
    if path.suffix in {".json", ".jsonl"}:
        values = json.loads(path.read_text() if path.suffix == ".json" else path.read_text().splitlines()[0])
    elif path.suffix == ".ckpt":
        values = torch.load(path, weights_only=True)
        values["state_dict"] = {name.partition(".")[0]: "" for name in values["state_dict"]}
    else:
        return [""]
    keys = {name: value if isinstance(value, dict) else {} for name, value in values.items()}
    return [f": {name}{below}" for name, inner in keys.items() for below in ("", *(f".{key}" for key in inner))]


def list_shown(folders: dict[str, Path], screens: dict[str, str]) -> list[str]:
    """Headings and table heads of the pages, of the model card and of the screen, from top to bottom."""
    lines = []
    for command, folder in folders.items():
        for path in sorted(folder.glob("*.html")):
            lines += [f"{command} {path.name}: {line}" for line in read_page(path.read_text())]
        for path in sorted(folder.glob("*.md")):
            heads = re.findall(r"^#.*|^\|.*(?=\n\| ---)", path.read_text(), re.M)
            lines += [f"{command} {path.name}: {head}" for head in heads]
    for command, screen in screens.items():
        lines += [f"{command} screen: table {' | '.join(head.split('┃')[1:-1])}" for head in re.findall("┃.*┃", screen)]
    return list(dict.fromkeys(map(clean, lines)))


def read_page(page: str) -> Iterator[str]:
    """Headings, and the caption and heads of each table: those of its columns, or else those of its rows."""
    for tag, inner in re.findall(r"<(h[123]|table)\b[^>]*>(.*?)</\1>", page, re.S):
        if tag != "table":
            yield f"{tag} {strip_tags(inner)}"
            continue
        caption = "".join(re.findall(r"<caption>(.*?)</caption>", inner, re.S))
        heads = re.findall(r'<th scope="(\w+)"[^>]*>(.*?)</th>', inner, re.S)
        columns = [strip_tags(text) for scope, text in heads if scope == "col"]
        texts = columns or [strip_tags(text) for _, text in heads]
        yield f"table {strip_tags(caption)}: {' | '.join(texts).removesuffix(SOMETIMES)}"


def strip_tags(text: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", text)).strip()


def clean(line: str) -> str:
    """Without what may be otherwise in another run: labels, hashes, times, numbers of jobs, spaces."""
    line = re.sub("|".join(LABELS), "<label>", line, flags=re.I)
    line = re.sub(r"(?<=-)[0-9a-f]{8,}\b", "<id>", line)
    return re.sub(r"\s+", " ", re.sub(r"jobs/(\.?)\d+", r"jobs/\1<number>", line)).strip()
