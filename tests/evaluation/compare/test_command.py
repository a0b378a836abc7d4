"""``cxrlit compare``: the answer on the screen, in files and as an exit code; and no other meaning of those codes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from made_up import LABELS, draw_table, make_point, write_evaluation
from PIL import Image
from tiny import REPO, plain_environment, run_command

from cxrlit.commands.cli import main
from cxrlit.config import CompareConfig
from cxrlit.evaluation.compare import command as verdict
from cxrlit.evaluation.predictions import write_predictions

BASE, GOOD = draw_table(0, n_patients=120), draw_table(0, n_patients=120, shift=2.5)
FILES = ("comparison.json", "changes.csv", "changes_auroc.png", "changes_f1.png")
FAST = ("n_replicates=100", "must_improve=[Nodule]")


def compare(*arguments: str) -> int:
    """The exit code."""
    try:
        main(["compare", *arguments])
    except SystemExit as end:
        return -1 if not isinstance(end.code, int) else end.code
    return 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with three phases: ``old-1``, ``new-2`` and ``near-3``, and an ``other-4`` of another split."""
    near = BASE.assign(prob_Nodule=np.where(np.arange(len(BASE)) % 50, BASE["prob_Nodule"], GOOD["prob_Nodule"]))
    for name, table in (("old-1", BASE), ("new-2", GOOD), ("near-3", near)):
        write_evaluation(tmp_path / name / "eval", table, checkpoint=f"{name}/best.ckpt")
    write_evaluation(tmp_path / "other-4" / "eval", BASE, checkpoint="other-4/best.ckpt", split_hash="ba9876543210")
    for path in tmp_path.iterdir():
        (path / "phase.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("pair", "settings", "code", "answer"),
    [
        (("old-1", "new-2"), (), 0, "yes: Nodule improved, no other label was harmed and the macro rose"),
        (("old-1", "new-2"), ("metric=f1",), 0, "yes: Nodule improved, no other label was harmed and the macro rose"),
        (
            ("new-2", "old-1"),
            (),
            1,
            "no: Nodule did not improve, Mass and Pneumonia were harmed and the macro did not rise",
        ),
        (("old-1", "old-1"), ("margin=0.5", "must_improve=[]"), 1, "no: the macro did not rise"),
        (("old-1", "near-3"), (), 2, "not decided by these data: whether Nodule improved and whether the macro rose"),
    ],
)
def test_the_answer_is_said_written_and_returned(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    pair: tuple[str, str],
    settings: Sequence[str],
    code: int,
    answer: str,
) -> None:
    before = list_files(folder)
    assert compare(*pair, *FAST, *settings) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert answer in out.splitlines()
    results = Path(pair[1]) / "eval" / "comparison" / pair[0]
    assert f"Tables and pictures are in {results}" in out.splitlines()
    assert list_files(folder) - before == {str(results / name) for name in FILES}
    written = json.loads((results / "comparison.json").read_text())
    assert written["answer"] == answer
    assert written["verdict"] == {0: "yes", 1: "no", 2: "undecided"}[code]
    assert written["question"]["metric"] == ("f1" if settings == ("metric=f1",) else "auroc")
    assert written["candidate"] == {
        "name": f"{pair[1]}/best.ckpt",
        "predictions": str(folder / pair[1] / "eval" / "predictions_test.csv"),
        "thresholds": str(folder / pair[1] / "eval" / "thresholds.json"),
        "split_name": "official",
        "split_hash": "0123456789ab",
        "predicted": None,
    }
    assert (written["n_images"], written["n_patients"], written["n_replicates"]) == (len(BASE), 120, 100)
    assert [criterion["label"] for criterion in written["criteria"]] == [*LABELS, "macro"]
    table = pd.read_csv(results / "changes.csv", dtype={"reason": str}).fillna({"reason": ""})
    rows = pd.DataFrame(written["changes"]).astype(table.dtypes)
    pd.testing.assert_frame_equal(table, rows, check_exact=True)
    for row in table.to_dict("records"):
        assert f"{row['candidate']:.4f}" in out
        assert f"{row['change']:+.4f}" in out
    for name in FILES[2:]:
        with Image.open(results / name) as picture:
            assert picture.width > 600
            picture.verify()


