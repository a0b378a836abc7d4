"""Whether weights were trained on the images that a network is evaluated on."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from cxrlit.config import ModelConfig
from cxrlit.core.console import make_printable
from cxrlit.core.errors import ConfigError, LeakageError
from cxrlit.data.sources import SAME_PATIENTS
from cxrlit.model.weights.sources import NIH_OFFICIAL_TRAIN, KnownWeights

SAME_IMAGES = {**SAME_PATIENTS, "rsna": "nih"}
"""Data sets that label images of another one."""

KNOWN_SETS = ("nih", NIH_OFFICIAL_TRAIN, "nih_google", "rsna", "chexpert", "mimic", "padchest", "vindr", "synthetic")
"""Names of data sets that weights may have seen; a table has a name of its own besides."""

SAW_SYNONYMS = {
    "chestxray14": "nih", "chestxray8": "nih", "nihchestxray14": "nih", "nihcxr14": "nih", "nihcxr": "nih",
    "cxr14": "nih", "cxr8": "nih", "nihchestxray": "nih", "mimiccxr": "mimic", "mimiccxrjpg": "mimic",
    "vindrcxr": "vindr",
}  # fmt: skip
"""Other names of them, in small letters and figures alone."""

OFFICIAL_TESTS = ("official", "test of the official")
"""Names of splits whose test part is NIH's own."""


def name_seen(said: Sequence[str] | None, sources: Sequence[str], section: str = "model.") -> list[str] | None:
    """Our names of the data sets that a user says weights saw.

    Args:
        said: ``model.weights_saw``.
        sources: Names of the data sets that are trained on: a table's may be said too.
        section: Where the key stands in the config, for messages.

    Raises:
        ConfigError: One is not known, and so would never be found among the images of an evaluation.

    >>> name_seen(["ChestX-ray14", "CheXpert", "mine"], ["mine"])
    ['nih', 'chexpert', 'mine']
    """
    if said is None:
        return None
    ours = {name.casefold(): name for name in (*KNOWN_SETS, *sources)}
    names = []
    for name in said:
        plain = "".join(c for c in name.casefold() if c.isalnum())
        found = ours.get(name.casefold()) or SAW_SYNONYMS.get(plain)
        if found is None:
            raise ConfigError(
                f"{section}weights_saw: {name} is no data set that is known here: {', '.join(KNOWN_SETS)}, or the name "
                "of yours; leave out what is none of them"
            )
        names.append(found)
    return names


def find_saw(said: Sequence[str] | None, known: KnownWeights | None) -> tuple[str, ...] | None:
    """Data sets that weights saw; None where it is not known.

    Args:
        said: By the user. Of known weights it comes to what is known; a guess is not known.
        known: What they are.
    """
    return _add_said(None if known is None or known.is_guess else known.saw, said)


def find_own_saw(model: ModelConfig, trained_on: Iterable[str] = ()) -> tuple[str, ...] | None:
    """What the starting weights of a trained model saw; None where it is not known.

    Args:
        model: Of the trained config.
        trained_on: Data sets that they saw the training images of alone, as a checkpoint of ours.
    """
    if model.weights_saw is not None:
        return tuple(dict.fromkeys([*model.weights_saw, *trained_on]))
    return tuple(trained_on) if model.weights in ("none", "imagenet") else None


def find_saw_of_ancestor(model: ModelConfig, said: Sequence[str] | None) -> tuple[str, ...] | None:
    """What a trained model's starting weights saw, and what the user says of them besides."""
    return _add_said(find_own_saw(model), said)


def _add_said(saw: Sequence[str] | None, said: Sequence[str] | None) -> tuple[str, ...] | None:
    if saw is None:
        return None if said is None else tuple(said)
    return tuple(dict.fromkeys([*saw, *(said or ())]))


