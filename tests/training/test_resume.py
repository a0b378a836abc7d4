"""A training that is cut off anywhere goes on, and ends as the one that was not."""

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from cutting import RICH, STEPS_AN_EPOCH, Cut, ask, assert_same, before_call, cut
from hostile import Payload, write_member, write_pickle, write_whole
from lab import Lab, read_times
from PIL import Image
from test_files import limit_file_size
from tiny import Outcome

from cxrlit.data.torch_datasets import TrainImages
from cxrlit.model.archive import read_archive
from cxrlit.model.module import CXRModule
from cxrlit.training import phase as phase_module
from cxrlit.training.callbacks import epoch_report
from cxrlit.training.hardware import compare_versions
from cxrlit.training.phase import PhaseRun
from cxrlit.training.phase_folder import read_versions
from cxrlit.training.resume import find_resume, list_states, read_rng, restore_rng


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Path:
    """The phase folder of a training that was never cut off. Not to be changed."""
    folder = Lab(tmp_path_factory.mktemp("whole"), cache, tree, weights).train_well(*RICH)
    assert len(pd.read_csv(folder / "metrics.csv")) in {2, 3}, "early stopping has not come into play"
    return folder


def train_until(lab: Lab, owner: Any, name: str, number: int, *arguments: str) -> Path:
    """Train, cut off before the n-th call of a function. Returns the phase folder."""
    with pytest.raises(Cut), before_call(owner, name, number, cut):
        lab.train(*RICH, *arguments)
    [folder] = lab.runs.glob("*/frozen-*/")
    return folder


