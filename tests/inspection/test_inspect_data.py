"""The command: what it prints, what it writes, and what it does where something is wrong."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from inspecting import Row, encode, fill, noise, read

from cxrlit.commands.cli import main
from cxrlit.config import InspectConfig
from cxrlit.core.errors import ConfigError
from cxrlit.html.tables import make_figures
from cxrlit.inspection.inspect_data import inspect_data
from cxrlit.inspection.survey import survey_data
from cxrlit.inspection.terminal_tables import print_survey, print_tables

ConfigMaker = Callable[..., InspectConfig]
RowWriter = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def cells_of(text: str, name: str) -> list[str]:
    """The cells of a row of a printed table."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    [cells] = [cells for first, *cells in rows if first == name]
    return cells


def test_the_command_prints_the_figures_and_writes_the_page(nih_tree: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "new" / "folder" / "page.html"
    main(["inspect", "data=nih", f"data.root={nih_tree}", f"cache_dir={tmp_path}", f"out={out}"])
    text = capsys.readouterr().out
    n_images, n_test = (len(list(nih_tree.rglob("*.png"))), len((nih_tree / "test_list.txt").read_text().split()))
    assert f"nih: {n_images} images of 40 patients" in text
    assert re.search(r"^official split [0-9a-f]{12}$", text, re.MULTILINE)
    images = cells_of(text, "images")
    assert images[0] == str(n_images)
    assert images[3] == f"{n_test} ({100 * n_test / n_images:.1f} %)"
    assert cells_of(text, "images read") == [str(n_images)]
    assert cells_of(text, "sizes, pixels") == [f"48 x 48: {n_images} (100.0 %)"]
    assert cells_of(text, "modes") == [f"L: {n_images} (100.0 %)"]
    assert text.rstrip().endswith(f"The page (HTML): {out}")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    assert out.read_text().rstrip().endswith("</html>")


def test_the_screen_says_what_was_counted(nih_tree: Path, make_config: ConfigMaker, capsys: Capture) -> None:
    config = make_config(nih_tree)
    survey = survey_data(read(config), config.data)
    print_survey(survey)
    tables = capsys.readouterr().out.split("Prevalence of each label")
    prevalence, together = tables[1].split("Images with both labels")
    whole = survey.counts[0]
    for k, label in enumerate(survey.data.labels):
        assert cells_of(tables[0], label) == [f"{part.positives[k]} / {part.negatives[k]}" for part in survey.counts]
        changes = [100 * (part.prevalence[k] / whole.prevalence[k] - 1) for part in survey.counts]
        expected = [f"{100 * part.prevalence[k]:.1f} %" for part in survey.counts]
        expected[1:] = [f"{text} {change:+.1f} %" for text, change in zip(expected[1:], changes[1:], strict=True)]
        assert cells_of(prevalence, label) == expected
        assert cells_of(together, f"{k + 1} {label}") == [str(number) for number in whole.together[k]]


def test_what_is_wrong_is_said(write_rows: RowWriter, make_config: ConfigMaker, capsys: Capture) -> None:
    twin = encode(noise(0))
    rows = [
        Row("one.png", twin, "Nodule", "a"),
        Row("two.png", twin, "No Finding", "b", "test"),
        Row("[red]bad.png", b"", "Mass", "c"),
        Row("[/red]\x1b[31mgone.png", None, "Mass", "d"),
    ]
    config = make_config(write_rows(fill(rows)), "labels=[Mass,Nodule]", "data.max_dropped=0.01")
    inspect_data(config)
    text = capsys.readouterr().out
    assert "1 image is dropped:" in text
    assert "1: not on disk (such as [/red]\\x1b[31mgone.png)" in text
    assert "1: empty file (such as [red]bad.png)" in text
    assert "\x1b" not in text
    warnings = [line for line in text.splitlines() if line.startswith("warning: ")]
    for part in (
        "training will stop: 1 of 34 images cannot be used",
        "1 of 33 images that were read cannot be decoded, such as [red]bad.png: empty file",
        "different parts of the split: this is a leak (one.png = two.png)",
        "test has no positive image of Nodule: no AUROC there",
    ):
        assert sum(part in line for line in warnings) == 1, part
    page = Path(config.out).read_text()
    assert "this is a leak" in page
    assert "test, train: leak" in page


def test_what_was_said_while_reading_is_on_the_page(
    write_rows: RowWriter, make_config: ConfigMaker, capsys: Capture
) -> None:
    """Once on the screen, as in a training; the page has it among its concerns."""
    gray = encode(np.repeat(noise(3)[..., None], 3, axis=2))
    rows = fill([Row("gray.png", gray, "Mass", "a")])
    root = write_rows(rows)
    cells = [(row.image, row.patient, place % 2, ("train", "test")[place % 2]) for place, row in enumerate(rows)]
    table = pd.DataFrame(cells, columns=["image", "patient", "Mass", "stage"])
    table.to_csv(root / "images" / "t.csv", index=False)
    config = make_config(root / "images", "data=table", f"data.table={root / 'images' / 't.csv'}", "labels=[Mass]")
    inspect_data(config)
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    page = Path(config.out).read_text()
    for said in ("the column stage looks like the split of each image", "1 image is gray saved as RGB: gray.png"):
        assert sum(said in line for line in warnings) == 1, said
        assert said in page.partition("Images of the sample")[0]


def test_what_stands_in_a_table_is_no_markup(capsys: Capture) -> None:
    print_tables(make_figures("", ["", "[b]"], [("[red]name", ["[/red] [link=x]y"])]))
    assert cells_of(capsys.readouterr().out, "[red]name") == ["[/red] [link=x]y"]


def test_a_split_that_cannot_be_made(write_rows: RowWriter, make_config: ConfigMaker, capsys: Capture) -> None:
    config = make_config(write_rows([Row("a.png", encode(noise(0)), "Mass"), Row("b.png", encode(noise(1)))]))
    inspect_data(config)
    text = capsys.readouterr().out
    assert re.search(r"^no split: nih: its own split has no test part", text, re.MULTILINE)
    assert "warning: there is no split" in text
    assert cells_of(text, "images") == ["2"]
    page = Path(config.out).read_text()
    assert "no split: nih: its own split has no test part" in page
    assert "Labels together, all" in page
    assert "Labels together, train" not in page
    assert "split hash" not in page


def test_images_in_a_store_are_not_read(nih_tree: Path, make_config: ConfigMaker) -> None:
    config = make_config(nih_tree)
    data = read(config)
    assert survey_data(data, config.data).readable.all()
    survey = survey_data(replace(data, stores={"nih": "memory://x"}), config.data)
    assert not survey.readable.any()
    sources = np.where(np.arange(len(data.index)) % 2, "nih", "other")
    index = data.index.assign(source=sources)
    both = replace(data, sources=("nih", "other"), index=index, stores={"other": "memory://x"}, official={})
    survey = survey_data(both, config.data)
    assert survey.readable.tolist() == survey.rows["image"].str.startswith("nih/").tolist()


def test_a_stored_data_set_has_a_page_without_images(
    nih_tree: Path, make_config: ConfigMaker, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(nih_tree)
    data = replace(read(config), stores={"nih": "memory://x"})
    monkeypatch.setattr("cxrlit.inspection.inspect_data.read_data", lambda *_: data)
    inspect_data(config)
    text = capsys.readouterr().out
    assert "Images of nih are in a prepared store" in text
    assert "images read" not in text
    page = Path(config.out).read_text()
    assert "data:image/png" not in page
    assert "Images of nih are in a prepared store" in page
    assert "No image could be read." in page


def test_every_image_its_own_patient_is_a_concern(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    config = make_config(write_rows(fill([])))
    assert any("patient of its own" in line for line in survey_data(read(config), config.data).concerns)
    rows = fill([Row("a.png", encode(noise(0)), patient="a"), Row("b.png", encode(noise(1)), patient="a")])
    config = make_config(write_rows(rows, "other"))
    assert not any("patient of its own" in line for line in survey_data(read(config), config.data).concerns)


def test_out_may_not_be_a_folder(nih_tree: Path, make_config: ConfigMaker, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(ConfigError, match=r"is a folder: name the page, such as out=.*inspect\.html"):
        inspect_data(make_config(nih_tree, f"out={tmp_path}"))
    assert capsys.readouterr().out == ""


def test_the_real_sample(nih_sample: Path, make_config: ConfigMaker, capsys: Capture) -> None:
    inspect_data(make_config(nih_sample, "n_sample=40"))
    text = capsys.readouterr().out
    assert cells_of(text, "images")[0] == "1,000"
    assert cells_of(text, "patients")[0] == "816"
    assert cells_of(text.partition("Prevalence")[0], "Pneumonia")[0] == "296 / 704"
    assert cells_of(text, "cannot be decoded") == ["0 (0.0 %)"]
