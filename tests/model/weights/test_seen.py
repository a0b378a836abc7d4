"""What weights saw: known, guessed, said by the user, or unknown; and of which test part it is a leak."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cxrlit.config import ModelConfig
from cxrlit.core.errors import ConfigError
from cxrlit.model.weights.open_weights import open_weights
from cxrlit.model.weights.seen import describe_seen, find_overlap, find_own_saw, find_saw, name_seen
from cxrlit.model.weights.sources import BY_NAME, identify


@pytest.mark.parametrize(
    ("known", "said", "saw"),
    [
        (None, None, None),
        (None, [], ()),
        (None, ["nih"], ("nih",)),
        ("xrv:nih", None, ("nih",)),
        ("xrv:nih", [], ("nih",)),  # what is known stays known
        ("xrv:chex", ["mine"], ("chexpert", "mine")),
        ("CheXNet (arnoweng, zoogzog)", None, ("nih",)),
    ],
)
def test_what_weights_saw(known: str | None, said: list[str] | None, saw: tuple[str, ...] | None) -> None:
    found = find_saw(said, BY_NAME[known] if known else None)
    assert found == saw
    if found is not None:  # the settled config says the same again
        assert find_saw(list(found), BY_NAME[known] if known else None) == found


def test_a_format_alone_is_a_guess(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Other programs write ``backbone.0.`` and the class of a replication too, whatever they trained on."""
    path = tmp_path / "mine.ckpt"
    features = {name.removeprefix("features."): item for name, item in state.items() if name.startswith("features.")}
    torch.save({"state_dict": {f"backbone.0.{name}": item for name, item in features.items()}}, path)
    start = open_weights(str(path))
    assert (start.normalize, start.saw) == ("half", None)
    assert start.note.startswith("unknown origin, in the format of RadImageNet, whose normalization is half")
    assert open_weights(str(path), normalize="imagenet", saw=["nih"]).normalize == "imagenet"
    named = {f"module.densenet121.features.{name}": item for name, item in features.items()}
    head = {
        f"module.densenet121.classifier.0.{name}": torch.zeros(14, *([1024] * (name == "weight")))
        for name in ("weight", "bias")
    }
    torch.save({"state_dict": named | head}, path)
    start = open_weights(str(path))
    assert start.saw is None
    assert start.head is not None
    assert start.head.labels == ()


@pytest.mark.parametrize(
    ("saw", "sources", "split", "overlap"),
    [
        (["nih"], ["nih"], "official", ["nih"]),
        (["NIH"], ["nih_google"], "all images", ["nih_google"]),
        (["nih_google"], ["nih"], "official", ["nih"]),
        (["rsna"], ["nih_google"], "official", ["nih_google"]),
        (["chexpert", "mimic"], ["nih"], "official", []),
        (["nih"], ["chexpert", "nih"], "grouped", ["nih"]),
        (["nih_train"], ["nih"], "official", []),
        (["nih_train"], ["nih"], "test of the official", []),
        (["nih_train"], ["nih"], "all images", ["nih"]),
        (["nih_train"], ["nih"], "grouped", ["nih"]),
        (["nih_train"], ["nih"], "train of the official", ["nih"]),
    ],
)
def test_which_test_parts_they_saw(saw: list[str], sources: list[str], split: str, overlap: list[str]) -> None:
    assert find_overlap(saw, sources, split) == overlap


@pytest.mark.parametrize("name", ["ChestX-ray14", "NIH", "nih_chestxray14", "cxr14"])
def test_other_names_of_nih_are_nih(name: str) -> None:
    assert name_seen([name], []) == ["nih"]


def test_a_data_set_that_is_none_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=r"model\.weights_saw: hospital is no data set .*: nih, nih_train, .*vindr"):
        name_seen(["hospital"], ["mine"])
    assert name_seen(["hospital"], ["hospital"]) == ["hospital"]


def test_whether_a_table_is_of_nih_cannot_be_known() -> None:
    model = ModelConfig(name="densenet121", weights="xrv:nih", normalize="half", weights_saw=["nih"])
    assert "whether those of mine are among them cannot be known" in describe_seen(model, ["mine"], "grouped")
    assert describe_seen(model, ["chexpert"], "grouped") == ""


@pytest.mark.parametrize(
    ("weights", "saw", "said"),
    [
        ("none", None, ""),
        ("imagenet", None, ""),
        ("xrv:chex", ["chexpert"], ""),
        ("a folder/w.pth", None, "it is not known what the starting weights (w.pth) were trained on"),
        ("a folder/\x1b[2J.pth", None, "it is not known what the starting weights (\\x1b[2J.pth) were trained on"),
        ("a folder/w.pth", ["nih"], "the starting weights (w.pth) were trained on images of nih, test images too"),
        (None, ["nih"], "the starting weights (another training (init_from)) were trained on images of nih"),
    ],
)
def test_what_stands_beside_the_numbers(weights: str | None, saw: list[str] | None, said: str) -> None:
    model = ModelConfig(name="densenet121", weights=weights, normalize="imagenet", weights_saw=saw)
    text = describe_seen(model, ["nih"], "official")
    assert text.startswith(said)
    assert bool(text) == bool(said)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("densenet121_medical_mae_pt_cxr14_ft.pth", "EVA-X, fine-tuned"),
        ("densenet121_mocov2_pt_cxr14_ft.pth", "EVA-X, fine-tuned"),
        ("densenet121_CXR_0.3M_mae.pth", "Medical MAE"),
        ("kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt", "xrv:rsna"),
        ("nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt", "xrv:all"),
        ("weights.pth", None),
    ],
)
def test_published_files_are_known_by_their_names(file: str, name: str | None) -> None:
    known = identify(file, set(), "features.", "", "")
    assert (known and known.name) == name


@pytest.mark.parametrize(
    ("trained_on", "sources", "is_said"),
    [
        (["nih"], ["nih"], False),  # patient by patient
        (["nih"], ["rsna"], True),  # the same radiographs under other names of their patients
        (["rsna"], ["nih"], True),
        (["nih"], ["mine"], True),
        (["nih"], ["chexpert"], False),
        (["chexpert"], ["mine"], False),
    ],
)
def test_a_checkpoint_as_weights_saw_its_training_part_alone(
    trained_on: list[str], sources: list[str], is_said: bool
) -> None:
    model = ModelConfig(name="densenet121", weights="best.ckpt", normalize="imagenet", weights_saw=["chexpert"])
    assert find_own_saw(model, trained_on) == tuple(dict.fromkeys(["chexpert", *trained_on]))
    text = describe_seen(model, sources, "grouped", trained_on)
    cannot = f"images of nih: whether those of {sources[0]} are among them cannot be known"
    assert (cannot in text) == is_said
    if sources == ["chexpert"]:
        assert "were trained on images of chexpert, test images too" in text
