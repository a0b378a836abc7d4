"""Two processes and more train and evaluate as one does."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cutting import Cut, before_call, cut
from lab import QUICK, Lab, evaluate
from several import read_outcomes, run_ranks, start_ranks, wait_for
from sklearn.metrics import roc_auc_score
from tiny import REPO, plain_environment, run_command, write_tree

from cxrlit.core.labels import LABELS
from cxrlit.core.signals import REQUEUE_EXIT_CODE
from cxrlit.model.archive import read_archive
from cxrlit.model.module import CXRModule
from cxrlit.training.resume import list_states

TWO = ("trainer=ddp", "trainer.devices=2")
SCRATCH = (
    "phase=scratch", "model.weights=none", "max_epochs=1", "lr=1e-3", "metrics.train=true", "batch_size=17",
    "optimizer._target_=torch.optim.SGD",
)  # fmt: skip
SCHEDULE = (
    "phase=finetune", "n_unfreeze=50", "phases.finetune.n_unfreeze_schedule={1:10,2:50}", "max_epochs=2", "lr=1e-4",
    "batch_size=11", "optimizer._target_=torch.optim.SGD", "metrics.train=true",
)  # fmt: skip
"""34 training images in batches of 11: the last has one, and one of two devices has none."""
LONG = ("max_epochs=3", "metrics.train=true", "logger=csv", "trainer.checkpoint_every_n_steps=2")


def list_command(lab: Lab, *arguments: str) -> list[str]:
    start = () if "model.weights" in " ".join(arguments) else lab.list_start()
    return ["train.py", *lab.list_settings(), *start, *arguments]


def make_labs(folder: Path, cache: Path, tree: Path, weights: Path) -> tuple[Lab, Lab]:
    return Lab(folder / "one", cache, tree, weights), Lab(folder / "two", cache, tree, weights)


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of data of which many targets are unknown."""
    root = write_tree(tmp_path_factory.mktemp("unsure") / "nih", table=False)
    rng = np.random.default_rng(0)
    cells = rng.choice(["0", "1", ""], size=(50, len(LABELS)), p=[0.4, 0.3, 0.3])
    table = pd.DataFrame(cells, columns=LABELS)
    table.insert(0, "image", [f"images/{row:04d}.png" for row in range(50)])
    table.insert(1, "split", rng.permutation(["train"] * 34 + ["val"] * 9 + ["test"] * 7))
    table.to_csv(root / "table.csv", index=False)
    return ["data=table", f"data.table={root / 'table.csv'}", "data.patient=image", "data.columns.split=split"]


def assert_close(one: Path, two: Path, tolerance: float = 2e-4) -> None:
    """Two phase folders hold the same training but for the last digits."""
    assert one.name == two.name
    metrics = [pd.read_csv(folder / "metrics.csv") for folder in (one, two)]
    pd.testing.assert_frame_equal(*metrics, rtol=tolerance, atol=1e-6)
    states = [read_archive(folder / "last.ckpt")["state_dict"] for folder in (one, two)]
    for name, tensor in states[0].items():
        np.testing.assert_allclose(states[1][name], tensor, rtol=tolerance, atol=tolerance, err_msg=name)
    records = [json.loads((folder / "phase.json").read_text()) for folder in (one, two)]
    assert records[0].keys() == records[1].keys()
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}


@pytest.mark.slow
def test_two_devices_train_as_one_with_the_whole_batch(
    tmp_path: Path, cache: Path, tree: Path, weights: Path, unsure: list[str]
) -> None:
    one, two = make_labs(tmp_path, cache, tree, weights)
    sweep = [SCRATCH, (*SCHEDULE, *unsure)]
    outcomes = run_ranks(tmp_path / "ranks", 2, *(list_command(two, *settings, *TWO) for settings in sweep))
    for settings, first, second in zip(sweep, *outcomes, strict=True):
        assert (first.code, first.err) == (0, "")
        assert (second.code, second.err, second.out.strip()) == (0, "", "")  # one of them speaks
        done = run_command(*list_command(one, *settings))
        assert done.code == 0, done.err
    folders = sorted(one.runs.glob("*/*-*/"))
    assert [folder.name.partition("-")[0] for folder in folders] == ["finetune", "frozen", "scratch"]
    for folder in folders:
        assert_close(folder, two.runs / folder.relative_to(one.runs))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Path:
    """The phase folder of a training on one device. Not to be changed."""
    return Lab(tmp_path_factory.mktemp("whole"), cache, tree, weights).train_well(*LONG)


