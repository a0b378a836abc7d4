"""The data of a training on another machine: other roots, and files that are links there."""

from typing import Any

import pytest

from cxrlit.config import EvaluateConfig, InternalData, TrainConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.core.errors import ConfigError
from cxrlit.evaluation.validation.internal import move_data


def move(trained: list[str], **keys: Any) -> Any:
    given = {f"data.{key}": value for key, value in keys.items()}
    config = compose_defaults("evaluate", EvaluateConfig, {"ckpt": "a", **given})
    assert isinstance(config.data, InternalData)
    return move_data(compose_defaults("train", TrainConfig, {}, trained), config.data, "/cache").data


def test_links_are_followed_where_the_images_are_now() -> None:
    assert not move(["data=nih", "data.root=/a"]).follow_links
    moved = move(["data=nih", "data.root=/a"], root="/b", follow_links=True)
    assert (moved.root, moved.follow_links) == ("/b", True)
    assert move(["data=nih", "data.root=/a", "data.follow_links=true"]).follow_links


def test_links_of_several_sources_are_followed_in_all_of_them() -> None:
    trained = ["data=several", "data.sources=[nih,chexpert]", "data.nih.root=/a", "data.chexpert.root=/c"]
    moved = move(trained, roots={"nih": "/b"}, follow_links=True)
    assert (moved.nih.root, moved.chexpert.root) == ("/b", "/c")
    assert moved.nih.follow_links
    assert moved.chexpert.follow_links


def test_the_drawn_set_has_no_links() -> None:
    with pytest.raises(ConfigError, match=r"data\.follow_links: the checkpoint was trained on synthetic data alone"):
        move(["data=synthetic"], follow_links=True)