@pytest.fixture(scope="module")
def cut_run(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Path:
    """The runs folder of a training that was cut off in its second epoch, after 8 steps. Not to be changed."""
    lab = Lab(tmp_path_factory.mktemp("cut"), cache, tree, weights)
    train_until(lab, CXRModule, "training_step", STEPS_AN_EPOCH + 4)
    return lab.runs


@pytest.fixture
def begun(lab: Lab, cut_run: Path) -> Path:
    """The phase folder of that training, to be gone on with."""
    shutil.copytree(cut_run, lab.runs)
    [folder] = lab.runs.glob("*/frozen-*/")
    return folder


def go_on(lab: Lab, *arguments: str) -> Outcome:
    outcome = lab.train(*RICH, *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return outcome


def test_a_training_that_was_cut_off_in_an_epoch_ends_as_the_one_that_was_not(
    lab: Lab, begun: Path, whole: Path
) -> None:
    assert len(list_states(begun)) == 2
    leftover = begun / ".resume-000000010-0123abcd.ckpt"
    leftover.write_bytes(b"half")
    drawn: list[tuple[int, int]] = []
    original = TrainImages.__getitems__

    def draw(self: TrainImages, draws: list[Any]) -> Any:
        drawn.extend((draw.epoch, draw.row) for draw in draws)
        return original(self, draws)

    with patch.object(TrainImages, "__getitems__", draw):
        outcome = go_on(lab)
    assert "resume at epoch 2, step 8" in outcome.out
    assert_same(begun, whole)  # and so nothing else is left
    n_images, n_epochs = len(read_part(whole, "train")), len(pd.read_csv(whole / "metrics.csv"))
    of_epoch = [sum(epoch == number for epoch, _ in drawn) for number in range(n_epochs)]
    assert of_epoch == [0, n_images - 3 * 8, *[n_images] * (n_epochs - 2)]  # none of the batches behind
    assert len(set(drawn)) == len(drawn)


def read_part(folder: Path, part: str) -> pd.DataFrame:
    split = pd.read_csv(folder / "split.csv")
    return split[split["split"] == part]


MOMENTS = {
    "before anything was saved": (CXRModule, "training_step", 2, "start over"),
    "in a validation": (CXRModule, "validation_step", 2, f"resume at epoch 2, step {2 * STEPS_AN_EPOCH}"),
    "while its files are finished": (PhaseRun, "read_best", 1, "resume at epoch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_training_that_was_cut_off_elsewhere(lab: Lab, whole: Path, moment: str) -> None:
    owner, name, number, status = MOMENTS[moment]
    folder = train_until(lab, owner, name, number)
    outcome = go_on(lab)
    assert status in outcome.out
    assert_same(folder, whole)


@pytest.mark.slow
def test_it_is_cut_off_again_and_again(lab: Lab, whole: Path) -> None:
    for number in (3, 2, 1, 4):
        folder = train_until(lab, CXRModule, "training_step", number)
    go_on(lab, "trainer.num_workers=2", "trainer.checkpoint_every_n_steps=3")
    assert_same(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["frozen", "affine", "adapt", "train"])
def test_a_schedule_of_layers_goes_on_in_the_middle_of_an_epoch(lab: Lab, tmp_path: Path, batch_norm: str) -> None:
    settings = [
        "phase=finetune", "n_unfreeze=50", "phases.finetune.n_unfreeze_schedule={1:10,2:50}", "max_epochs=3",
        f"batch_norm={batch_norm}", "trainer.checkpoint_every_n_steps=1", "batch_size=9", "lr=1e-3",
    ]  # fmt: skip
    whole = lab.train_well(*settings)
    lab.runs = tmp_path / "other"
    with pytest.raises(Cut), before_call(CXRModule, "training_step", STEPS_AN_EPOCH + 6, cut):  # of finetune the 6th
        lab.train(*settings)
    outcome = lab.train(*settings)
    assert "resume at epoch 2, step 5" in outcome.out
    assert_same(lab.runs / "default" / whole.name, whole)


@pytest.mark.slow
def test_a_training_that_had_stopped_early_trains_nothing_more(lab: Lab, whole: Path) -> None:
    folder = train_until(lab, epoch_report, "draw_curves", 1)
    with before_call(CXRModule, "training_step", 1, cut):
        go_on(lab)
        before = read_times(folder)
        go_on(lab)
    assert read_times(folder) == before
    assert_same(folder, whole)


def test_a_state_that_a_kill_left_in_a_finished_folder_is_removed(lab: Lab, whole: Path) -> None:
    folder = Path(shutil.copytree(whole, lab.runs / "default" / whole.name))
    shutil.copy(folder / "last.ckpt", folder / "resume-000000005.ckpt")
    go_on(lab)
    assert_same(folder, whole)


# ----------------------------------------------------------------------------- states that cannot be used


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "a bit": lambda state, _: flip(state),
    "the end": lambda state, _: truncate(state),
    "pickle": lambda state, canary: write_pickle(state, Payload(canary)),
    "payload": lambda state, canary: write_whole(state, {**read_archive(state), "loops": Payload(canary)}),
    "zip-slip": lambda state, _: write_member(state, read_archive(state), "archive/../../../../canary"),
    "Lightning": lambda state, _: write_whole(state, {**read_archive(state), "hyper_parameters": INSTANTIATE}),
    "position": lambda state, _: write_whole(state, {**read_archive(state), "cxrlit_resume": {"epoch": 1}}),
    "phase": lambda state, _: write_whole(state, change_position(state, phase_id="12345678")),
    "format": lambda state, _: write_whole(state, change_position(state, format=2)),
    "weights": lambda state, _: write_whole(state, {**read_archive(state), "cxrlit": {}}),
}
INSTANTIATE = {"_instantiator": "os.system", "_class_path": "subprocess.Popen"}


def change_position(state: Path, **changes: Any) -> dict[str, Any]:
    content = read_archive(state)
    return {**content, "cxrlit_resume": {**content["cxrlit_resume"], **changes}}


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_damaged_or_hostile_state_nothing_runs_and_the_one_before_is_taken(
    begun: Path, tmp_path: Path, damage: str
) -> None:
    newest, before = list_states(begun)
    DAMAGES[damage](newest, tmp_path / "canary")
    point, faults = find_resume(begun, begun.name.partition("-")[2])
    assert point is not None
    assert point.path == before
    assert point.position.describe() == "epoch 2, step 6"
    assert len(faults) == 1
    assert faults[0].startswith(f"{newest}: ")
    assert "\n" not in faults[0]
    assert not (tmp_path / "canary").exists()


@pytest.mark.slow
def test_the_state_before_a_damaged_one_ends_in_the_same(lab: Lab, begun: Path, whole: Path) -> None:
    newest, _ = list_states(begun)
    flip(newest)
    outcome = go_on(lab)
    [line] = [line for line in outcome.out.splitlines() if line.startswith("warning: ")]
    assert (
        line
        == f"warning: {newest}: it is damaged: its checksum is not that of its bytes; going on from epoch 2, step 6"
    )
    assert_same(begun, whole)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["states", "best weights"])
def test_where_nothing_is_whole_the_phase_starts_over(lab: Lab, begun: Path, whole: Path, damaged: str) -> None:
    for path in list_states(begun) if damaged == "states" else [begun / "best.ckpt"]:
        flip(path)
    outcome = go_on(lab)
    assert outcome.out.count("its checksum is not that of its bytes; frozen starts over") == 2
    assert_same(begun, whole)


UNUSABLE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "loops": lambda state: state.update(loops={}),
    "callbacks": lambda state: state.update(callbacks=[1]),
    "optimizer": lambda state: state["optimizer_states"][0].update(param_groups=[]),
    "weights": lambda state: state["state_dict"].update({"network.head.bias": torch.zeros(3)}),
    "generators": lambda state: state.update(rng=5),
    "counters": lambda state: state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"].update(completed="3"),
    "moments": lambda state: state["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(7, 2)),
    "schedule": lambda state: state["lr_schedulers"][0].update(best="high"),
    "early stopping": lambda state: next(
        value for key, value in state["callbacks"].items() if key.startswith("EarlyStopping")
    ).update(wait_count="3"),
    "report": lambda state: state["callbacks"]["EpochReport"].update(rows=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", UNUSABLE)
def test_a_whole_state_that_nothing_can_go_on_from_is_one_line(lab: Lab, begun: Path, part: str) -> None:
    newest, _ = list_states(begun)
    state = read_archive(newest)
    UNUSABLE[part](state)
    write_whole(newest, state)
    outcome = lab.train(*RICH)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {newest}: it cannot be gone on from (")
    assert outcome.err.count("\n") == 1


def test_a_file_that_passes_for_best_weights_is_not_taken_for_them(begun: Path) -> None:
    content = read_archive(begun / "best.ckpt")
    for changes in ({"epoch": 4}, {"epoch": 1, "phase_id": "12345678"}):
        write_whole(begun / "best.ckpt", {**content, "cxrlit": {**content["cxrlit"], **changes}})
        found = find_resume(begun, begun.name.partition("-")[2])[0]
        assert (found is None) == ("phase_id" in changes)  # those of epoch 4 will be written again


# ----------------------------------------------------------------------------- signals


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code"),
    [
        pytest.param(signal.SIGTERM, 75, id="TERM"),
        pytest.param(signal.SIGUSR1, 75, id="USR1", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, id="INT", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_before_the_next_step(lab: Lab, whole: Path, signum: int, code: int) -> None:
    with before_call(CXRModule, "training_step", STEPS_AN_EPOCH + 2, ask(signum)):
        outcome = lab.train(*RICH, "trainer.checkpoint_every_n_steps=1000")
    name, step = signal.Signals(signum).name, STEPS_AN_EPOCH + 2
    assert outcome.code == code
    assert outcome.err == f"interrupted by {name}: saved at epoch 2, step {step}; the same command goes on\n"
    [folder] = lab.runs.glob("*/frozen-*/")
    assert list_states(folder)[0].name == f"resume-{step:09d}.ckpt"
    assert f"resume at epoch 2, step {step}" in go_on(lab).out
    assert_same(folder, whole)


PLACES = {
    "preparation": (phase_module, "weigh_positives", 1, "what is finished is kept"),
    "validation": (CXRModule, "validation_step", 1, "saved at epoch 1, step 5"),
    "first step": (CXRModule, "training_step", 1, "saved at epoch 1, step 1"),
    "first step of an epoch": (CXRModule, "training_step", STEPS_AN_EPOCH + 1, "saved at epoch 2, step 6"),
    "last step of an epoch": (CXRModule, "training_step", STEPS_AN_EPOCH, "saved at epoch 1, step 5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_at_another_moment(lab: Lab, whole: Path, place: str) -> None:
    owner, name, number, saved = PLACES[place]
    with before_call(owner, name, number, ask(signal.SIGTERM)):
        outcome = lab.train(*RICH)
    assert outcome.code == 75
    assert outcome.err == f"interrupted by SIGTERM: {saved}; the same command goes on\n"
    go_on(lab)
    [folder] = lab.runs.glob("*/frozen-*/")
    assert_same(folder, whole)


# ----------------------------------------------------------------------------- what else may happen


@pytest.mark.slow
def test_a_full_disk_leaves_the_states_before(lab: Lab, begun: Path) -> None:
    before = list_states(begun)
    with limit_file_size(20_000_000):
        outcome = lab.train(*RICH)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"error: {begun}/resume-000000010.ckpt: it cannot be written (File too large)")
    assert list_states(begun) == before
    assert find_resume(begun, begun.name.partition("-")[2])[1] == []
    assert not list(begun.glob(".*"))


@pytest.mark.slow
def test_threads_stay_what_they_were(lab: Lab, begun: Path) -> None:
    record = json.loads((begun / "phase.json").read_text())
    other = 3 if torch.get_num_threads() != 3 else 4
    (begun / "phase.json").write_text(json.dumps({**record, "threads": other}))
    seen = set()
    with before_call(CXRModule, "training_step", 1, lambda: seen.add(torch.get_num_threads())):
        go_on(lab)
    assert seen == {other}
    assert json.loads((begun / "phase.json").read_text())["threads"] == other


def test_another_version_of_a_package_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    compare_versions({"versions": {**read_versions(), "torch": "2.0.0"}})
    assert f"it was begun with torch 2.0.0, now {torch.__version__.partition('+')[0]}" in capsys.readouterr().out
    compare_versions({"versions": read_versions()})
    assert capsys.readouterr().out == ""


def change_image(tree: Path) -> None:
    """Another image of the same size in bytes, under the same name."""
    path = sorted((tree / "images").iterdir())[0]
    size = path.stat().st_size
    rng = np.random.default_rng(99)
    for _ in range(1000):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
        if path.stat().st_size == size:
            return
    raise AssertionError("no image of the same size")


@pytest.mark.slow
def test_an_image_that_changed_under_the_same_name_and_size(lab: Lab, tree: Path, tmp_path: Path) -> None:
    lab.tree = Path(shutil.copytree(tree, tmp_path / "tree"))
    lab.cache = tmp_path / "cache"
    arguments = ["max_epochs=1"]
    with pytest.raises(Cut), before_call(CXRModule, "validation_step", 1, cut):
        lab.train(*arguments)
    change_image(lab.tree)
    outcome = lab.train(*arguments)
    assert outcome.code == 0, outcome.err
    assert "images have changed since frozen was begun: it starts over" in outcome.out
    assert lab.train(*arguments).code == 0  # the same images still: reused
    shutil.copytree(tree, lab.tree, dirs_exist_ok=True)
    outcome = lab.train(*arguments)
    assert outcome.code == 2
    assert "images have changed since it was trained, under the same names" in outcome.err
    [folder] = lab.runs.glob("*/frozen-*/")
    shutil.rmtree(folder)
    assert lab.train(*arguments).code == 0


def test_every_random_generator_goes_on() -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.normal(), float(torch.rand(()))]  # noqa: NPY002

    draw()
    state = read_rng()
    wanted = draw()
    draw()
    restore_rng(state)
    assert draw() == wanted
