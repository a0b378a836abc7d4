"""A search by Optuna: the same trials whenever it runs and however often it is killed, and by validation alone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cutting import Cut, assert_same, before_call, cut
from hydra import compose, initialize_config_dir
from lab import Lab
from omegaconf import OmegaConf
from test_sweep import find_sweep, read_ranking, sweep
from tiny import REPO

from cxrlit.config import SweepConfig, TrainConfig, read_config, read_sweeper
from cxrlit.sweeps.record import Point, Record, write_job_record
from cxrlit.sweeps.study import JOURNAL, ask_trial, hash_study, mend_journal, open_study, run_trials
from cxrlit.training.callbacks import EpochReport

pytest.importorskip("optuna")

ONLY_LR = ("~hydra.sweeper.space.n_unfreeze", "~hydra.sweeper.space.optimizer", "~hydra.sweeper.space.loss")
STUDY = ("hydra/sweeper=optuna", *ONLY_LR, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_startup_trials=1",
         "hydra.sweeper.n_warmup_epochs=0", "hydra.sweeper.space.lr.low=1e-5", "hydra.sweeper.space.lr.high=1.0",
         "max_epochs=2")  # fmt: skip


@pytest.fixture
def composed() -> Iterator[Any]:
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        chosen = ["hydra/sweeper=optuna", "phase=highres"]
        yield lambda *overrides: compose("train", [*chosen, *overrides], return_hydra_config=True)


def read_search(composed: Any) -> SweepConfig:
    return read_sweeper(composed, SweepConfig)


def read_train(composed: Any) -> TrainConfig:
    return read_config(OmegaConf.masked_copy(composed, [*TrainConfig.model_fields]), TrainConfig)


def score(point: Point) -> float:
    """Best at lr=1e-4 and n_unfreeze=30."""
    lr, n_unfreeze = float(point.values["lr"]), int(point.values["n_unfreeze"])
    return 0.8 - abs(lr - 1e-4) * 100 - abs(n_unfreeze - 30) / 1000


def search(config: SweepConfig, folder: Path, n_batches: int | None = None, failing: tuple[int, ...] = ()) -> list[str]:
    """Run trials that take no time; what each was, in order. Given up after some batches as a kill would."""
    texts = []
    for number, points in enumerate(run_trials(config, ["phase=highres"], folder)):
        if number == n_batches:
            break
        for point in points:
            texts.append(" ".join(point.overrides))
            fails = point.job in failing
            record = Record(
                job=point.job, values=point.values, status="failed" if fails else "done",
                auroc_macro=None if fails else score(point),
            )  # fmt: skip
            write_job_record(folder, record)
    return texts


def test_the_same_seed_makes_the_same_trials(composed: Any, tmp_path: Path) -> None:
    config = read_search(composed("hydra.sweeper.n_trials=14"))
    whole = search(config, tmp_path / "whole")
    assert len(whole) == len(set(whole)) == 14
    assert search(config, tmp_path / "again") == whole
    other = read_search(composed("hydra.sweeper.n_trials=14", "hydra.sweeper.seed=1"))
    assert search(other, tmp_path / "other") != whole


def test_a_study_that_was_killed_ends_as_one_that_was_not(composed: Any, tmp_path: Path) -> None:
    config = read_search(composed("hydra.sweeper.n_trials=12"))
    whole = search(config, tmp_path / "whole")
    first, second = search(config, tmp_path / "cut", n_batches=7), search(config, tmp_path / "cut")
    # the eighth was asked for and not run; the seventh was run, and told of when the eighth was asked for
    assert first == whole[:7]
    assert second == whole[7:]
    assert search(config, tmp_path / "cut") == []
    more = config.model_copy(update={"n_trials": 13})
    assert len(search(more, tmp_path / "cut")) == 1


def test_a_trial_that_failed_is_run_again_with_its_values(composed: Any, tmp_path: Path) -> None:
    config = read_search(composed("hydra.sweeper.n_trials=6", "hydra.sweeper.n_parallel=2"))
    first = search(config, tmp_path, failing=(2, 5))
    assert search(config, tmp_path) == [first[1], first[4]]


def test_every_value_lies_in_the_space_and_is_a_config(composed: Any, tmp_path: Path) -> None:
    batch_sizes = "+hydra.sweeper.space.batch_size.choices=[8,16]"
    config = read_search(composed("hydra.sweeper.n_trials=12", batch_sizes, "hydra.sweeper.space.lr=null"))
    study = open_study(tmp_path, config)
    seen = [ask_trial(study, config, number) for number in range(12)]
    assert {values["batch_size"] for values in seen} == {8, 16}
    assert {values["n_unfreeze"] for values in seen} <= set(range(10, 51, 5))
    assert all(1e-6 <= float(str(values["optimizer.weight_decay"])) <= 1e-2 for values in seen)
    assert "lr" not in seen[0]
    for overrides in config.list_corners():
        read_train(composed(*overrides))


@pytest.mark.slow
def test_a_changed_setting_is_another_study(composed: Any) -> None:
    def hash_settings(*overrides: str) -> str:
        config = composed(*overrides)
        return hash_study(read_search(config), read_train(config))

    same = ["hydra.sweeper.n_trials=3", "hydra.sweeper.n_parallel=2", "cache_dir=/x", "trainer.num_workers=3"]
    other = ["seed=1", "hydra.sweeper.seed=1", "hydra.sweeper.space.lr.low=1e-5", "phase=finetune", "augment=none"]
    assert {hash_settings(override) for override in same} == {hash_settings()}
    assert len({hash_settings(), *(hash_settings(override) for override in other)}) == 1 + len(other)


def test_a_journal_with_half_a_line_is_mended(composed: Any, tmp_path: Path) -> None:
    config = read_search(composed("hydra.sweeper.n_trials=3"))
    whole = search(config, tmp_path / "whole")
    search(config, tmp_path / "cut", n_batches=2)
    journal = tmp_path / "cut" / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code":')
    assert search(config, tmp_path / "cut") == whole[2:]
    mend_journal(tmp_path / "none")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, cache: Path, tree: Path, weights: Path) -> Lab:
    """A study that was not cut off."""
    lab = Lab(tmp_path_factory.mktemp("study"), cache, tree, weights)
    outcome = sweep(lab, *STUDY)
    assert (outcome.code, outcome.err) == (0, "")
    assert "Study: " in outcome.out
    return lab


@pytest.mark.slow
def test_a_search_by_real_trainings(study: Lab, tmp_path: Path) -> None:
    ranking = read_ranking(find_sweep(study))
    assert set(ranking["status"]) == {"done", "pruned"}
    for _, row in ranking.iterrows():
        folder = study.runs.parent / row["folder"]
        metrics = pd.read_csv(folder / "metrics.csv")
        assert row["auroc_macro"] == metrics["val_auroc_macro"].max()  # validation, and no other
        status = json.loads((folder / "phase.json").read_text())["status"]
        assert (status, len(metrics) == 2) == (("done", True) if row["status"] == "done" else ("running", False))
    # a trial ends as the plain command does, also one that was pruned and is finished by it
    pruned = ranking[ranking["status"] == "pruned"].iloc[0]
    plain, finished = (Lab(tmp_path / name, study.cache, study.tree, study.weights) for name in ("plain", "finished"))
    shutil.copytree(study.runs.parent / pruned["folder"], finished.runs.parent / pruned["folder"])
    for row in (ranking.iloc[0], pruned):
        settings = ("max_epochs=2", f"lr={row['lr']}")
        folder = plain.train_well(*settings)
        assert folder.name == Path(row["folder"]).name
        outcome = finished.train(*settings) if row is pruned else None
        assert outcome is None or "resume at epoch 1" in outcome.out
        assert_same(folder, (study if row is not pruned else finished).runs.parent / row["folder"])


@pytest.mark.slow
def test_a_study_that_is_killed_in_a_training_goes_on(study: Lab, lab: Lab) -> None:
    with before_call(EpochReport, "_write_metrics", 5, cut), pytest.raises(Cut):
        sweep(lab, *STUDY)
    outcome = sweep(lab, *STUDY)
    assert outcome.code == 0, outcome.err
    assert "1 of 3 trials are finished" in outcome.out
    assert "Going on from epoch" in outcome.out
    first, second = find_sweep(study), find_sweep(lab)
    assert first.name == second.name
    assert (first / "ranking.csv").read_bytes() == (second / "ranking.csv").read_bytes()


@pytest.mark.slow
def test_the_test_part_decides_nothing(study: Lab, lab: Lab, tmp_path: Path) -> None:
    [split] = {path.read_text() for path in study.runs.glob("*/frozen-*/split.csv")}
    (tmp_path / "split.csv").write_text(split)
    changed = shutil.copytree(lab.tree, tmp_path / "nih")
    table = pd.read_csv(changed / "Data_Entry_2017_v2020.csv", dtype=str)
    parts = pd.read_csv(tmp_path / "split.csv", dtype=str).set_index("image")["split"]
    rows = table["Image Index"].map(parts) == "test"
    table.loc[rows, "Finding Labels"] = table.loc[rows, "Finding Labels"].to_numpy()[::-1]
    table.to_csv(changed / "Data_Entry_2017_v2020.csv", index=False)
    settings = (f"data.root={changed}", "data.split=file", f"data.split_file={tmp_path / 'split.csv'}")
    assert sweep(lab, *STUDY, *settings).code == 0
    columns = ["job", "lr", "status", "auroc_macro", "best_epoch"]
    first, second = (read_ranking(find_sweep(trained)) for trained in (study, lab))
    pd.testing.assert_frame_equal(first[columns], second[columns], check_exact=True)
    assert set(first["folder"]).isdisjoint(second["folder"])
