"""The chain and its ids, known before any work."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from lab import pretend_bf16
from tiny import REPO, write_tree

from cxrlit.config import Precision, TrainConfig, read_config
from cxrlit.config.compose import compose_config
from cxrlit.core.errors import ConfigError
from cxrlit.core.files import write_json
from cxrlit.data.dataset import load_data
from cxrlit.training.hardware import choose_precision
from cxrlit.training.plan import PlannedPhase, hash_start, plan_chain, plan_phases

Planner = Callable[..., list[PlannedPhase]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "nih")


@pytest.fixture
def plan(tree: Path, tmp_path: Path) -> Iterator[Planner]:
    settings = ["data=nih", f"data.root={tree}", f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}"]
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):

        def make_plan(*overrides: str) -> list[PlannedPhase]:
            config = read_config(compose_config("train", [*settings, *overrides]), TrainConfig)
            data = load_data(config.data, config.labels, Path(config.cache_dir))
            precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
            return plan_phases(config, data, precision, hash_start(config))

        yield make_plan
    assert not list(tmp_path.iterdir())


def read_ids(phases: list[PlannedPhase]) -> dict[str, str]:
    return {phase.name: phase.id for phase in phases}


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["phase=highres"], ["frozen", "finetune", "highres"]),
        (["phase=highres", "model.weights=none"], ["scratch", "frozen", "finetune", "highres"]),
        (["phase=frozen"], ["frozen"]),
        (["phase=scratch", "model.weights=none"], ["scratch"]),
        (["phase=highres", "chain=[finetune,highres]"], ["finetune", "highres"]),
        (["phase=finetune", "chain=[finetune]", "model.weights=none"], ["scratch", "finetune"]),
        (
            ["phase=finetune", "chain=[finetune]", "n_unfreeze=427", "batch_norm=train", "model.weights=none"],
            ["finetune"],
        ),
        (["chain=[scratch]", "phase=scratch"], ["scratch"]),
        ([], ["frozen", "finetune"]),
    ],
)
def test_what_comes_before_the_goal_runs_first(plan: Planner, overrides: list[str], names: list[str]) -> None:
    phases = plan(*overrides)
    assert [phase.name for phase in phases] == names
    assert {phase.status for phase in phases} == {"run"}
    assert [phase.folder.name for phase in phases] == [f"{phase.name}-{phase.id}" for phase in phases]
    assert len(set(read_ids(phases).values())) == len(names)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data.split_seed=1",
        "data.resize=crop",
        "augment.transforms.flip.p=0",
        "augment.transforms.flip=null",
        "augment=crop",
        "loss=bce",
        "loss=asymmetric",
        "optimizer=sgd",
        "optimizer.decay_norms=false",
        "callbacks=ema",
        "monitor=val/loss",
        "~metrics.collection.average_precision",
        "trainer.accumulate_grad_batches=2",
        "phases.frozen.scheduler.warmup=1",
        "scheduler.warmup=0.1",
        "scheduler=cosine",
        "loss.pos_weight_cap=5",
        "optimizer.weight_decay=0",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping=null",
        "metrics.train=true",
        "model.normalize=unit",
        "model.weights=none",
        "trainer.gradient_clip_norm=1",
        "phases.frozen.lr=2e-3",
        "phases.frozen.scheduler.patience=2",
        "phases.frozen.max_epochs=6",
        "phases.frozen.require_improvement=true",
    ],
)
def test_what_changes_the_result_changes_every_id_from_there_on(plan: Planner, override: str) -> None:
    before, after = read_ids(plan()), read_ids(plan(override))
    assert not set(before.values()) & set(after.values())


def test_the_order_of_transforms_changes_the_id_and_their_names_do_not(plan: Planner) -> None:
    specs = [
        f"+augment.transforms.{name}={{_target_:albumentations.{target}}}"
        for name, target in (("a", "CLAHE"), ("b", "Blur"), ("c", "CLAHE"))
    ]
    ids = [read_ids(plan("augment=none", *chosen)) for chosen in (specs[:2], specs[1:], specs[1::-1])]
    assert ids[0] != ids[1] == ids[2]


def test_precision_changes_the_id(plan: Planner) -> None:
    assert read_ids(plan("trainer.precision=fp32")) != read_ids(plan("trainer.precision=bf16"))


@pytest.mark.parametrize(
    "override",
    [
        "trainer.num_workers=3",
        "trainer.checkpoint_every_n_steps=7",
        "trainer.checkpoint_every_n_steps=null",
        "logger=none",
        "callbacks.progress_bar=null",
        "run=default",
        "evaluate=true",
        "phases.highres.lr=1e-6",
        "phases.scratch.max_epochs=3",
        "phases.finetune.n_unfreeze_schedule=null",
        "n_unfreeze=100",
        "data.max_dropped=0.5",
        "cache_dir=/nowhere",
    ],
)
def test_what_changes_no_result_changes_no_id(plan: Planner, override: str) -> None:
    assert read_ids(plan(override)) == read_ids(plan())


def test_a_sweep_over_the_goal_shares_what_comes_before(plan: Planner) -> None:
    plans = [read_ids(plan("phase=highres", f"lr={lr}", f"n_unfreeze={n}")) for lr in (1e-5, 5e-6) for n in (25, 50)]
    assert len({ids["frozen"] for ids in plans}) == len({ids["finetune"] for ids in plans}) == 1
    assert len({ids["highres"] for ids in plans}) == 4


def test_weights_count_by_what_is_in_the_file(plan: Planner, tree: Path) -> None:
    ids = []
    for name, content in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        (tree / name).write_bytes(content)
        ids.append(read_ids(plan(f"model.weights={tree / name}")))
    assert ids[0] == ids[1] != ids[2]


def test_a_phase_changes_the_shared_callbacks_by_key(plan: Planner) -> None:
    frozen, finetune = plan(
        "+phases.frozen.callbacks.early_stopping.patience=1",
        "+phases.frozen.callbacks.timer._target_=pytorch_lightning.callbacks.Timer",
        "+phases.finetune.callbacks.early_stopping=null",
    )
    assert frozen.config.callbacks["early_stopping"]["patience"] == 1
    assert frozen.config.callbacks["early_stopping"]["monitor"] == "val/auroc_macro"
    assert "timer" in frozen.config.callbacks
    assert not {"early_stopping", "timer"} & finetune.config.callbacks.keys()


def test_callbacks_see_the_settings_of_their_own_phase(plan: Planner) -> None:
    frozen, finetune = plan("n_unfreeze=25", "batch_norm=train")
    unfreezing = [phase.config.callbacks["phased_unfreezing"]["n_unfreeze"] for phase in (frozen, finetune)]
    modes = [phase.config.callbacks["freeze_batch_norm"]["mode"] for phase in (frozen, finetune)]
    assert (unfreezing, modes) == ([0, 25], ["frozen", "train"])


def test_the_text_of_a_users_class_is_part_of_every_id(
    plan: Planner, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("own")
    path = folder / "loss_of_mine.py"
    path.write_text("import torch\n\nclass Loss(torch.nn.BCEWithLogitsLoss):\n    pass\n")
    monkeypatch.syspath_prepend(str(folder))
    before = read_ids(plan("loss._target_=loss_of_mine.Loss"))
    assert before == read_ids(plan("loss._target_=loss_of_mine.Loss"))
    path.write_text(path.read_text() + "# edited\n")
    assert not set(before.values()) & set(read_ids(plan("loss._target_=loss_of_mine.Loss")).values())


def test_the_version_of_a_package_that_computes_is_part_of_every_id(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_ids(plan())
    versions = {"torch": "1.0", "albumentations": "9.9"}
    monkeypatch.setattr("cxrlit.config.origin.version", lambda name: versions.get(name, "1"))
    assert not set(before.values()) & set(read_ids(plan()).values())


def test_a_scheduler_of_all_phases_stands_in_for_their_own(plan: Planner) -> None:
    for phase in plan("scheduler=cosine", "scheduler.warmup=1"):
        assert phase.config.scheduler is not None
        assert phase.config.scheduler["_target_"].endswith("CosineAnnealingLR")
        assert phase.config.scheduler["warmup"] == 1
    [frozen] = plan("phase=frozen", "scheduler.warmup=0.5")
    assert frozen.config.scheduler is not None
    assert frozen.config.scheduler["_target_"].endswith("ReduceLROnPlateau")
    assert frozen.config.scheduler["warmup"] == 0.5


def test_an_argument_of_a_freezing_callback_changes_the_plan(plan: Planner) -> None:
    before = plan("phase=finetune", "cache_features=true")[-1]
    change = "+phases.finetune.callbacks.phased_unfreezing.n_unfreeze=10"
    after = plan("phase=finetune", "cache_features=true", change)[-1]
    assert after.id != before.id
    assert (before.n_cached_units, after.n_cached_units) == (51, 64)
    assert 0 < after.freezing.n_trainable < before.freezing.n_trainable


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["callbacks.phased_unfreezing=null"], "without it all layers train"),
        (["callbacks.freeze_batch_norm=null"], "without it every BatchNorm trains"),
        (["+callbacks.phased_unfreezing.x=3"], "phased_unfreezing.x: .* has no such argument"),
        (["callbacks.freeze_batch_norm.mode=melt"], "mode=melt: it may be frozen, affine, adapt, train"),
    ],
)
def test_a_freezing_callback_that_cannot_do_its_work_is_one_line(
    plan: Planner, overrides: list[str], line: str
) -> None:
    with pytest.raises(ConfigError, match=line) as fault:
        plan(*overrides)
    assert "\n" not in str(fault.value)


def test_a_plan_says_whether_what_trains_may_change(plan: Planner) -> None:
    """Several devices need to know: a parameter whose turn has not come has no gradient."""
    own = "callbacks.phased_unfreezing.schedule={1:10,2:100}"
    for overrides, expected in (
        ([], [False, False]),
        (["n_unfreeze_schedule={1:10,2:100}"], [False, True]),
        (["+phases.finetune." + own, "+phases.finetune.callbacks.phased_unfreezing.n_unfreeze=100"], [False, True]),
    ):
        assert [phase.freezing.may_change for phase in plan(*overrides)] == expected


def test_freezing_callbacks_may_go_where_everything_trains(plan: Planner) -> None:
    dropped = ("callbacks.phased_unfreezing=null", "callbacks.freeze_batch_norm=null")
    [scratch] = plan("phase=scratch", "model.weights=none", *dropped)
    assert scratch.freezing.n_trainable == scratch.freezing.n_weights
    assert scratch.freezing.batch_norm_trains


@pytest.mark.parametrize("here", ["fp32", "bf16"])
@pytest.mark.parametrize(("begun", "wanted"), [("auto", "kept"), ("fp32", "chosen anew"), (None, "chosen anew")])
def test_auto_precision_is_what_the_chain_was_begun_with(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Precision, begun: str | None, wanted: str
) -> None:
    """On this machine auto is one of the two; the chain was begun on one where it is the other."""
    pretend_bf16(monkeypatch, here == "bf16")
    other: Precision = "fp32" if here == "bf16" else "bf16"
    folders = [f"data.root={tree}", f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}"]
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        config = read_config(compose_config("train", ["data=nih", "trainer.accelerator=cpu", *folders]), TrainConfig)
    data = load_data(config.data, config.labels, Path(config.cache_dir))
    first = plan_phases(config, data, other, hash_start(config))[0]
    if begun is not None:
        write_json(first.folder / "phase.json", {"status": "running", "precision_choice": begun})
    phases, precision = plan_chain(config, data, hash_start(config))
    assert precision == (other if wanted == "kept" else here)
    assert phases == plan_phases(config, data, precision, hash_start(config))


@pytest.mark.slow
def test_compiling_changes_the_id_and_goes_with_one_device(plan: Planner) -> None:
    assert read_ids(plan("trainer.compile=false")) == read_ids(plan())
    assert not set(read_ids(plan("trainer.compile=true")).values()) & set(read_ids(plan()).values())
    with pytest.raises(ConfigError, match="goes with one device"):
        plan("trainer.compile=true", "trainer.devices=2")
