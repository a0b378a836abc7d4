"""``cxrlit train`` and ``cxrlit evaluate`` are the scripts; every command takes configs of the user's own."""

import io
import pickle
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest
from lab import Lab
from test_hydra_main import assert_one_line
from tiny import REPO, Outcome, launch_line, run_command

from cxrlit.commands import evaluate, train
from cxrlit.commands.cli import main

CONF = REPO / "conf"


def run_cxrlit(*arguments: str) -> Outcome:
    """Run ``cxrlit`` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", ["/bin/cxrlit", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def test_help_lists_every_command() -> None:
    shown = run_cxrlit("--help").out
    for name in ("train", "evaluate", "prepare", "inspect", "compare", "export", "predict", "demo"):
        assert f"\n    {name} " in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_command_calls_itself_as_it_was_called(name: str) -> None:
    script, command = run_command(f"{name}.py", "--help"), run_cxrlit(name, "--help", "seed=1")
    assert (command.code, command.err) == (0, "")
    assert f"python {name}.py" in script.out
    assert "python" not in command.out
    assert command.out == script.out.replace(f"python {name}.py", f"cxrlit {name}")
    assert_one_line(run_cxrlit(name, "a.b=1"), f"a.b: there is no such key; the keys are: cxrlit {name} --cfg job")
    assert_one_line(run_command(f"{name}.py", "a.b=1"), f"the keys are: python {name}.py --cfg job")


@pytest.mark.parametrize(
    "arguments", [["train", "--cfg", "job", "seed=3"], ["evaluate", "--cfg", "job", "ckpt=[a,b]", "seed=3"]]
)
def test_a_command_is_the_script(arguments: list[str]) -> None:
    outcome = run_cxrlit(*arguments)
    assert "seed: 3\n" in outcome.out
    assert outcome == run_command(f"{arguments[0]}.py", *arguments[1:])


def test_a_fault_is_the_same_line() -> None:
    for name, line in (("train", "imgsize=3"), ("evaluate", "-m ckpt=a,b")):
        outcome = run_cxrlit(name, *line.split())
        assert_one_line(outcome)
        assert outcome == run_command(f"{name}.py", *line.split())


MISTAKES = [
    ("prepare -sizes=[32]", "-sizes=[32]: settings have no dash: sizes=[32]"),
    ("prepare --sizes=[32]", "--sizes=[32]: settings have no dash: sizes=[32]"),
    ("inspect -img_size=320", "-img_size=320: settings have no dash: img_size=320"),
    ("compare a b -metric=f1", "-metric=f1: settings have no dash: metric=f1"),
    ("export a --out b -run=x", "-run=x: settings have no dash: run=x"),
    ("predict a b --out c -threads=3", "-threads=3: options have two dashes: --threads=3"),
    ("predict a b --out c --batchsize=3", "--batchsize=3: options have two dashes"),
    ("demo x y", "y: one argument too many"),
    ("demo x --port 80000", "--port: it is a number from 0 to 65535, not '80000'"),
    ("demo", "the following arguments are required: BUNDLE"),
    ("", "the following arguments are required: COMMAND"),
    ("trian", "trian: there is no such command; did you mean train?"),
    ("help", "help: there is no such command; there are train, evaluate, ablate, prepare"),
    ("prepare -m sizes=[32]", "-m: there is no such option"),
    ("prepare data nih", "data nih: settings are given as KEY=VALUE: data=nih"),
    ("prepare sizes=224,320", "sizes is a list: sizes=[224,320]"),
    ("prepare sizes=[224, 320]", "write 'sizes=[224, 320]'"),
    ("prepare --cfg job", "--cfg job: cxrlit prepare --cfg takes no word after it"),
    ("inspect seed=1,2", "seed=1,2: it takes one value"),
    ("inspect data=nih data.root=/x,y", "a comma separates values: a text with a comma is written data.root='"),
    ("inspect data=nih data.root=/é", "a value with é needs quotes: data.root='\"/é\"'"),
    ("inspect data=nih data.root=~/nowhere-at-all", "/nowhere-at-all: there is no such folder"),
    ("compare a", "the following arguments are required: CANDIDATE"),
    ("compare baseline=a candidate=b", "baseline=a: baseline is given without its key: a"),
    ("export ckpt=a --out b", "ckpt=a: ckpt is given without its key: a"),
    ("export a", "the following arguments are required: --out"),
    ("demo /", "/: no bundle: it has no SHA256SUMS; name the folder that cxrlit export wrote"),
    ("train -phase=highres", "-phase=highres: settings have no dash: phase=highres"),
    ("evaluate x.ckpt", "x.ckpt: write ckpt=x.ckpt"),
]


@pytest.mark.parametrize(("line", "part"), MISTAKES, ids=[line or "nothing" for line, _ in MISTAKES])
def test_a_mistake_of_any_command_is_one_line(line: str, part: str) -> None:
    outcome = run_cxrlit(*line.split())
    assert_one_line(outcome, part)
    assert "-m " not in outcome.err.removeprefix("error: -m: ")


def test_the_version_is_shown() -> None:
    assert run_cxrlit("--version").out.startswith("cxrlit 0.")


def test_completion_of_a_command_of_cxrlit_is_refused() -> None:
    assert_one_line(run_cxrlit("train", "-sc", "install=bash"), "it completes python train.py and python evaluate.py")


def test_jobs_in_other_processes_find_the_task_by_its_name() -> None:
    for run in (train.run, evaluate.run):
        assert pickle.loads(pickle.dumps(run)) is run


# ----------------------------------------------------------------------------- configs of the user's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder of configs in it."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /optimizer: mine\nseed: 77\n",
        "optimizer/mine.yaml": "_target_: torch.optim.SGD\nmomentum: 0.5\n",
        "phases/frozen.yaml": (CONF / "phases" / "frozen.yaml").read_text().replace("lr: 1.0e-3", "lr: 5.0e-3"),
    }.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_own_configs_are_found_and_come_first(own: Path) -> None:
    for place in ("own", str(own / "own")):
        [config], outcome = launch_line(["--config-dir", place, "experiment=mine", "phase=frozen"])
        assert outcome == Outcome(0, "", "")
        assert (config.seed, config.optimizer["momentum"]) == (77, 0.5)
        assert (config.phases["frozen"].lr, config.phases["finetune"].lr) == (5e-3, 1e-4)
    [config], _ = launch_line(["phase=frozen"])
    assert config.phases["frozen"].lr == 1e-3


def test_own_configs_are_shown(own: Path) -> None:
    shown = run_command("train.py", "--config-dir", "own", "--help").out
    assert "experiment: action_plan, cxr_start, fast, full, keras_port, mine, small_data, smoke\n" in shown
    assert "optimizer: adamw, mine, sgd\n" in shown
    shown = run_cxrlit("train", "--cfg", "job", "--config-dir=own", "experiment=mine").out
    assert "seed: 77\n" in shown
    assert "momentum: 0.5\n" in shown
    assert "lr: 0.005\n" in shown
    ours = "experiment: action_plan, cxr_start, fast, full, keras_port, small_data, smoke\n"
    assert ours in run_command("train.py", "--help").out


def test_points_of_a_sweep_are_of_own_configs(own: Path) -> None:
    checked, outcome = launch_line(["--config-dir", "own", "-m", "experiment=mine,smoke", "phase=frozen"])
    assert outcome == Outcome(0, "", "")
    assert len(checked) == 1
    assert_one_line(
        launch_line(["-cd", "own", "-m", "experiment=mine,nope"])[1],
        "experiment=nope",
        "it may be action_plan, cxr_start, fast, full, keras_port, mine, small_data, smoke",
    )


@pytest.mark.parametrize("line", ["evaluate ckpt=a", "prepare", "inspect", "compare a b", "export a --out b"])
def test_own_configs_of_every_command(own: Path, line: str) -> None:
    name, *arguments = line.split()
    default = (CONF / f"{name}.yaml").read_text()
    (own / "own" / f"{name}.yaml").write_text(f"{default}\nof_my_own: 1\n")
    show = ["--cfg", "job"] if name == "evaluate" else ["--cfg"]
    assert "of_my_own: 1\n" in run_cxrlit(name, *arguments, "--config-dir", "own", *show).out
    assert "of_my_own" not in run_cxrlit(name, *arguments, *show).out
    assert_one_line(run_cxrlit(name, *arguments, "--config-dir", "nope"), "--config-dir nope: there is no such folder")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("seed: [1\nx: {", "mine.yaml, line 2: expected ',' or ']'"),
        ("seed: 1\nseed: 2\n", "mine.yaml, line 2: found duplicate key seed"),
        ("# @package _global_\ndefaults:\n  - override /optimizer: nope\n", "optimizer=nope: there is no such choice"),
        ("# @package _global_\nimgsize: 3\n", "imgsize: there is no such key; did you mean img_size?"),
        ("# @package _global_\nlr: fast\n", "lr=fast: input should be a valid number"),
        ("\xff", "a config file is not text in UTF-8"),
    ],
)
@pytest.mark.parametrize("option", ["", "--help"])
def test_a_fault_of_an_own_config_is_one_line(own: Path, text: str, part: str, option: str) -> None:
    (own / "own" / "experiment" / "mine.yaml").write_text(text, encoding="latin-1")
    checked, outcome = launch_line([*option.split(), "--config-dir", "own", "experiment=mine"])
    assert not checked
    if not option or not ("imgsize" in text or "lr" in text):
        assert_one_line(outcome, part)
    else:  # it is shown as it stands
        assert outcome.code == 0


@pytest.mark.slow
def test_own_classes_are_found_in_the_current_folder(
    lab: Lab, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (own / "cxrlit_seen.py").write_text(
        "from pytorch_lightning import Callback\n\n\n"
        "class Seen(Callback):\n"
        "    def on_train_start(self, trainer, pl_module):\n"
        "        print('seen by a class of my own')\n"
    )
    outcome = lab.train("+callbacks.seen._target_=cxrlit_seen.Seen")
    assert outcome.code == 0, outcome.err
    assert "seen by a class of my own\n" in outcome.out
    assert_one_line(lab.train("+callbacks.seen._target_=cxrlit_unseen.Seen"), "No module named 'cxrlit_unseen'")
