"""What a network starts from, once it is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from cxrlit.config import Normalization
from cxrlit.model.seen_files import NOTHING_SEEN, SeenFiles
from cxrlit.model.weights.head import Head, describe_taken, load_head
from cxrlit.model.weights.sources import KnownWeights


class AskedWeights(NamedTuple):
    """What a user says of weights.

    Attributes:
        weights: ``none`` (random), or what ``locate`` takes.
        normalize: How images are normalized; auto: as those of the weights were; numbers: mean and std are given.
        saw: Data sets that unknown weights saw.
        labels: Those of an unknown head, in order.
        section: Where the keys stand in the config, for messages.
    """

    weights: str
    normalize: str = "auto"
    saw: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    section: str = "model."

    @property
    def what(self) -> str:
        """What to call them in messages."""
        return f"{self.section}weights={self.weights}"


@dataclass(frozen=True)
class StartingWeights:
    """What a network starts from.

    Attributes:
        name: ``model.weights``.
        normalize: How images are normalized for them.
        saw: Data sets whose images they saw, test images too; None: not known.
        note: What they are, in words.
        features: State dict of the network's features; None: random.
        head: Their head, where it is a linear layer.
        known: Which known weights they are; None: none of them.
        is_normalize_known: Whether it is known, or was said, how images are normalized; False: it is assumed.
        trained_patients: Of a checkpoint of ours: whom it was trained on, as ``source/patient``.
        files: Of a checkpoint of ours: the image files that it has seen, by their bytes.
    """

    name: str
    normalize: Normalization
    saw: tuple[str, ...] | None
    note: str = ""
    features: dict[str, Tensor] | None = None
    head: Head | None = None
    known: KnownWeights | None = None
    is_normalize_known: bool = True
    trained_patients: frozenset[str] = frozenset()
    files: SeenFiles = NOTHING_SEEN

    def load_into(self, features: nn.Module, head: nn.Linear, labels: Sequence[str] = ()) -> None:
        """Put them into a network.

        Args:
            features: Its features.
            head: Its head.
            labels: Of the head's outputs, where those of matching labels are to be taken over.

        Raises:
            CheckpointError: Their head has none of these labels.
        """
        if self.features is not None:
            features.load_state_dict(self.features)
        if labels and self.head is not None:
            load_head(head, labels, self.head, f"model.take_head=true: model.weights={self.name}")

    def describe(self, labels: Sequence[str] = ()) -> list[str]:
        """What they are, and which outputs are taken over for ``labels``: lines for the screen."""
        said = [f"Starting weights: {self.note}"] if self.note else []
        if labels and self.head is not None:
            said.append(f"Head: {describe_taken(labels, self.head.labels)}")
        return said
