"""What a config means once it is composed: flat keys, defaults, contradictions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from cxrlit.config import FLAT_KEYS, EvaluateConfig, InternalData, TrainConfig, list_keys, read_config
from cxrlit.config.compose import compose_config, compose_defaults
from cxrlit.core.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
Composer = Callable[..., TrainConfig]


@pytest.fixture
def compose() -> Iterator[Composer]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: read_config(compose_config("train", overrides), TrainConfig)


FLAT = {"img_size": 96, "lr": 5e-6, "n_unfreeze": 25, "batch_size": 3, "max_epochs": 7, "batch_norm": "train"}


@pytest.mark.parametrize("goal", ["finetune", "highres"])
@pytest.mark.parametrize(("key", "value"), FLAT.items())
def test_a_flat_key_goes_to_the_goal_alone(compose: Composer, goal: str, key: str, value: Any) -> None:
    assert {*FLAT, "n_unfreeze_schedule"} == set(FLAT_KEYS)  # a schedule goes with its n_unfreeze
    plain, config = compose(f"phase={goal}"), compose(f"phase={goal}", f"{key}={value}")
    assert getattr(config.phases[goal], key) == value
    assert getattr(config, key) is None  # it has one place
    changed = {name for name, phase in config.phases.items() if phase != plain.phases[name]}
    assert changed == {goal}
    assert config.model_copy(update={"phases": plain.phases}) == plain


def test_goal_and_chain_are_set_side_by_side(compose: Composer) -> None:
    config = compose("phase=highres", "img_size=320", "phases.finetune.n_unfreeze=200")
    assert (config.phases["highres"].img_size, config.phases["finetune"].n_unfreeze) == (320, 200)
    assert config.phases["finetune"].img_size != 320


def test_the_defaults_are_those_of_the_design(compose: Composer) -> None:
    phases = compose("data=nih").phases
    what = [
        (phase.img_size, phase.batch_size, phase.n_unfreeze, phase.batch_norm, phase.lr, phase.max_epochs)
        for phase in (phases["scratch"], phases["frozen"], phases["finetune"], phases["highres"])
    ]
    assert what == [
        (224, 32, 427, "train", 1e-3, 10),
        (224, 32, 0, "frozen", 1e-3, 5),
        (224, 32, 100, "frozen", 1e-4, 10),
        (320, 16, 50, "frozen", 1e-5, 3),
    ]
    assert [name for name, phase in phases.items() if phase.require_improvement] == ["highres"]


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        (["data=synthetic"], "none"),
        (["data=nih"], "imagenet"),
        (["data=nih", "model.weights=none"], "none"),
        (["data=nih", "init_from=x.ckpt"], None),
        (["data=synthetic", "init_from=x.ckpt"], None),
    ],
)
def test_what_the_chain_starts_from(compose: Composer, overrides: list[str], weights: str | None) -> None:
    assert compose(*overrides).model.weights == weights


def test_seed_0_and_other_zeros_count(compose: Composer) -> None:
    config = compose("seed=0", "phase=finetune", "n_unfreeze=0", "batch_norm=train", "trainer.num_workers=0")
    assert config.seed == 0
    assert config.phases["finetune"].n_unfreeze == 0
    assert config.phases["finetune"].batch_norm == "train"
    assert config.trainer.num_workers == 0


def test_a_saved_config_reads_back_the_same(compose: Composer) -> None:
    schedule = "phases.finetune.n_unfreeze_schedule={1:10,2:100}"
    for overrides in (["phase=highres", "lr=1e-6"], [schedule], ["data=nih", "init_from=a.ckpt"], ["logger=none"]):
        config = compose(*overrides)
        assert read_config(config.model_dump(), TrainConfig) == config.model_copy(update={"logger": {}})


def test_folders_become_absolute(compose: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = compose("data=nih", "data.root='~/images'", "cache_dir=here")
    assert config.data.root == str(tmp_path / "home" / "images")
    assert config.cache_dir == str(tmp_path / "here")
    settings = {
        "ckpt": "a",
        "out": "~/tables",
        "cache_dir": "here",
        "data": {
            "source": "internal",
            "root": "../x",
            "roots": None,
            "store": None,
            "follow_links": None,
            "allow_copies": None,
        },
    }
    read = compose_defaults("evaluate", EvaluateConfig, settings)
    assert isinstance(read.data, InternalData)
    assert (read.out, read.data.root) == (str(tmp_path / "home" / "tables"), str(tmp_path.parent / "x"))


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ("{1:10,2:50}", "n_unfreeze says 100"),
        ("{2:100}", "from epoch 1 on"),
        ("{1:100,3:10}", "names epoch 3, the last is 2"),
        ("{}", "from epoch 1 on"),
        ("{-1:100,1:10}", "from epoch 1 on"),
        ("{0:10,1:100}", r"epochs count from 1: write \{1:10,2:100\}"),
        ("{0:100}", r"epochs count from 1: write \{1:100\}"),
        ("{-1:10,0:100}", "epochs count from 1"),
    ],
)
def test_a_schedule_that_cannot_be(compose: Composer, schedule: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        compose(f"phases.finetune.n_unfreeze_schedule={schedule}")


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ["flip", "affine", "contrast"]),
        (["augment=crop"], ["crop", "flip", "rotation"]),
        (["augment=none"], []),
        (["~augment.transforms.flip"], ["affine", "contrast"]),
        (["augment.transforms.flip=null"], ["affine", "contrast"]),
        (
            ["+augment.transforms.clahe._target_=albumentations.CLAHE", "+augment.transforms.clahe.p=1"],
            ["flip", "affine", "contrast", "clahe"],
        ),
    ],
)
def test_transforms_are_added_and_dropped_by_name(compose: Composer, overrides: list[str], names: list[str]) -> None:
    transforms = compose(*overrides).augment.transforms
    assert list(transforms) == names
    assert all(spec["_target_"].startswith("albumentations.") for spec in transforms.values())


def test_an_argument_of_a_transform_is_a_key(compose: Composer) -> None:
    affine = compose("augment.transforms.affine.rotate=[-15,15]").augment.transforms["affine"]
    assert affine == {**compose().augment.transforms["affine"], "rotate": [-15, 15]}


def test_oversampling_names_labels_in_use(compose: Composer) -> None:
    fault = r"sampler\.labels: there is no Nodule among the labels: say sampler\.labels=\[\.\.\.\]"
    with pytest.raises(ConfigError, match=fault):
        compose("sampler=oversample", "labels=[Mass,Pneumonia]")
    assert compose("sampler=oversample", "labels=[Mass]", "sampler.labels=[Mass]").sampler.labels == ["Mass"]


def test_every_key_of_conf_is_in_the_schema_and_the_other_way_round(compose: Composer) -> None:
    for overrides in (
        [],
        ["data=nih"],
        ["experiment=smoke"],
        ["loss=bce"],
        ["augment=none"],
        ["augment=strong"],
        ["logger=none"],
    ):
        composed = compose_config("train", overrides)
        config = read_config(composed, TrainConfig)
        dumped = {**config.model_dump(), "logger": config.logger}  # loggers are not dumped
        plain: Any = OmegaConf.to_container(composed)
        for values in (plain, dumped):
            del values["scheduler"]
        for values in (plain, dumped, *plain["phases"].values(), *dumped["phases"].values()):
            del values["callbacks"]  # settled, they stand with their phases
        assert sorted(list_keys(plain)) == sorted(list_keys(dumped))


@pytest.mark.parametrize("missing", ["seed", "phases.frozen", "data.source", "trainer.precision", "phase"])
def test_a_missing_key_is_named(compose: Composer, missing: str) -> None:
    with pytest.raises(ConfigError, match=missing.rpartition(".")[2]):
        compose(f"~{missing}")
