"""Data sets for ``cxrlit inspect``: NIH's layout, with names and files that a test chooses."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from inspecting import Row

from cxrlit.config import InspectConfig, read_config

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set of these rows, with official lists."""

    def write(rows: Sequence[Row], name: str = "rows") -> Path:
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        with (root / "Data_Entry_2017_v2020.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["Image Index", "Finding Labels", "Patient ID"])
            writer.writerows((row.image, row.findings, row.patient) for row in rows)
        for part, name in (("train_val", "train_val_list.txt"), ("test", "test_list.txt")):
            (root / name).write_text("\n".join(row.image for row in rows if row.part == part), encoding="utf-8")
        for row in rows:
            if row.content is not None:
                (root / "images" / row.image).write_bytes(row.content)
        return root

    return write


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., InspectConfig]:
    """The config of ``cxrlit inspect data=nih`` with changes, as on a command line."""

    def make(root: Path, *changes: str) -> InspectConfig:
        overrides = ["data=nih", f"data.root={root}", f"out={tmp_path / 'page.html'}", f"cache_dir={tmp_path}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return read_config(compose("inspect", overrides=[*overrides, *changes]), InspectConfig)

    return make
