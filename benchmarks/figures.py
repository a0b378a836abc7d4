"""Print each row of a benchmark when it is measured; with ``--keep``, write it to figures/ and to docs/benchmarks.md.

The figures of each kind of machine, its GPU or the instruction set of its CPU, have a folder of their own.

python benchmarks/figures.py      writes the tables of docs/benchmarks.md anew from benchmarks/figures/
"""

import argparse
import datetime
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cxrlit.core.cores import count_cores
from cxrlit.core.errors import format_count
from cxrlit.core.files import write_json, write_text
from cxrlit.core.instruction_sets import find_instruction_sets

FOLDER = Path(__file__).parent / "figures"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
KINDS = {"AMX-BF16": "AMX", "AVX512-BF16": "AVX512-BF16", "AVX512": "AVX512", "AVX2": "AVX2"}
"""Kinds of CPU by the instruction set that tells them, the strongest first."""
COLUMNS = ["what", "ours", "baseline", "unit", "ratio", "wanted"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every benchmark takes."""
    parser.add_argument("--keep", action="store_true", help="write figures, machine and date to docs/benchmarks.md")


def report(name: str, command: str, rows: Iterable[dict[str, Any]], keep: bool) -> None:
    """Print each row of a benchmark when it is measured, and keep them where that is wanted.

    Args:
        name: Of the file.
        command: What measures them.
        rows: Of ``COLUMNS``; what is not known is not there.
        keep: As ``--keep`` says.
    """
    measured = []
    print(_line_up(COLUMNS))
    for row in rows:
        measured.append(row)
        numbers = {key: f"{value:,.3g}" for key, value in row.items() if isinstance(value, float | int)}
        print(_line_up([str({**row, **numbers}.get(column, "")) for column in COLUMNS]), flush=True)
    if keep:
        table = pd.DataFrame(measured, columns=COLUMNS)
        plain = table.astype(object).where(table.notna(), None).to_dict("records")
        about = {"command": command, "machine": describe_machine(), "date": datetime.date.today().isoformat()}
        kind = name_kind()
        folder = FOLDER / re.sub(r"[^a-z0-9]+", "-", kind.lower())
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{name}.json", {"kind": kind, **about, "rows": plain})
        write_tables()


def name_kind() -> str:
    """What kind of machine this is: its GPU, or the strongest instruction set of its CPU."""
    if torch.cuda.is_available():
        return f"CUDA {torch.cuda.get_device_name(0)}"
    found = find_instruction_sets()
    return next((kind for name, kind in KINDS.items() if name in found), "other CPUs")


def _line_up(cells: Sequence[str]) -> str:
    what, *others = cells
    return f"{what:<75}{''.join(f' {cell:>9}' for cell in others)}"


def describe_machine() -> str:
    """Processor, cores, instruction sets and GPUs."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.is_file() else None
    devices = [f"CUDA {torch.cuda.get_device_name(number)}" for number in range(torch.cuda.device_count())]
    cores = f"{format_count(count_cores(), 'core')} of {found[1].strip() if found else 'a CPU'}"
    return ", ".join([cores, *find_instruction_sets(), *devices])


def write_tables() -> None:
    """Write the tables of docs/benchmarks.md from what was kept, those of one kind of machine under one heading."""
    parts, last = [], ""
    for path in sorted(FOLDER.glob("*/*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["kind"] != last:
            parts.append(f"## {kept['kind']}")
            last = kept["kind"]
        parts.append(f"`{kept['command']}`: {kept['machine']}, {kept['date']}.")
        lines = ["| what | ours | baseline | ratio | wanted |", "| --- | --- | --- | --- | --- |"]
        for row in kept["rows"]:
            unit = f" {row['unit']}" if row["unit"] else ""
            cells = [
                row["what"].strip(),
                _show(row["ours"], unit),
                _show(row["baseline"], unit),
                _show(row["ratio"], ""),
            ]
            lines.append(f"| {' | '.join([*cells, row['wanted'] or ''])} |")
        parts.append("\n".join(lines))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(PAGE, "\n\n".join([f"{before}{BEGIN}", *parts, f"{END}{after}"]))


def _show(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.3g}{unit}" if abs(value) < 1000 else f"{value:,.0f}{unit}"


if __name__ == "__main__":
    write_tables()