def cut_off(lab: Lab, folder: Path, signals: dict[int, int]) -> tuple[list[int], Path]:
    """Two processes train, and before the 8th step some send themselves a signal: exit codes, phase folder."""
    processes = start_ranks(folder, 2, list_command(lab, *LONG, *TWO), signals=signals, step=8)
    codes = wait_for(processes)
    [phase] = lab.runs.glob("*/frozen-*/")
    return codes, phase


@pytest.mark.slow
def test_where_a_process_dies_the_other_ends_and_one_device_goes_on(lab: Lab, whole: Path, tmp_path: Path) -> None:
    codes, phase = cut_off(lab, tmp_path / "ranks", {1: signal.SIGKILL})
    assert codes == [0, -signal.SIGKILL]  # of the processes that run the commands
    [outcome] = read_outcomes(tmp_path / "ranks", 0)
    assert outcome.code == 2
    assert re.fullmatch(r"error: rank 0: another process has ended or cannot be reached; .*\n", outcome.err)
    assert [path.name for path in list_states(phase)] == ["resume-000000006.ckpt", "resume-000000005.ckpt"]
    done = lab.train(*LONG)
    assert "resume at epoch 2, step 6" in done.out
    assert_close(phase, whole)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step_and_both_go_on(
    lab: Lab, whole: Path, tmp_path: Path
) -> None:
    codes, phase = cut_off(lab, tmp_path / "ranks", {1: signal.SIGTERM})
    assert codes == [0, 0]
    outcomes = [read_outcomes(tmp_path / "ranks", rank)[0] for rank in range(2)]
    assert [outcome.code for outcome in outcomes] == [REQUEUE_EXIT_CODE] * 2
    assert outcomes[0].err == "interrupted by SIGTERM: saved at epoch 2, step 8; the same command goes on\n"
    assert outcomes[1].err == ""
    assert list_states(phase)[0].name == "resume-000000008.ckpt"
    [[done], [other]] = run_ranks(tmp_path / "again", 2, list_command(lab, *LONG, *TWO))
    assert (done.code, done.err, other.code, other.err) == (0, "", 0, "")
    assert "resume at epoch 2, step 8" in done.out
    assert_close(phase, whole)


