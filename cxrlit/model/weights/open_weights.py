"""Read what ``model.weights`` names: features, head, normalization, and training data."""

from collections.abc import Sequence

from cxrlit.config import ModelConfig, Normalization
from cxrlit.core.errors import ConfigError, format_count
from cxrlit.model.weights.finite import check_finite
from cxrlit.model.weights.head import Head, find_head
from cxrlit.model.weights.locate import locate
from cxrlit.model.weights.names import STEM, FoundFeatures, find_features, unwrap
from cxrlit.model.weights.own_checkpoint import is_own, open_own
from cxrlit.model.weights.read_file import read_file
from cxrlit.model.weights.seen import find_saw
from cxrlit.model.weights.sources import NORMALIZE, XRV_SCALE, KnownWeights, identify
from cxrlit.model.weights.start import AskedWeights, StartingWeights
from cxrlit.model.weights.stem import choose_normalize, fold_stem


def open_weights(
    weights: str,
    normalize: str = "auto",
    saw: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    section: str = "model.",
) -> StartingWeights:
    """Read and check weights.

    Args:
        weights: ``none`` (random), or what ``locate`` takes.
        normalize: How images are normalized; auto: as the weights expect; numbers: mean and std are given.
        saw: Data sets that unknown weights saw, named by the user.
        labels: Labels of an unknown head, in order.
        section: Config section of the keys, for messages.

    Raises:
        CheckpointError: The weights are missing, cannot be downloaded, or are not DenseNet121's.
        ConfigError: ``normalize``, ``saw`` or ``labels`` contradict known weights.
    """
    asked = AskedWeights(weights, normalize, saw, labels, section)
    what = asked.what
    if weights == "none":
        return StartingWeights(weights, choose_normalize(asked, "imagenet", False, 3), ())
    location = locate(weights, what)
    content = read_file(location.path, what)
    if is_own(content):
        if labels:
            raise ConfigError(f"{section}weights_labels: {what} has its labels in itself: drop it")
        return open_own(content, asked)
    state, wrapper, class_name = unwrap(content, what)
    found = find_features(state, what)
    known = location.known or identify(location.path.name, set(found.rest), found.prefix, wrapper, class_name)
    is_xrv = location.is_xrv or class_name.startswith("torchxrayvision.") or "op_threshs" in found.rest
    is_xrv |= known is not None and known.name.startswith("xrv:")
    theirs = "half" if is_xrv else known.normalize if known else None
    is_certain = is_xrv or (known is not None and not known.is_guess)
    chosen = choose_normalize(asked, theirs, is_certain, found.weights[STEM].shape[1])
    stem = fold_stem(found.weights[STEM], XRV_SCALE if is_xrv else 1.0)
    check_finite({STEM: stem}, what)  # folding multiplies the weights
    theirs_labels = known.labels if known and not known.is_guess else ()
    return StartingWeights(
        name=weights,
        normalize=chosen,
        saw=find_saw(saw, known),
        note=_describe(found, known, is_xrv, None if normalize == "numbers" else chosen) + location.note,
        features={**found.weights, STEM: stem},
        head=_label_head(find_head(found.rest), asked, location.labels or theirs_labels),
        known=known,
        is_normalize_known=theirs is not None or normalize != "auto",
    )


def name_configured(model: ModelConfig) -> StartingWeights | None:
    """Describe ``none`` or ``imagenet`` without reading weights; None for another name or a file.

    Raises:
        ConfigError: The config contradicts what is known of them.
    """
    if model.weights not in ("none", "imagenet"):
        return None
    said = {"take_head": model.take_head, "weights_labels": model.weights_labels, "weights_saw": model.weights_saw}
    for key, value in said.items():
        if value:
            raise ConfigError(f"model.{key} goes with a file of weights, and not with model.weights={model.weights}")
    is_certain = model.weights == "imagenet"
    chosen = choose_normalize(AskedWeights(model.weights, model.normalize), "imagenet", is_certain, 3)
    return StartingWeights(model.weights, chosen, ())


def open_configured(model: ModelConfig) -> StartingWeights:
    """Read the starting weights of a config.

    Raises:
        CheckpointError, ConfigError: As ``open_weights``; or the config takes over a head that the weights lack.
    """
    assert model.weights is not None  # read_config guarantees it
    if model.weights_labels is not None and not model.take_head:
        raise ConfigError("model.weights_labels goes with model.take_head=true, which takes outputs over by name")
    start = open_weights(model.weights, model.normalize, model.weights_saw, model.weights_labels)
    if not model.take_head:
        return start
    if start.head is None:
        raise ConfigError(f"model.take_head=true: model.weights={model.weights} has no head linear on pooled features")
    if not start.head.labels:
        raise ConfigError(
            f"model.take_head=true: the labels of the {format_count(len(start.head.bias), 'output')} of "
            f"model.weights={model.weights} are not known: name them in their order: model.weights_labels=[...]"
        )
    return start


def _label_head(head: Head | None, asked: AskedWeights, known: Sequence[str]) -> Head | None:
    if head is None:
        return None
    n_outputs, labels = len(head.bias), asked.labels
    if labels and len(labels) != n_outputs:
        raise ConfigError(
            f"{asked.section}weights_labels has {format_count(len(labels), 'label')}; the head of {asked.what} has "
            f"{format_count(n_outputs, 'output')}"
        )
    return head._replace(labels=tuple(labels or (known if len(known) == n_outputs else ())))


def _describe(found: FoundFeatures, known: KnownWeights | None, is_xrv: bool, chosen: Normalization | None) -> str:
    """Describe weights in words; without ``chosen``, the normalization is omitted."""
    origin = f"{known.name}: trained on {known.trained_on}; licence: {known.licence}" if known else "unknown origin"
    if known and known.is_guess:
        origin = f"unknown origin, in the format of {known.name}, whose normalization is {known.normalize}"
    pixels = ", pixels of torchxrayvision folded into the stem" if is_xrv else ""
    said = f"{origin}; features below {found.prefix[:60]!r}"
    if chosen is None:
        return said
    mean, std = (", ".join(f"{value:.3g}" for value in sorted(set(values))) for values in NORMALIZE[chosen])
    return f"{said}; normalized by {chosen} (mean {mean}, std {std}){pixels}"