def test_files_of_anybody_and_thresholds_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In another order of rows and labels; a path may hold what a setting may not."""
    mine = folder / "mine = yours" / "a.csv"
    columns = [f"{kind}_{label}" for label in LABELS[::-1] for kind in ("target", "prob")]
    write_predictions(mine, GOOD.sample(frac=1, random_state=0)[["patient", *columns, "image"]])
    assert compare("old-1", str(mine), *FAST) == 0
    out, _ = capsys.readouterr()
    assert "F1 is excluded: a.csv has no thresholds: there is no thresholds.json beside a.csv" in out
    results = mine.parent / "comparison" / "a-against-old-1"
    assert list_files(results) == set(FILES[:3])
    assert json.loads((results / "comparison.json").read_text())["left_out"].keys() == {"f1"}
    make_point(threshold=0.4).write(folder / "t.json")
    assert compare("old-1", str(mine), *FAST, "thresholds.candidate=t.json", f"out={folder / 'there'}") == 0
    out, _ = capsys.readouterr()
    assert "F1 is excluded" not in out
    written = json.loads((folder / "there" / "comparison.json").read_text())
    assert written["candidate"]["thresholds"] == str(folder / "t.json")
    assert set(pd.read_csv(folder / "there" / "changes.csv")["metric"]) == {"auroc", "f1"}
    assert [line for line in out.splitlines() if line.startswith("warning: F1: the thresholds of the baseline")]
    assert written["warnings"]


def test_parquet_and_csv_are_the_same(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    GOOD.to_parquet(folder / "good.parquet")
    write_predictions(folder / "good.csv", GOOD)
    assert [compare("old-1", f"good.{kind}", *FAST, f"out={folder / kind}") for kind in ("csv", "parquet")] == [0, 0]
    assert (folder / "csv" / "changes.csv").read_bytes() == (folder / "parquet" / "changes.csv").read_bytes()


def test_another_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, table in (("old-1", BASE), ("new-2", GOOD)):
        write_evaluation(folder / name / "eval", table, part="val", checkpoint=f"{name}/best.ckpt")
    assert compare("old-1", "new-2", *FAST, "split=val") == 0
    assert "warning: epochs and thresholds were chosen on these images" in capsys.readouterr().out
    assert (folder / "new-2" / "eval" / "comparison" / "old-1-val" / "changes.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "the following arguments are required: BASELINE, CANDIDATE"),
        (["old-1"], "the following arguments are required: CANDIDATE"),
        (["old-1", "new-2", "--fast"], "error: --fast: there is no such option; cxrlit compare --help"),
        (["old-1", "nope"], "error: nope: there is no such folder or file"),
        (["old-1", "metric=f1"], "error: metric=f1: there is no such folder or file"),
        (["old-1", "new-2", "margins=0.1"], "error: margins: there is no such key; did you mean margin?"),
        (["old-1", "new-2", "baseline=x"], "baseline: there is no such key; did you mean thresholds.baseline?"),
        (["old-1", "new-2", "margin=-1"], "error: margin=-1: input should be greater than or equal to 0"),
        (["old-1", "new-2", "metric=auc"], "error: metric=auc: input should be 'auroc' or 'f1'"),
        (["old-1", "new-2", "n_replicates=5"], "error: n_replicates=5: input should be greater than or equal to 100"),
        (["old-1", "new-2", "split=../x"], "error: split=../x: string should match"),
        (["old-1", "new-2", "must_improve=[Mass,Mass]"], "error: must_improve names each label once"),
        (
            ["old-1", "new-2", "must_improve=[Hernia]"],
            "error: must_improve: Hernia is none of the labels; they are Mass",
        ),
        (["old-1", "new-2"], "error: must_improve: Pneumonia is none of the labels; they are"),
        (["old-1", "other-4", *FAST], "is ba9876543210: models are compared on one split"),
        (["old-1", "new-2", *FAST, "thresholds.baseline=nope.json"], "nope.json: No such file or directory"),
        (["old-1", "new-2", *FAST, "out=old-1/phase.json/x"], "error: "),
        (["old-1", "bad.csv", *FAST], "more: prob_Mass is 1.7, outside [0, 1]"),
        (
            ["a/predictions_1.csv", "a/predictions_2.csv", *FAST],
            "thresholds.json lies beside both: say thresholds.base",
        ),
    ],
)
def test_every_fault_is_3_and_one_line_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    if len(arguments) == 2 and arguments[1] == "new-2":  # the default asks for labels that these lack
        for name in ("old-1", "new-2"):
            write_evaluation(
                folder / name / "eval", draw_table(0, 9, ["Mass"]), make_point(["Mass"]), checkpoint=f"{name}/best.ckpt"
            )
    for number, table in enumerate((BASE, GOOD), start=1):
        write_evaluation(folder / "a", table, part=str(number))
    write_predictions(folder / "bad.csv", GOOD.assign(prob_Mass=1.7))
    before = list_files(folder)
    assert compare(*arguments) == 3
    out, err = capsys.readouterr()
    assert part in err
    assert "Traceback" not in err
    assert err.count("\n") == 1 or err.startswith("usage:")
    assert "yes" not in out.split("\n")[0]
    assert "KEY=VALUE" not in err.partition("required")[2]
    assert list_files(folder) == before


def test_a_fault_of_the_program_is_3_too(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own exit code for it is 1, which would be an answer."""
    monkeypatch.setattr(verdict, "compare_predictions", lambda *_: 1 / 0)
    assert compare("old-1", "new-2", *FAST) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_settings_and_help_are_shown_and_nothing_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = list_files(folder)
    assert compare("old-1", "new 2", "margin=0.02", "--cfg") == 0
    out = capsys.readouterr().out
    assert "baseline: old-1\ncandidate: new 2\n" in out
    assert "margin: 0.02" in out
    assert sorted(yaml.safe_load(out)) == sorted(CompareConfig.model_fields)
    assert compare("--help") == 0
    shown = capsys.readouterr().out
    assert "BASELINE" in shown
    assert "keys: split, thresholds, metric," in " ".join(shown.split())
    assert list_files(folder) == before


@pytest.mark.slow
def test_two_phases_of_a_chain_and_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    phases = []
    for phase in ("frozen", "finetune"):
        outcome = run_command("train.py", "experiment=smoke", f"phase={phase}", "evaluate=true")
        assert outcome.code == 0, outcome.err
        phases += [str(path) for path in tmp_path.glob(f"runs/*/{phase}-*") if path.is_dir()]
    done = subprocess.run(
        [sys.executable, "-c", "from cxrlit.commands.cli import main; main()", "compare", *phases],
        cwd=tmp_path, env=plain_environment(PYTHONPATH=str(REPO)), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1, 2)
    assert done.stderr == ""
    assert "warning: the candidate started from the baseline" in done.stdout
    [written] = tmp_path.glob("runs/*/finetune-*/eval/comparison/frozen-*/comparison.json")
    assert json.loads(written.read_text())["verdict"] == ("yes", "no", "undecided")[done.returncode]
    compare(*phases[::-1])
    assert "warning: the baseline started from the candidate" in " ".join(capsys.readouterr().out.split())
    assert compare(*phases, "margin=x") == 3
    assert compare(phases[0]) == 3
