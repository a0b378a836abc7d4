"""What was typed takes effect or is refused; a default of conf/ may be changed, and is not used where it has none."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from tiny import REPO

from cxrlit.config import EvaluateConfig, InternalData, read_config
from cxrlit.config.compose import compose_config, compose_defaults
from cxrlit.config.folders import own_configs
from cxrlit.config.overrides import name_key
from cxrlit.core.errors import ConfigError

CHANGED = {
    "average": "logits",
    "tta": "flip",
    "columns": {"image": "file"},
    "patient": "image",
    "scores": "logits",
    "missing": "drop",
    "part": "test",
    "recalibrate": True,
    "calibration": "temperature",
    "threshold_rule": "sensitivity",
    "min_rate": 0.9,
    "baseline": "/runs/before",
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REPO / "conf", tmp_path / "conf"))


def change_defaults(conf: Path, changed: dict[str, Any]) -> None:
    values = yaml.safe_load((conf / "evaluate.yaml").read_text())
    for key, value in changed.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    (conf / "evaluate.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def read(conf: Path, *overrides: str) -> EvaluateConfig:
    with initialize_config_dir(str(conf), version_base="1.3"):
        return read_config(compose_config("evaluate", overrides), EvaluateConfig, map(name_key, overrides))


@pytest.mark.parametrize("line", ["ckpt=a", "ckpt=a data=nih", "predictions=a", "ckpt=a thresholds=b"])
def test_every_default_may_be_changed(conf: Path, line: str) -> None:
    change_defaults(conf, CHANGED)
    config = read(conf, *line.split())
    kept = ["tta", "patient", "scores", "missing", "part", "recalibrate", "calibration", "threshold_rule", "min_rate"]
    assert {key: getattr(config, key) for key in kept} == {key: CHANGED[key] for key in kept}
    assert config.columns.image == ["file"]


def test_a_default_that_has_no_effect_is_not_used(conf: Path) -> None:
    change_defaults(conf, {**CHANGED, "tta": "none"})
    own, mean = read(conf, "ckpt=a"), read(conf, "ckpt=[a,b]")
    assert (own.average, mean.average) == ("probs", "logits")
    assert (own.threshold_rule, own.min_rate, own.baseline) == ("sensitivity", 0.9, "/runs/before")
    other = read(conf, "ckpt=a", "data=nih", "threshold_rule=youden")
    assert (other.threshold_rule, other.min_rate, other.baseline) == ("youden", None, None)


def test_another_data_set_may_be_the_default(conf: Path) -> None:
    change_defaults(conf, {"defaults": [{"data": "nih"}, "_self_"]})
    assert read(conf, "ckpt=a").is_external
    assert read(conf, "predictions=a", "targets=/b").targets == "/b"
    with pytest.raises(ConfigError, match="baseline: on other data the home test is what is compared with"):
        read(conf, "ckpt=a", "baseline=b")
    data = {
        "source": "internal",
        "root": None,
        "roots": None,
        "store": None,
        "follow_links": None,
        "allow_copies": None,
    }
    with own_configs(str(conf)):
        defaults = compose_defaults("evaluate", EvaluateConfig, {"ckpt": ["a"], "data": data})
    assert isinstance(defaults.data, InternalData)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("ckpt=a missing=error", "missing goes with predictions=FILE"),
        ("ckpt=a scores=probs", "scores goes with predictions=FILE"),
        ("ckpt=a columns.probs={Mass:m}", "columns goes with predictions=FILE"),
        ("ckpt=a part=test", "part goes with other data"),
        ("predictions=a recalibrate=true", "recalibrate goes with a checkpoint on other data"),
        (
            "ckpt=a thresholds=b calibration=platt",
            "calibration=platt and thresholds=FILE, which holds both",
        ),
        ("ckpt=a data=nih thresholds=b threshold_rule=youden", "threshold_rule=youden and thresholds=FILE"),
    ],
)
def test_what_was_typed_is_refused_also_where_it_is_the_default(conf: Path, line: str, part: str) -> None:
    for changed in ({}, {**CHANGED, "recalibrate": False}):
        change_defaults(conf, changed)
        with pytest.raises(ConfigError, match=part):
            read(conf, *line.split())


def test_what_is_switched_off_is_no_contradiction(conf: Path) -> None:
    off = ("tta=none", "recalibrate=false", "targets=null", "patient=null", "baseline=null", "min_rate=null")
    assert read(conf, "ckpt=a", *off) == read(conf, "ckpt=a")
    assert read(conf, "predictions=a", *off) == read(conf, "predictions=a")


def test_a_rule_without_its_rate_is_refused_wherever_it_is_said(conf: Path) -> None:
    change_defaults(conf, {"threshold_rule": "specificity"})
    with pytest.raises(ConfigError, match=r"needs min_rate=0\.9: the specificity to reach on validation"):
        read(conf, "ckpt=a")
    assert read(conf, "ckpt=a", "min_rate=0.8").min_rate == 0.8


def test_a_key_that_is_called_otherwise_now_is_named_in_conf_too(conf: Path) -> None:
    old, new = "wanted", "min_rate"
    text = (conf / "evaluate.yaml").read_text()
    (conf / "evaluate.yaml").write_text(text.replace(f"\n{new}: null", f"\n{old}: null"))
    with pytest.raises(ConfigError, match=f"{old}: there is no such key; it is called {new} now"):
        read(conf, "ckpt=a")
