"""A data set as its section of the config says: which reader, from where, and which of its views."""

import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny import write_tree

from cxrlit.config import PrepareConfig, SyntheticData
from cxrlit.config.compose import compose_defaults
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.dataset import load_data, read_data

CONF = Path(__file__).parents[3] / "conf"


def test_nih_without_a_root_says_what_to_set(make_nih_config: Any, tmp_path: Path) -> None:
    config = make_nih_config(tmp_path).model_copy(update={"root": None})
    with pytest.raises(ConfigError, match=r"data=nih needs data\.root=PATH"):
        load_data(config, LABELS, tmp_path)


def test_the_synthetic_data_set_is_drawn_once(tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose("prepare").data)
    config = SyntheticData.model_validate({**values, "n_patients": 20, "image_px": 32})
    first = load_data(config, LABELS, tmp_path)
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = load_data(config, LABELS, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == drawn
    assert first.name == second.name == "synthetic"
    assert first.index_hash == second.index_hash
    assert first.split_name == "official"
    other = load_data(config.model_copy(update={"seed": 1}), LABELS, tmp_path)
    assert other.index_hash != first.index_hash


def test_views_that_are_not_wanted_are_left_out_and_listed(nih_tree: Path, make_nih_config: Any) -> None:
    path = next(nih_tree.glob("Data_Entry*"))
    path.write_text(re.sub(r"^(0000000[12]_.*),PA,", r"\1,AP,", path.read_text(), flags=re.MULTILINE))
    whole = load_data(make_nih_config(nih_tree), LABELS, nih_tree)
    data = load_data(make_nih_config(nih_tree, views=["PA"]), LABELS, nih_tree)
    assert set(data.index["view"]) == {"PA"}
    assert set(data.excluded["reason"]) == {"view AP, which data.views leaves out"}
    assert sorted([*data.index["image"], *data.excluded["image"]]) == whole.index["image"].tolist()
    assert data.dropped.empty
    assert set(data.split["patient"]) == set(whole.split["patient"]) - {"1", "2"}
    with pytest.raises(DataError, match=r"nih has no such image; its views are AP, PA"):
        load_data(make_nih_config(nih_tree, views=["LATERAL"]), LABELS, nih_tree)


@pytest.mark.parametrize(("source", "key"), [("nih", "nih.root"), ("table", "table.table")])
def test_what_a_source_needs_is_named_by_the_key_that_works(tmp_path: Path, source: str, key: str) -> None:
    for choice, wanted in (
        ([f"data={source}"], f"^data={source} needs data.{key.partition('.')[2]}=PATH, "),
        (["data=several", f"data.sources=[{source}]"], rf"^data.sources=\[{source}\] needs data.{key}=PATH, "),
    ):
        config = compose_defaults("prepare", PrepareConfig, {}, choice).data
        with pytest.raises(ConfigError, match=wanted):
            read_data(config, LABELS, tmp_path)


def test_links_of_one_of_several_sources_are_allowed_by_the_key_that_the_reason_names(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "nih", n_patients=20)
    for path in sorted((root / "images").iterdir()):
        (tmp_path / "store").mkdir(exist_ok=True)
        path.rename(tmp_path / "store" / path.name)
        path.symlink_to(tmp_path / "store" / path.name)
    keys = ["data=several", "data.sources=[nih]", f"data.nih.root={root}"]
    with pytest.raises(DataError, match=r"outside of data\.root, which data\.nih\.follow_links=true reads") as caught:
        read_data(compose_defaults("prepare", PrepareConfig, {}, keys).data, LABELS, tmp_path)
    allowed = str(caught.value).partition("which ")[2].partition(" reads")[0]
    read = read_data(compose_defaults("prepare", PrepareConfig, {}, [*keys, allowed]).data, LABELS, tmp_path)
    assert len(read.index) == 20
