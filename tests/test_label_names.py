"""Labels as data sets name them: a slash, parentheses and letters of any script go through every command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from lab import QUICK
from PIL import Image
from tiny import run_command
from trees import write_vindr_tree

from cxrlit.commands.cli import main

LABELS = ("Nodule/Mass", "Mass", "Épanchement (D+G)")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 patients of noise, their images in a folder whose name needs quotes."""
    folder = tmp_path_factory.mktemp("data") / "Müller, (2) #1 [x]"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "t.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "patient", *LABELS])
        for number in range(40):
            Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", number, *rng.integers(0, 2, 3)])
    return folder / "t.csv"


@pytest.mark.slow
def test_names_with_a_slash_go_through_every_command(
    table: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = 'labels=[Nodule/Mass,Mass,"Épanchement (D+G)"]'
    data = ["data=table", f'data.table="{table}"', f'data.root="{table.parent}"', "data.columns.patient=patient"]
    run = [labels, *data, f"cache_dir={tmp_path / 'cache'}"]
    phase = ["phase=frozen", "img_size=32", "batch_size=8", "max_epochs=1", f"model.weights={weights}"]
    outcome = run_command(
        "train.py", *run, *phase, f"runs_dir={tmp_path}", "trainer.num_workers=0", "trainer.precision=fp32",
        "evaluate=false", "logger=[csv,tensorboard]",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    [folder] = tmp_path.glob("default/frozen-*")
    outcome = run_command("evaluate.py", f"ckpt={folder}", *[key for key in QUICK if "=false" not in key][:2],
                          "localise=gradcam", f"cache_dir={tmp_path / 'cache'}")  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    with (folder / "eval" / "predictions_test.csv").open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert [name for name in header if name.startswith("prob_")] == [f"prob_{label}" for label in LABELS]
    assert "Nodule/Mass" in (folder / "eval" / "report.html").read_text(encoding="utf-8")
    sheets = [path.name for path in (folder / "eval").rglob("*.png")]
    assert any("ass" in name for name in sheets), sheets
    bundle = tmp_path / "bundle"
    main(["export", str(folder), "--out", str(bundle), f"cache_dir={tmp_path / 'cache'}"])
    main(["predict", str(bundle), str(table.parent / "0.png"), "--out", str(tmp_path / "p.json"), "--json",
          "--heatmaps"])  # fmt: skip
    [line] = (tmp_path / "p.json").read_text(encoding="utf-8").splitlines()
    assert list(json.loads(line)["probs"]) == list(LABELS)
    other = tmp_path / "again.csv"
    main(["predict", str(bundle), str(table.parent), "--out", str(other)])
    assert "prob_Nodule/Mass" in other.read_text(encoding="utf-8").splitlines()[0]
    with pytest.raises(SystemExit):
        main(["compare", str(folder), str(folder), "must_improve=[Nodule/Mass]", f"out={tmp_path / 'compared'}"])
    assert "Nodule/Mass" in capsys.readouterr().out


def test_vindr_names_a_label_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tmp_path / "vindr"
    write_vindr_tree(tree)
    main(["inspect", "data=vindr", f"data.root={tree}", "data.patient=image", "labels=[Nodule/Mass]", "n_sample=2",
          f"cache_dir={tmp_path}", f"out={tmp_path / 'page.html'}"])  # fmt: skip
    shown = capsys.readouterr().out
    assert "Nodule/Mass" in shown
    assert "Nodule/Mass" in (tmp_path / "page.html").read_text(encoding="utf-8")
