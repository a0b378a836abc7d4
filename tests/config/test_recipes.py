"""The recipes of conf/experiment: each is complete, says what it is expected to reach, and trains to its end."""

from pathlib import Path

import pytest
from lab import Lab, evaluate
from tiny import REPO

from cxrlit.config import SyntheticData, TrainConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.model.weights.sources import BY_NAME

PHASES = {
    "action_plan": ["frozen", "finetune", "highres"],
    "cxr_start": ["frozen", "full", "highres"],
    "fast": ["frozen", "finetune"],
    "full": ["frozen", "full", "highres"],
    "keras_port": ["frozen", "finetune"],
    "small_data": ["frozen", "finetune"],
}


def read_recipe(name: str) -> str:
    return (REPO / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")


def test_every_recipe_is_listed_here() -> None:
    assert sorted(path.stem for path in (REPO / "conf" / "experiment").glob("*.yaml")) == sorted([*PHASES, "smoke"])


@pytest.mark.parametrize("name", PHASES)
def test_a_recipe_says_what_it_is_expected_to_reach_and_names_its_phases_settings(name: str) -> None:
    config = compose_defaults("train", TrainConfig, {}, [f"experiment={name}", "data=nih", "data.root=/nih"])
    assert config.list_to_goal() == PHASES[name]
    text = read_recipe(name)
    assert "# Expected on NIH's official split: " in text
    text += read_recipe("full") if "\n  - full\n" in text else ""  # what it builds on
    assert "override /augment: " in text
    assert "override /loss: " in text
    for phase in PHASES[name]:
        settings = text.partition(f"\n  {phase}:")[2]
        assert settings.index("img_size: ") < 20
        assert settings.index("batch_size: ") < 50


@pytest.mark.parametrize(("name", "weights"), [("full", "imagenet"), ("cxr_start", "xrv:chex")])
def test_the_recipe_to_start_with_trains_every_layer_and_no_statistics(name: str, weights: str) -> None:
    config = compose_defaults("train", TrainConfig, {}, [f"experiment={name}", "data=nih", "data.root=/nih"])
    assert config.model.weights == weights
    assert "nih" not in BY_NAME[weights].saw
    full, highres = config.phases["full"], config.phases["highres"]
    assert (full.n_unfreeze, full.batch_norm, full.lr, full.max_epochs) == (427, "affine", 1e-4, 8)
    assert (highres.n_unfreeze, highres.batch_norm, highres.img_size, highres.max_epochs) == (427, "affine", 448, 3)
    assert highres.require_improvement
    assert list(config.augment.transforms) == ["crop", "flip", "rotation"]
    for phase in (full, highres):
        assert phase.scheduler is not None
        assert phase.scheduler["_target_"].endswith("CosineAnnealingLR")
        assert phase.callbacks["ema"]["_target_"].endswith("EMAWeightAveraging")


def test_a_choice_beside_a_recipe_replaces_all_of_the_recipes_choice() -> None:
    def compose(recipe: str, choice: str) -> TrainConfig:
        return compose_defaults("train", TrainConfig, {}, [f"experiment={recipe}", choice])

    assert compose("full", "augment=none").augment.transforms == {}
    assert compose("action_plan", "loss=bce").loss["pos_weight_cap"] is None
    assert compose("action_plan", "sampler=shuffle").sampler.labels is None


@pytest.mark.parametrize(
    "data",
    [[], ["data=nih", "data.root=/nih"], ["data=table", "data.table=/t.csv"], ["data=several", "data.sources=[nih]"]],
)
def test_smoke_goes_with_any_data(data: list[str]) -> None:
    """The drawn set is small with it; other data have no such keys."""
    config = compose_defaults("train", TrainConfig, {}, ["experiment=smoke", *data])
    assert [config.phases[name].img_size for name in ("frozen", "finetune", "highres")] == [32, 32, 64]
    if isinstance(config.data, SyntheticData):
        assert (config.data.n_patients, config.data.image_px) == (40, 64)
    usual = compose_defaults("train", TrainConfig, {}, data)
    assert (usual.data == config.data) == bool(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_a_recipe_trains_to_its_end(lab: Lab, tmp_path: Path, name: str) -> None:
    tiny = [
        f"phases.{phase}.{key}" for phase in PHASES[name] for key in ("img_size=32", "max_epochs=1", "batch_size=8")
    ]
    folder = lab.train_well(*tiny, f"experiment={name}", f"phase={PHASES[name][-1]}")
    assert lab.list_phases() == sorted(PHASES[name])
    evaluate(folder, tmp_path / "evaluation")