@pytest.mark.slow
def test_two_devices_go_on_with_what_one_has_begun_and_a_divergence_is_said_once(
    lab: Lab, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(Cut), before_call(CXRModule, "training_step", 8, cut):
        lab.train(*LONG)
    [phase] = lab.runs.glob("*/frozen-*/")
    diverging = (
        "phase=scratch", "model.weights=none", "optimizer._target_=torch.optim.SGD", "+optimizer.momentum=1.5", "lr=10",
        "phases.scratch.scheduler=null", "max_epochs=20",
    )  # fmt: skip
    commands = [list_command(lab, *settings, *TWO) for settings in (LONG, diverging)]
    [[done, diverged], [other, other_diverged]] = run_ranks(tmp_path / "ranks", 2, *commands)
    assert (done.code, done.err, other.code, other.err) == (0, "", 0, "")
    assert_close(phase, whole)
    assert diverged.code == other_diverged.code == 2
    assert re.match(
        r"error: (the loss is (nan|inf)|.* holds NaN or infinity|lr=10: the training diverged)", diverged.err
    )
    assert diverged.err.count("\n") == 1
    assert other_diverged.err == ""


@pytest.mark.slow
def test_torchrun_trains_and_evaluates(lab: Lab, whole: Path, tmp_path: Path) -> None:
    script, *arguments = list_command(lab, *LONG, *TWO)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(REPO / script)]
    done = subprocess.run(
        [*run, *arguments, "evaluate=true"],
        env=plain_environment(PYTHONPATH=str(REPO), OMP_NUM_THREADS="1"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The results are in ") == 1
    [phase] = lab.runs.glob("*/frozen-*/")
    evaluate(whole, tmp_path / "eval")
    for name in ("predictions_val.csv", "predictions_test.csv"):
        table, other = (pd.read_csv(folder / name) for folder in (phase / "eval", tmp_path / "eval"))
        raw = [column for column in table if not column.startswith("calibrated_")]
        pd.testing.assert_frame_equal(table[raw], other[raw], atol=1e-5)
        pd.testing.assert_frame_equal(table, other, atol=1e-4)  # calibration is fitted on few images


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,001 images, none of them of the training."""
    return write_tree(tmp_path_factory.mktemp("thousand") / "nih", n_patients=1001, seed=7)


@pytest.mark.slow
def test_each_image_is_evaluated_once_on_any_number_of_devices(
    frozen: Path, cache: Path, thousand: Path, tmp_path: Path
) -> None:
    def list_arguments(n_devices: int) -> list[str]:
        data = ["data=table", f"data.root={thousand}", f"data.table={thousand / 'table.csv'}", "data.name=other"]
        return ["evaluate.py", f"ckpt={frozen}", *data, "data.patient=image", f"out={tmp_path / str(n_devices)}",
                *QUICK, f"cache_dir={cache}", f"trainer.devices={n_devices}"]  # fmt: skip

    table = pd.read_csv(thousand / "Data_Entry_2017_v2020.csv")
    targets = {label: table["Finding Labels"].str.contains(label).astype(int) for label in LABELS}
    images = [f"images/{name}" for name in table["Image Index"]]
    pd.DataFrame({"image": images, **targets}).to_csv(thousand / "table.csv", index=False)
    outcome = run_command(*list_arguments(1))
    assert outcome.code == 0, outcome.err
    one = pd.read_csv(tmp_path / "1" / "predictions_external.csv")
    assert len(one) == one["image"].nunique() == 1001
    for n_devices in (2, 3, 4):
        outcomes = run_ranks(tmp_path / f"ranks-{n_devices}", n_devices, list_arguments(n_devices))
        assert [(outcome.code, outcome.err) for [outcome] in outcomes] == [(0, "")] * n_devices
        assert [outcome.out.strip() == "" for [outcome] in outcomes] == [False] + [True] * (n_devices - 1)
        several = pd.read_csv(tmp_path / str(n_devices) / "predictions_external.csv")
        calibrated = [name for name in one if name.startswith("calibrated_")]
        pd.testing.assert_frame_equal(one.drop(columns=calibrated), several.drop(columns=calibrated), rtol=0, atol=1e-6)
        pd.testing.assert_frame_equal(one[calibrated], several[calibrated], rtol=0, atol=1e-4)  # by steeper slopes
        scores = pd.read_csv(tmp_path / str(n_devices) / "eval_per_label_auroc.csv").query("split == 'external'")
        for label, value in zip(scores["label"], scores["auroc"], strict=True):
            given = roc_auc_score(several[f"target_{label}"], several[f"prob_{label}"])
            assert value == pytest.approx(given, abs=1e-12)


# ----------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("trainer=ddp",), "trainer.devices=None: input should be a valid integer"),
        (
            ("trainer=ddp", "trainer.devices=2"),
            "one process per device is needed, but 1 was started: torchrun",
        ),
        (("trainer=ddp", "trainer.devices=9"), "batch_size=8 is shared by 9 devices: set it to 9 or more"),
        (
            ("-m", "trainer=ddp", "trainer.devices=2", "lr=1e-3,1e-4"),
            "a sweep trains each point on one device",
        ),
    ],
)
def test_devices_that_cannot_be_are_refused_before_any_work(lab: Lab, arguments: tuple[str, ...], fault: str) -> None:
    first = [argument for argument in arguments if argument == "-m"]
    outcome = run_command(
        "train.py", *first, *list_command(lab)[1:], *(argument for argument in arguments if argument != "-m")
    )
    assert outcome.code == 2
    assert fault in outcome.err
    assert outcome.err.count("\n") == 1
    assert not lab.runs.exists() or not lab.list_phases()


@pytest.mark.slow
def test_two_devices_adapt_batch_norms_as_one_does(tmp_path: Path, cache: Path, tree: Path, weights: Path) -> None:
    one, two = make_labs(tmp_path, cache, tree, weights)
    settings = ("phase=frozen", "batch_norm=adapt", "batch_size=11")  # of 3 whole batches one device has two
    [[outcome], _] = run_ranks(tmp_path / "ranks", 2, list_command(two, *settings, *TWO))
    assert (outcome.code, outcome.err) == (0, "")
    folder = one.train_well(*settings)
    assert_close(folder, two.runs / folder.relative_to(one.runs))
