"""What loggers get: each row once, also where a phase is killed; no secret of theirs is saved; what fails is a line."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cutting import RICH, STEPS_AN_EPOCH, Cut, assert_same, before_call, cut
from lab import QUICK, Lab
from row_logger import RowLogger
from tiny import run_command
from urllib3 import PoolManager, Retry

from cxrlit.core.errors import CheckpointError, ConfigError
from cxrlit.core.files import write_json
from cxrlit.model.archive import read_archive
from cxrlit.model.module import CXRModule
from cxrlit.training.logger_runs import SendOnce, read_run, resume_run
from cxrlit.training.loggers import build_logger
from cxrlit.training.resume import list_states

MINE = ("+logger.mine._target_=row_logger.RowLogger", "+logger.mine.folder='{folder}'", "+logger.mine.api_key=hunter2")
SERVICES = [name for name in ("tensorboard", "wandb") if find_spec(name)]
"""What is installed here, of those that need no server."""


def read_rows(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def train(lab: Lab, *arguments: str) -> Path:
    """The phase folder of the goal. W&B and MLflow write to the screen."""
    outcome = lab.train(*arguments)
    assert outcome.code == 0, outcome.err
    trained = re.search(r"^Trained: (\S+)", outcome.out, re.MULTILINE)
    assert trained
    return Path(trained[1])


def train_cut(lab: Lab, *arguments: str) -> Path:
    """Train, killed in the second epoch, whose last state is that before the validation of the first; go on."""
    with pytest.raises(Cut), before_call(CXRModule, "training_step", STEPS_AN_EPOCH + 1, cut):
        lab.train(*arguments)
    [folder] = lab.runs.glob("*/frozen-*/")
    for name, n_rows in read_archive(list_states(folder)[0])["logs"]["n_rows"].items():
        sent = (folder / "loggers" / f"{name}.steps").read_text().splitlines()
        assert len(sent) > n_rows, "no row comes again"
    return train(lab, *arguments)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """W&B writes what it would send into files."""
    folder = str(tmp_path_factory.mktemp("wandb"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DATA_DIR": folder}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path, offline: None
) -> tuple[Path, Path]:
    """A phase with several loggers at once, and the same that was killed and gone on with. Not to be changed."""
    arguments = (*RICH, "max_epochs=2", *MINE, f"logger=[{','.join(['csv', *SERVICES])}]", "run=tried")
    labs = [Lab(tmp_path_factory.mktemp(name), cache, tree, weights) for name in ("whole", "killed")]
    return train(labs[0], *arguments), train_cut(labs[1], *arguments)


@pytest.fixture
def other(tmp_path: Path, cache: Path, tree: Path, weights: Path) -> Lab:
    """Trains the same into another folder."""
    return Lab(tmp_path / "other", cache, tree, weights)


@pytest.mark.slow
def test_a_logger_of_the_users_own_gets_each_row_once_and_the_settings(pair: tuple[Path, Path]) -> None:
    whole, killed = pair
    assert_same(killed, whole)
    assert read_rows(killed) == read_rows(whole)
    names = {name for _, row in read_rows(whole) for name in row}
    assert {"train/loss", "lr-AdamW", "val/loss", "val/auroc_macro", "best/val_auroc_macro"} <= names
    assert {row["epoch"] for _, row in read_rows(whole) if "epoch" in row} == {1, 2}
    assert set(pd.read_csv(whole / "log" / "metrics.csv")["epoch"].dropna()) == {1, 2}
    best = json.loads((whole / "phase.json").read_text())["best_epoch"]
    assert read_rows(whole)[-1][1]["best/epoch"] == best
    [settings] = [json.loads(line) for line in (killed / "hyperparameters.jsonl").read_text().splitlines()]
    assert settings["phases"]["frozen"]["lr"] == settings["lr"] == 1e-2


@pytest.mark.slow
def test_no_setting_of_a_logger_is_saved(pair: tuple[Path, Path]) -> None:
    files = [path for path in pair[1].rglob("*") if path.is_file()]
    assert [path.name for path in files if b"hunter2" in path.read_bytes()] == []
    assert {"hyperparameters.jsonl", "config.yaml", "best.ckpt"} <= {path.name for path in files}


def test_without_a_logger_nothing_is_logged(frozen: Path) -> None:
    assert not (frozen / "log").exists()
    assert not (frozen / "loggers").exists()


@pytest.mark.slow
def test_a_logger_that_fails_is_a_line_and_the_phase_goes_on_without_a_gap(lab: Lab) -> None:
    outcome = lab.train(*MINE, f"+logger.mine.fails_at={STEPS_AN_EPOCH}")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "error: logger.mine: nobody answers; what was saved before is kept, and the same command goes on: with this "
        "logger, or with others"
    ]
    before = read_rows(next(lab.runs.glob("*/frozen-*/")))
    assert "val/loss" in {name for _, row in before for name in row}
    rows = read_rows(lab.train_well(*MINE))
    assert rows[:-1] == before
    assert rows[-1][1].keys() == {"best/epoch", "best/val_auroc_macro"}


def test_rows_that_come_in_another_order_are_sent(tmp_path: Path) -> None:
    logger = RowLogger(str(tmp_path))
    once = SendOnce("mine", logger, tmp_path / "mine.steps")
    for step in (1, 2, 3):
        once({"loss": 0.5}, step)
    once = SendOnce("mine", logger, tmp_path / "mine.steps")
    once.resume(1)
    for step in (2, 4, 5):  # 3 is not made any more
        once({"loss": 0.5}, step)
    assert [step for step, _ in read_rows(tmp_path)] == [1, 2, 3, 4, 5]
    assert (tmp_path / "mine.steps").read_text().split() == ["1", "2", "4", "5"]
    assert once.n_rows == 4


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_an_evaluation_goes_to_the_runs_of_its_phase(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tried" / pair[0].name
    shutil.copytree(pair[0], folder)
    outcome = run_command("evaluate.py", f"ckpt={folder}", *QUICK, *MINE, "report=true")
    assert outcome.code == 0, outcome.err
    [step, numbers] = read_rows(folder)[-1]
    assert step is None
    assert 0 < numbers["eval/test/auroc_macro"] < 1
    assert "eval/val/f1_macro" in numbers
    figures = {path.stem for path in folder.glob("eval/figures/*.png")}
    assert figures
    for name in SERVICES:
        assert f"The evaluation is in the run of {name}: " in outcome.out
    if "tensorboard" in SERVICES:
        scalars, _, images = read_events(folder / "tensorboard")
        assert images == {f"eval/{name}" for name in figures}
        assert "eval/test/auroc_macro" in scalars
    if "wandb" in SERVICES:
        before, after = WandbFiles(pair[0]), WandbFiles(folder)
        assert after.ids == before.ids
        assert after.rows[:-1] == before.rows
        assert [row["_step"] for row in after.rows] == list(range(len(after.rows)))
        assert {"report.html", "eval_summary.csv", *(f"figures/{name}.png" for name in figures)} <= after.files
        assert not any("predictions" in path or "heatmaps" in path for path in after.files)


# Packages


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Let a package not be there, nor what has imported it."""
    for name in list(sys.modules):
        if name.split(".")[0] == package or name.startswith("torch.utils.tensorboard"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_with_its_extra(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hide(monkeypatch, name)
    outcome = lab.train(f"logger=[csv,{name}]")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [f"error: logger.{name} needs {name}: pip install 'cxrlit[{name}]'"]
    assert not lab.runs.exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_fails_at_its_import_is_a_line(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hide(monkeypatch, name)
    monkeypatch.delitem(sys.modules, name)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('built for numpy 1\\nand more')\n")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = lab.train(f"logger={name}")
    assert outcome.code == 2
    reinstall = f"pip install --force-reinstall 'cxrlit[{name}]'"
    assert outcome.err.splitlines() == [
        f"error: logger.{name}: {name} cannot be imported: built for numpy 1: {reinstall}"
    ]


def test_a_server_that_does_not_answer_is_a_line_before_the_work(lab: Lab) -> None:
    pytest.importorskip("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # free again when the block ends
    outcome = lab.train("logger=mlflow", f"logger.mlflow.tracking_uri=http://127.0.0.1:{port}")
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert f"logger.mlflow: no server answers at 127.0.0.1:{port}" in line
    assert not lab.runs.exists()


CANARY = {"_target_": "pathlib.Path", "_args_": ["canary"]}


@pytest.mark.parametrize("value", [CANARY, [CANARY], "${oc.env:HOME}", "a\nb", 1.5, True])
@pytest.mark.parametrize("key", ["name", "version"])
def test_a_run_of_a_phase_folder_is_a_name_and_nothing_that_would_be_built(
    tmp_path: Path, key: str, value: object
) -> None:
    write_json(tmp_path / "loggers" / "wandb.json", {"name": "cxrlit", "version": "a1-b2", key: value})
    with pytest.raises(CheckpointError, match=r"wandb.json: it is damaged: remove it, and logger.wandb begins a new"):
        read_run(tmp_path, "wandb")


def test_the_name_of_a_folder_is_not_resolved(tmp_path: Path) -> None:
    spec = {"_target_": "row_logger.RowLogger", "folder": "{folder}"}
    with pytest.raises(ConfigError, match=r"loggers need a folder without \$\{ in its name"):
        build_logger("mine", spec, tmp_path / "${oc.env:HOME}" / "frozen-1")


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("+logger.x._target_=pytorch_lightning.callbacks.Timer", "logger.x: Timer is not a logger of Lightning"),
        ("+logger.x._target_=pytorch_lightning.loggers.Nope", "pytorch_lightning.loggers has no Nope"),
        ("+logger.x._target_=row_logger.RowLogger", "logger.x: row_logger.RowLogger cannot be built: TypeError"),
        ("logger=csv +logger.csv.nope=1", "got an unexpected keyword argument 'nope'"),
    ],
)
def test_what_is_no_logger_is_refused_before_the_work(lab: Lab, setting: str, fault: str) -> None:
    outcome = lab.train(*setting.split())
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert fault in line
    assert not lab.runs.exists()


# TensorBoard


def read_events(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, Any], set[str]]:
    """Step and value of each scalar, the hyperparameters, and the names of the pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    begun = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    settings = {
        key: value.string_value or value.number_value for key, value in begun.session_start_info.hparams.items()
    }
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars, settings, set(events.Tags()["images"])


def test_tensorboard_shows_each_step_once_and_the_settings(pair: tuple[Path, Path]) -> None:
    pytest.importorskip("tensorboard")
    whole, folder = pair
    scalars, settings, _ = read_events(folder / "tensorboard")
    assert scalars == read_events(whole / "tensorboard")[0]
    assert {"val/auroc_macro", "train/loss", "lr-AdamW"} <= scalars.keys()
    steps = [step for step, _ in scalars["val/auroc_macro"]]
    assert steps == sorted(set(steps))
    assert settings["phases/frozen/lr"] == 1e-2
    assert "logger" not in " ".join(settings)
    assert scalars["hp_metric"][-1][1] == max(value for _, value in scalars["val/auroc_macro"])


# W&B, which writes what it would send


def read_records(path: Path) -> Iterator[Any]:
    """The records of a file of W&B's: after 7 bytes, blocks of 32 KiB of parts, each with its length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # the whole record, or its last part
            yield Record.FromString(parts)
            parts = b""


class WandbFiles:
    """What the runs of W&B in a phase folder say, those of all its processes one after the other."""

    def __init__(self, phase: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.ids: set[tuple[str, str, str, str]] = set()
        self.config: dict[str, Any] = {}
        self.files: set[str] = set()
        for path in sorted(phase.glob("wandb/offline-run-*/*.wandb")):
            for record in read_records(path):
                run, items = record.run, record.history.item
                if record.HasField("history"):
                    self.rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
                if record.HasField("run"):
                    self.ids.add((run.project, run.run_group, run.display_name, run.run_id))
                self._update([*run.config.update, *record.config.update])
                self.files |= {content.path for content in record.artifact.manifest.contents}

    def _update(self, updates: Any) -> None:
        self.config |= {update.key or update.nested_key[0]: json.loads(update.value_json) for update in updates}


def strip(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what tells the time."""
    return [{key: row[key] for key in row if key not in ("_timestamp", "_runtime")} for row in rows]


def test_wandb_has_each_row_once(pair: tuple[Path, Path]) -> None:
    pytest.importorskip("wandb")
    one, two = map(WandbFiles, pair)
    assert strip(two.rows) == strip(one.rows)
    assert [row["_step"] for row in two.rows] == list(range(len(two.rows)))
    assert "val/auroc_macro" in {key for row in two.rows for key in row}
    [(project, group, name, run_id)] = two.ids
    assert (project, group, name) == ("cxrlit", "tried", pair[1].name)
    assert json.loads((pair[1] / "loggers" / "wandb.json").read_text())["version"] == run_id
    assert one.ids.isdisjoint(two.ids)
    assert two.config["phases"]["frozen"]["lr"] == 1e-2


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_wandb_has_a_run_for_each_phase_and_the_evaluation_in_that_of_the_goal(lab: Lab) -> None:
    pytest.importorskip("wandb")
    finetune = train(lab, "phase=finetune", "logger=wandb", "evaluate=true")
    frozen = next(lab.runs.glob("*/frozen-*/"))
    first, second = WandbFiles(frozen), WandbFiles(finetune)
    assert [ids[1:3] for ids in (*first.ids, *second.ids)] == [("default", frozen.name), ("default", finetune.name)]
    assert first.ids.isdisjoint(second.ids)
    assert {"report.html", "eval_summary.csv", "figures/auroc.png"} <= second.files
    assert second.rows[-1]["eval/test/auroc_macro"] > 0


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("base_url = http://evil.example", "base_url"),
        ("mode = online\napi_key = 0123", "api_key"),
        ("base_url = https://api.wandb.ai/\nentity = us\nproject = x\nmode = offline", ""),
    ],
)
@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_the_folders_settings_of_wandb_choose_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, lines: str, key: str
) -> None:
    """The current folder may be a stranger's; the user's own settings go before it."""
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "settings").write_text(f"[default]\n{lines}\n")
    spec = {"_target_": "pytorch_lightning.loggers.WandbLogger"}
    if not key:
        build_logger("wandb", spec, tmp_path)
        return
    with pytest.raises(
        ConfigError, match=rf"{folder}/settings, which W&B reads, sets {key}: take it out, or, if it is"
    ):
        build_logger("wandb", spec, tmp_path)
    build_logger("wandb", {**spec, "settings": {key: "http://mine.example"}}, tmp_path)
    monkeypatch.setenv(f"WANDB_{key.upper()}", "http://mine.example")
    build_logger("wandb", spec, tmp_path)


def test_settings_of_wandb_that_are_none_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_bytes(b"\xff no section")
    with pytest.raises(ConfigError, match=r"^logger\.wandb: /.*wandb/settings: .*: mend or remove it$") as caught:
        build_logger("wandb", {"_target_": "pytorch_lightning.loggers.WandbLogger"}, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_of_wandb_stays_in_its_project(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    logger = build_logger("wandb", {"_target_": "pytorch_lightning.loggers.WandbLogger", "project": "a"}, tmp_path, "1")
    with pytest.raises(ConfigError, match=r"logger\.wandb: the run of this phase is in 'b', not in 'a': name the same"):
        resume_run("wandb", logger, tmp_path, {"name": "b", "version": "1"})


# MLflow, on a server of its own


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """A tracking server on this machine with a SQLite file, at a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    files = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "kept"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "server.log"
    with log.open("w") as file, PoolManager(retries=Retry(connect=10, backoff_factor=0.1)) as pool:
        server = subprocess.Popen(
            [sys.executable, *command, *files], stdout=file, stderr=file, start_new_session=True, env=environment
        )
        try:
            assert pool.request("GET", f"{address}/health").status == 200, log.read_text()
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def list_history(client: Any, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each point of each metric."""
    keys = client.get_run(run_id).data.metrics
    return {key: [(point.step, point.value) for point in client.get_metric_history(run_id, key)] for key in keys}


@pytest.mark.slow
def test_mlflow_has_a_run_for_each_phase_with_each_row_once_and_the_evaluation(
    lab: Lab, other: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("flask")
    with serve(tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        arguments = ("logger=[csv,mlflow]", "run=tried")
        settings = (*RICH, "max_epochs=2", *arguments)
        whole, folder = train(lab, *settings), train_cut(other, *settings)
        assert_same(folder, whole)
        from mlflow import MlflowClient

        client = MlflowClient(address)
        ids = [json.loads((each / "loggers" / "mlflow.json").read_text())["version"] for each in (whole, folder)]
        histories = [list_history(client, each) for each in ids]
        assert histories[0] == histories[1]
        assert histories[0]["val/auroc_macro"]
        run = client.get_run(ids[1])
        assert (run.info.run_name, run.info.status) == (folder.name, "FINISHED")
        assert run.data.params["phases/frozen/lr"] == "0.01"
        outcome = other.train("phase=finetune", *arguments, "evaluate=true")
        assert outcome.code == 0, outcome.err
        experiment = client.get_experiment_by_name("cxrlit-tried")
        runs = client.search_runs([experiment.experiment_id])
        names = sorted(each.info.run_name.split("-")[0] for each in runs)
        assert names == ["finetune", "frozen", "frozen", "frozen"]  # the two above, and that before finetune
        [finetune] = [each for each in runs if each.info.run_name.startswith("finetune")]
        files = {file.path for file in client.list_artifacts(finetune.info.run_id, "eval")}
        assert {"eval/report.html", "eval/eval_summary.csv", "eval/figures"} <= files
        assert not any("predictions" in file or "heatmaps" in file for file in files)
        assert 0 < finetune.data.metrics["eval/test/auroc_macro"] < 1
        assert finetune.info.status == "FINISHED"


@pytest.mark.slow
def test_mlflow_without_a_server_writes_a_file_of_the_runs_folder(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = train(lab, "logger=mlflow", "evaluate=true")
    assert "MLFLOW_TRACKING_URI" not in os.environ  # the next training of this process would take it for the user's
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{lab.runs / 'mlflow.db'}")
    run_id = json.loads((folder / "loggers" / "mlflow.json").read_text())["version"]
    assert client.get_run(run_id).data.metrics["eval/test/auroc_macro"] > 0
    assert (lab.runs / "mlflow-artifacts" / run_id / "artifacts" / "eval" / "report.html").is_file()
    with closing(sqlite3.connect(lab.runs / "mlflow.db")) as database:  # as where the folder is a stranger's
        for elsewhere in (tmp_path / "victim", lab.runs / "mlflow-artifacts" / ".." / "victim"):
            database.execute("update runs set artifact_uri = ?", (f"file://{elsewhere}/{run_id}/artifacts",))
            database.commit()
            outcome = run_command("evaluate.py", f"ckpt={folder}", *QUICK)
            assert outcome.code == 0
            assert "warning: the evaluation is not in the run of mlflow: logger.mlflow: the run keeps" in outcome.out
            assert not elsewhere.exists()
    (lab.runs / "mlflow.db").unlink()
    outcome = run_command("evaluate.py", f"ckpt={folder}", *QUICK)
    assert outcome.code == 0
    assert "name its server, logger.mlflow.tracking_uri=" in outcome.out
    assert not (lab.runs / "mlflow.db").exists()
