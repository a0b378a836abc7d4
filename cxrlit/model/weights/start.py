"""Starting weights, as asked for and as read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from cxrlit.config import Normalization
from cxrlit.model.seen_files import NOTHING_SEEN, SeenFiles
from cxrlit.model.weights.head import Head, describe_taken, load_head
from cxrlit.model.weights.sources import KnownWeights


class AskedWeights(NamedTuple):
    """The user's settings of weights.

    Attributes:
        weights: ``none`` (random), or what ``locate`` takes.
        normalize: How images are normalized; auto: as the weights expect; numbers: mean and std are given.
        saw: Data sets that unknown weights saw.
        labels: Labels of an unknown head, in order.
        section: Config section of the keys, for messages.
    """

    weights: str
    normalize: str = "auto"
    saw: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    section: str = "model."

    @property
    def what(self) -> str:
        """The key and value, for messages."""
        return f"{self.section}weights={self.weights}"


@dataclass(frozen=True)
class StartingWeights:
    """Starting weights that were read and checked.

    Attributes:
        name: ``model.weights``.
        normalize: How images are normalized for them.
        saw: Data sets whose images they saw, including test images; None: unknown.
        note: Description for the screen.
        features: State dict of the network's features; None: random.
        head: Their head, if it is a linear layer.
        known: The known weights that they are; None: unknown.
        is_normalize_known: Whether the normalization is known or set by the user; False: assumed.
        trained_patients: Patients that a checkpoint of cxrlit was trained on, as ``source/patient``.
        files: Digests of the image files that a checkpoint of cxrlit has seen.
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
        """Load them into a network.

        Args:
            features: Features of the network.
            head: Head of the network.
            labels: Labels of the head's outputs, whose matching outputs are taken over; empty: none.

        Raises:
            CheckpointError: The head of the weights has none of these labels.
        """
        if self.features is not None:
            features.load_state_dict(self.features)
        if labels and self.head is not None:
            load_head(head, labels, self.head, f"model.take_head=true: model.weights={self.name}")

    def describe(self, labels: Sequence[str] = ()) -> list[str]:
        """Lines for the screen: what the weights are, and which outputs are taken over for ``labels``."""
        said = [f"Starting weights: {self.note}"] if self.note else []
        if labels and self.head is not None:
            said.append(f"Head: {describe_taken(labels, self.head.labels)}")
        return said
