"""Whether weights were trained on the images that a network is evaluated on."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from cxrlit.config import ModelConfig
from cxrlit.core.console import make_printable
from cxrlit.core.errors import ConfigError, LeakageError
from cxrlit.data.sources import SAME_PATIENTS
from cxrlit.model.weights.sources import NIH_OFFICIAL_TRAIN, KnownWeights

SAME_IMAGES = {**SAME_PATIENTS, "rsna": "nih"}
"""Data sets whose images are those of another data set."""

KNOWN_SETS = ("nih", NIH_OFFICIAL_TRAIN, "nih_google", "rsna", "chexpert", "mimic", "padchest", "vindr", "synthetic")
"""Names of data sets that weights may have seen; a user's table adds its own name."""

SAW_SYNONYMS = {
    "chestxray14": "nih", "chestxray8": "nih", "nihchestxray14": "nih", "nihcxr14": "nih", "nihcxr": "nih",
    "cxr14": "nih", "cxr8": "nih", "nihchestxray": "nih", "mimiccxr": "mimic", "mimiccxrjpg": "mimic",
    "vindrcxr": "vindr",
}  # fmt: skip
"""Other spellings of these names, in lower-case letters and digits."""

OFFICIAL_TESTS = ("official", "test of the official")
"""Names of splits whose test part is NIH's official one."""


def name_seen(said: Sequence[str] | None, sources: Sequence[str], section: str = "model.") -> list[str] | None:
    """Translate the user's names of data sets that weights saw to the names used here.

    Args:
        said: ``model.weights_saw``.
        sources: Names of the data sets that are trained on, also accepted.
        section: Config section of the key, for messages.

    Raises:
        ConfigError: A name is unknown, so no evaluation could ever match it.

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
    """Find the data sets that weights saw; None if unknown.

    Args:
        said: Data sets that the user names, added to those of known weights.
        known: The known weights; a guess counts as unknown.
    """
    return _add_said(None if known is None or known.is_guess else known.saw, said)


def find_own_saw(model: ModelConfig, trained_on: Iterable[str] = ()) -> tuple[str, ...] | None:
    """Find what the starting weights of a trained model saw; None if unknown.

    Args:
        model: Settings of the network in the trained config.
        trained_on: Data sets of which the starting checkpoint of cxrlit saw only training images.
    """
    if model.weights_saw is not None:
        return tuple(dict.fromkeys([*model.weights_saw, *trained_on]))
    return tuple(trained_on) if model.weights in ("none", "imagenet") else None


def find_saw_of_ancestor(model: ModelConfig, said: Sequence[str] | None) -> tuple[str, ...] | None:
    """What a trained model's starting weights saw, with the data sets that the user adds."""
    return _add_said(find_own_saw(model), said)


def _add_said(saw: Sequence[str] | None, said: Sequence[str] | None) -> tuple[str, ...] | None:
    if saw is None:
        return None if said is None else tuple(said)
    return tuple(dict.fromkeys([*saw, *(said or ())]))


def find_overlap(saw: Collection[str], sources: Sequence[str], split_name: str) -> list[str]:
    """The data sets among ``sources`` whose test images were seen.

    Args:
        saw: Data sets that the weights saw (``find_saw``).
        sources: Names of the data sets of an evaluation.
        split_name: Name of the split.

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
    """Refuse weights that saw the test images, unless the user allows it.

    Args:
        weights: What to call them in messages.
        saw: Data sets that the weights saw (``find_saw``).
        sources: Names of the data sets of an evaluation.
        split_name: Name of the split.
        is_allowed: Whether the user allows it.
        remedy: What the user can do, for the message.

    Raises:
        LeakageError: The weights saw test images, and the user does not allow it.
    """
    overlap = find_overlap(saw, sources, split_name)
    if overlap and not is_allowed:
        raise LeakageError(
            f"{weights}: trained on images of {', '.join(overlap)}, those of this test part too: its numbers would "
            f"flatter the model: {remedy}"
        )


def _name_images(source: str) -> str:
    """Name of the data set that the images of a source come from."""
    return SAME_IMAGES.get(source.casefold(), source.casefold())


def name_start(model: ModelConfig) -> str:
    """Name of the starting weights of a training, without the folder."""
    if not model.weights:
        return "another training (init_from)"
    return "random weights" if model.weights == "none" else make_printable(Path(model.weights).name)


def describe_seen(model: ModelConfig, sources: Sequence[str], split_name: str, trained_on: Collection[str] = ()) -> str:
    """Caveat for the results of a model whose starting weights saw the images; empty if they did not.

    Args:
        model: Settings of the network in the trained config.
        sources: Names of the data sets of the evaluation.
        split_name: Name of the split.
        trained_on: Data sets that a starting checkpoint of cxrlit was trained on. Within a data set of the same name,
            its patients were already compared with those of the evaluation.
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
    """Caveat for the results of weights that saw the images; empty if they did not.

    Args:
        what: What to call the weights.
        saw: Data sets whose images they saw; None: unknown.
        sources: Names of the data sets of the evaluation.
        split_name: Name of the split.
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
