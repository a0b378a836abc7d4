"""Caveats that must accompany every number of a model."""

from collections.abc import Sequence

from cxrlit.data.dataset import SplitData
from cxrlit.data.sources.registry import name_sources
from cxrlit.model.checkpoint import Checkpoint
from cxrlit.model.weights.seen import describe_seen


def find_caveats(checkpoints: Sequence[Checkpoint], data: SplitData) -> tuple[str, ...]:
    """Find caveats of checkpoints: that they, or their starting weights, saw the images.

    The images are those of ``data`` and of the checkpoints' own data, which an external validation also shows.
    """
    found = [
        describe_seen(member.config.model, sources, split_name, member.metadata.start_sources)
        for member in checkpoints
        for sources, split_name in (
            (data.sources, data.split_name),
            (name_sources(member.config.data), member.metadata.split_name),
        )
    ]
    return tuple(dict.fromkeys(filter(None, [*data.caveats, *found])))
