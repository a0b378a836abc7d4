"""Keys that change nothing are said, and refused nowhere."""

import pytest
from lab import Lab

from cxrlit.config import TrainConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.training.check_recipe import describe_slow_average, name_idle_keys

FACTOR, DECAY = "optimizer.backbone_lr_factor=0.1", "optimizer.decay_norms=false"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([FACTOR], []),  # frozen comes before finetune, which needs it
        ([FACTOR, "phase=highres"], []),
        ([FACTOR, "phase=frozen", "model.weights=none"], []),  # scratch trains everything
        ([FACTOR, "phase=frozen"], [f"{FACTOR} changes nothing up to phase=frozen"]),
        ([FACTOR, "n_unfreeze=0"], [f"{FACTOR} changes nothing up to phase=finetune"]),
        ([DECAY], []),
        ([DECAY, "optimizer=sgd"], []),
        ([DECAY, "~optimizer.weight_decay"], []),  # AdamW has one of its own
        ([DECAY, "optimizer.weight_decay=0"], [f"{DECAY} changes nothing: no weight decays"]),
        ([DECAY, "optimizer=sgd", "~optimizer.weight_decay"], [f"{DECAY} changes nothing: no weight decays"]),
    ],
)
def test_keys_that_change_nothing_are_named(overrides: list[str], said: list[str]) -> None:
    config = compose_defaults("train", TrainConfig, {}, ["data=nih", "data.root=/nih", *overrides])
    idle = name_idle_keys(config)
    assert [line[: len(start)] for line, start in zip(idle, said, strict=True)] == said


def test_they_are_said_before_the_training(lab: Lab) -> None:
    outcome = lab.train(FACTOR, DECAY, "optimizer.weight_decay=0", "phase=frozen")
    assert outcome.code == 0, outcome.err
    said, _, trained = outcome.out.partition("Preparing")
    for line in (FACTOR, DECAY):
        assert f"warning: {line} changes nothing" in " ".join((said or trained).split())


@pytest.mark.slow
def test_an_average_that_a_short_phase_hardly_moves_is_said(lab: Lab) -> None:
    recipe = ["experiment=full", "data=nih", "data.root=/nih"]
    config = compose_defaults("train", TrainConfig, {}, recipe)
    said = describe_slow_average("full", config, 755)  # 24 batches, 8 epochs
    assert said.startswith(
        "callbacks.ema: 83% of the average is the weights of its first step at the end of full, which"
    )
    assert "which has 192 steps: set callbacks.ema.decay=0.976 or less, or callbacks.ema=null" in said
    assert describe_slow_average("full", config, 86_524) == ""
    lower = compose_defaults("train", TrainConfig, {}, [*recipe, "callbacks.ema.decay=0.976"])
    assert describe_slow_average("full", lower, 755) == ""
    outcome = lab.train("callbacks=ema", "phase=frozen")
    assert outcome.code == 0, outcome.err
    assert "warning: callbacks.ema: " in outcome.out
