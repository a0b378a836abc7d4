"""What a data set is asked for and does not have: laterals that nobody asked for, labels that it calls otherwise."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import TypeAdapter
from trees import save_noise, write_chexpert_tree, write_mimic_tree, write_padchest_tree

from cxrlit.config import DataConfig
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.labels import LABELS
from cxrlit.data.dataset import load_data, read_data

CONF = Path(__file__).parents[3] / "conf"
WRITERS = {"chexpert": write_chexpert_tree, "mimic": write_mimic_tree, "padchest": write_padchest_tree}


def configure(name: str, settings: dict[str, Any]) -> Any:
    overrides = [f"data={name}", *(["data.sources=[nih,table]"] if name == "several" else [])]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("prepare", overrides=overrides).data
    for key, value in settings.items():
        OmegaConf.update(composed, key, value, force_add=True)
    return TypeAdapter(DataConfig).validate_python(OmegaConf.to_container(composed))


def write_views(folder: Path, views: list[str], column: str = "view") -> dict[str, Any]:
    rows = range(len(views))
    for row in rows:
        save_noise(folder / f"{row}.png", row)
    table = pd.DataFrame({"image": [f"{row}.png" for row in rows], "patient": rows, "Mass": [row % 2 for row in rows]})
    table.assign(**{column: views}).to_csv(folder / "t.csv", index=False)
    return {"table": str(folder / "t.csv")}


@pytest.mark.parametrize("name", WRITERS)
def test_laterals_count_only_where_the_user_says_so(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[name](tmp_path)
    data = read_data(configure(name, {"root": str(tmp_path)}), LABELS, tmp_path)
    said = capsys.readouterr().out
    assert set(data.index["view"]) <= {"PA", "AP"}
    n_all = len(data.index) + len(data.excluded)
    n_lateral = len(data.excluded)
    assert n_lateral
    assert (
        f"{name}: {n_lateral} of {n_all} images are excluded by data.views=[PA,AP] ({n_lateral} LATERAL); "
        "data.views=null includes them"
    ) in said.replace("\n", " ")
    for views in (None, ["PA", "AP", "LATERAL"]):
        whole = read_data(configure(name, {"root": str(tmp_path), "views": views}), LABELS, tmp_path)
        assert len(whole.index) == n_all
        assert "LATERAL" in set(whole.index["view"])
        assert "excluded" not in capsys.readouterr().out


@pytest.mark.parametrize("column", ["view", "View", "ViewPosition", "view_position"])
def test_views_of_a_table(tmp_path: Path, column: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write_views(tmp_path, ["PA", "AP", "LATERAL", "LL", "", "PA"], column)
    data = read_data(configure("table", settings), ["Mass"], tmp_path)
    assert data.index["image"].tolist() == ["0.png", "1.png", "5.png"]
    said = "table: 3 of 6 images are excluded by data.views=[PA,AP] (2 LATERAL, 1 unknown); data.views=null includes"
    assert said in capsys.readouterr().out
    assert len(read_data(configure("table", {**settings, "views": None}), ["Mass"], tmp_path).index) == 6
    lateral = read_data(configure("table", {**settings, "views": ["LATERAL"]}), ["Mass"], tmp_path)
    assert lateral.index["image"].tolist() == ["2.png", "3.png"]


def test_all_count_where_no_view_is_told(tmp_path: Path) -> None:
    settings = write_views(tmp_path, ["", ""], "other")
    assert len(read_data(configure("table", settings), ["Mass"], tmp_path).index) == 2
    with pytest.raises(DataError, match="table has no such image; its views are unknown"):
        read_data(configure("table", {**settings, "views": ["PA"]}), ["Mass"], tmp_path)


def test_the_key_of_one_of_several_is_named(tmp_path: Path, nih_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write_views(tmp_path, ["PA", "LATERAL"])
    config = configure("several", {"nih.root": str(nih_tree), "table.table": settings["table"]})
    data = read_data(config, ["Mass"], tmp_path)
    said = capsys.readouterr().out
    assert "table: 1 of 2 images are excluded by data.table.views=[PA,AP] (1 LATERAL); data.table.views=null" in said
    # Patient 0 of the table is nobody's namesake; patient 1 stands only in an image that is excluded.
    assert "same ids" not in said
    assert len(data.index) > 2
    config = configure("several", {"nih.root": str(nih_tree), "table.table": settings["table"], "table.views": None})
    read_data(config, ["Mass"], tmp_path)
    assert "warning: 1 patient of table (table/1) and of another source have the same ids" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("Oedema", "Edema"), ("edemas", "Edema"), ("Pleural_Effusion", "Effusion"), ("Cardiomegally", "Cardiomegaly"),
        ("Pneumothroax", "Pneumothorax"), ("Pleural Thickning", "Pleural_Thickening"), ("Lung Mass", "Mass"),
    ],
)  # fmt: skip
def test_a_label_that_is_spelled_otherwise(nih_tree: Path, wanted: str, near: str) -> None:
    config = configure("nih", {"root": str(nih_tree)})
    with pytest.raises(ConfigError) as caught:
        load_data(config, ["Nodule", wanted], nih_tree)
    assert str(caught.value) == f"nih has no {wanted}; did you mean {near}? labels=[Nodule,{near}]"
    data = load_data(config, ["Nodule", near], nih_tree)
    assert data.index[near].notna().all()


def test_other_labels_that_a_data_set_does_not_have_are_no_fault(
    nih_tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure("nih", {"root": str(nih_tree)})
    for label in ("Fracture", "Lung Opacity", "COVID-19"):
        assert load_data(config, ["Mass", label], nih_tree).index[label].isna().all()
    assert "did you mean" not in capsys.readouterr().out
    # The labels of a checkpoint cannot be spelled otherwise.
    load_data(config, ["Mass", "Oedema"], nih_tree, are_labels_fixed=True)
    assert "warning: nih has no Oedema; did you mean Edema?" in capsys.readouterr().out


def test_a_column_of_a_table_that_is_called_nearly_as_a_label(tmp_path: Path) -> None:
    settings = write_views(tmp_path, ["1", "0"], "Edema")
    with pytest.raises(ConfigError, match=r"table has no Oedema; did you mean Edema\? labels=\[Mass,Edema\]"):
        read_data(configure("table", settings), ["Mass", "Oedema"], tmp_path)
    config = configure("table", {**settings, "columns.labels": {"Mass": "Mass", "Oedema": "Edema"}})
    assert read_data(config, ["Mass", "Oedema"], tmp_path).index["Oedema"].tolist() == [1, 0]