def find_overlap(saw: Collection[str], sources: Sequence[str], split_name: str) -> list[str]:
    """The data sets among ``sources`` whose test images were seen.

    Args:
        saw: From ``find_saw``.
        sources: Names of the data sets of an evaluation.
        split_name: How they were divided.

    >>> find_overlap(["nih", "chexpert"], ["rsna", "padchest"], "grouped")
    ['rsna']
    >>> find_overlap(["nih_train"], ["nih"], "official"), find_overlap(["nih_train"], ["nih"], "fold 1 of 5")
    ([], ['nih'])
    """
    seen = set(map(_name_images, saw))
    if NIH_OFFICIAL_TRAIN in seen and split_name not in OFFICIAL_TESTS:
        seen.add("nih")
    return [name for name in sources if _name_images(name) in seen]


def refuse_seen_test(
    weights: str, saw: Collection[str], sources: Sequence[str], split_name: str, is_allowed: bool, remedy: str
) -> None:
    """The weights did not see the test images, or the user knows that they did.

    Args:
        weights: What to call them in messages.
        saw: From ``find_saw``.
        sources: Names of the data sets of an evaluation.
        split_name: How they were divided.
        is_allowed: Whether the user knows.
        remedy: What the user can do.

    Raises:
        LeakageError: They did, and the user does not say so.
    """
    overlap = find_overlap(saw, sources, split_name)
    if overlap and not is_allowed:
        raise LeakageError(
            f"{weights}: trained on images of {', '.join(overlap)}, those of this test part too: its numbers would "
            f"flatter the model: {remedy}"
        )


def _name_images(source: str) -> str:
    """The data set whose images another one labels, else its own name."""
    return SAME_IMAGES.get(source.casefold(), source.casefold())


def name_start(model: ModelConfig) -> str:
    """What a training started from, without folders of the machine."""
    if not model.weights:
        return "another training (init_from)"
    return "random weights" if model.weights == "none" else make_printable(Path(model.weights).name)


def describe_seen(model: ModelConfig, sources: Sequence[str], split_name: str, trained_on: Collection[str] = ()) -> str:
    """What stands beside the numbers of a model whose starting weights saw the images; empty: nothing to say.

    Args:
        model: Of the trained config.
        sources: Names of the data sets of the evaluation.
        split_name: How they were divided.
        trained_on: Data sets that a checkpoint of ours was trained on, as starting weights. Within a data set of the
            same name its patients were compared with those of the evaluation.
    """
    what, saw = f"the starting weights ({name_start(model)})", find_own_saw(model)
    return describe_saw(what, saw, sources, split_name, trained_on)


def describe_saw(
    what: str,
    saw: Collection[str] | None,
    sources: Sequence[str],
    split_name: str,
    trained_on: Collection[str] = (),
) -> str:
    """What stands beside the numbers of weights that saw the images; empty: nothing to say.

    Args:
        what: What to call the weights.
        saw: Data sets whose images they saw; None: not known.
        sources: Names of the data sets of the evaluation.
        split_name: How they were divided.
        trained_on: As in ``describe_seen``.

    >>> describe_saw("the weights (a.pth)", ["nih"], ["nih"], "official")
    'the weights (a.pth) were trained on images of nih, test images too: these numbers flatter the model'
    """
    if saw is None:
        return f"it is not known what {what} were trained on: they may have seen these images"
    overlap = find_overlap(saw, sources, split_name)
    own = {other.casefold() for other in trained_on}
    is_nih_seen = "nih" in map(_name_images, own) or not {"nih", NIH_OFFICIAL_TRAIN}.isdisjoint(map(str.casefold, saw))
    others = [
        source
        for source in sources
        if source.casefold() not in own
        and (_name_images(source) in map(_name_images, own) if source.casefold() in KNOWN_SETS else is_nih_seen)
    ]
    if not overlap and others:
        return (
            f"{what} were trained on images of nih: whether those of {', '.join(others)} are among them cannot be known"
        )
    if not overlap:
        return ""
    return f"{what} were trained on images of {', '.join(overlap)}, test images too: these numbers flatter the model"
