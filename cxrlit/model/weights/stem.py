"""Convert the first convolution to the pixel range and the three channels used here."""

from torch import Tensor

from cxrlit.config import Normalization
from cxrlit.core.errors import ConfigError
from cxrlit.model.weights.sources import NORMALIZE
from cxrlit.model.weights.start import AskedWeights


def fold_stem(weight: Tensor, scale: float) -> Tensor:
    """Convert a stem to three equal channels, and to pixels smaller by the factor ``scale``.

    The stem has no bias, and padding is zero after normalization in both programs: only rounding changes the output.

    Args:
        weight: (64, 1, 7, 7), or (64, 3, 7, 7).
        scale: Original pixel value / pixel value here.

    Returns:
        (64, 3, 7, 7).

    >>> import torch
    >>> fold_stem(torch.full((1, 1, 1, 1), 3.0), scale=2.0).flatten().tolist()
    [2.0, 2.0, 2.0]
    """
    channels = weight.shape[1]
    scaled = weight.double() * scale / (3 // channels)
    return scaled.expand(-1, 3, -1, -1).float().contiguous() if channels == 1 else scaled.float()


def choose_normalize(
    said: AskedWeights, theirs: Normalization | None, is_certain: bool, n_channels: int
) -> Normalization:
    """Choose how images are normalized for weights.

    Args:
        said: The user's settings; for ``normalize=numbers``, ``unit`` is returned.
        theirs: Normalization that the weights were trained with, if known.
        is_certain: Whether ``theirs`` is certain.
        n_channels: Input channels of the stem.

    Raises:
        ConfigError: The setting contradicts the weights, or the normalization is unknown.
    """
    asked, what, section = said.normalize, said.what, said.section
    if asked == "numbers" and theirs is not None and is_certain:
        raise ConfigError(f"{section}mean and {section}std: {what} was trained with {theirs}: drop both")
    if asked == "numbers":
        return "unit"
    if asked != "auto" and theirs is not None and is_certain and asked != theirs:
        raise ConfigError(f"{section}normalize={asked}: {what} was trained with {theirs}: drop {section}normalize")
    chosen: Normalization
    if asked != "auto":
        chosen = asked  # type: ignore[assignment]  # the schema guarantees it
    elif theirs is not None:
        chosen = theirs
    elif n_channels == 1:
        raise ConfigError(
            f"{what}: a stem of one channel, whose pixels are not known: {section}weights=xrv:PATH for "
            f"torchxrayvision's [-1024, 1024], {section}normalize=half for [-1, 1], {section}normalize=unit for [0, 1]"
        )
    else:
        chosen = "imagenet"
    mean, std = NORMALIZE[chosen]
    if n_channels == 1 and (len(set(mean)) > 1 or len(set(std)) > 1):
        raise ConfigError(
            f"{section}normalize={chosen}: {what} has a stem of one channel, and these three differ: say half or unit"
        )
    return chosen
