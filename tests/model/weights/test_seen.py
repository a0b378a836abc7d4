"""What weights saw: known, guessed, said by the user, or unknown; and of which test part it is a leak."""

import pytest

from cxrlit.config import ModelConfig
from cxrlit.model.weights.seen import describe_seen, find_overlap, find_saw
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
        ("CheXNet (arnoweng, zoogzog)", [], ()),  # a format alone is a guess
    ],
)
def test_what_weights_saw(known: str | None, said: list[str] | None, saw: tuple[str, ...] | None) -> None:
    found = find_saw(said, BY_NAME[known] if known else None)
    assert found == saw
    if found is not None:  # the settled config says the same again
        assert find_saw(list(found), BY_NAME[known] if known else None) == found


@pytest.mark.parametrize(
    ("saw", "sources", "split", "overlap"),
    [
        (["nih"], ["nih"], "official", ["nih"]),
        (["NIH"], ["nih_google"], "all images", ["nih_google"]),
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


@pytest.mark.parametrize(
    ("weights", "saw", "said"),
    [
        ("none", None, ""),
        ("imagenet", None, ""),
        ("xrv:chex", ["chexpert"], ""),
        ("/home/me/w.pth", None, "it is not known what the starting weights (w.pth) were trained on"),
        ("/home/me/w.pth", ["nih"], "the starting weights (w.pth) were trained on images of nih, test images too"),
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
