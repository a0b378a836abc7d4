"""Keys of ``model``: the network and its starting weights."""

from typing import Literal

from pydantic import Field

from cxrlit.config.types import ConfigSection, LabelName, Normalization, SeenName


class ModelConfig(ConfigSection):
    """Keys of the network."""

    name: Literal["densenet121"]
    weights: str | None = Field(
        min_length=1,
        description="what the chain starts from: imagenet, none, xrv:NAME, timm:NAME, or a file of weights; "
        "auto: imagenet (none for synthetic data); null: what init_from says",
    )
    normalize: Literal["auto"] | Normalization = Field(
        description="mean and std after scaling to [0, 1]; auto: those of the weights"
    )
    take_head: bool = Field(default=False, description="take over the outputs of the weights' head for equal labels")
    weights_labels: list[LabelName] | None = Field(
        default=None, description="labels of the head in a file of weights, in order, where they are not known"
    )
    weights_saw: list[SeenName] | None = Field(
        default=None, description="data sets that a file of weights was trained on, such as [nih]; []: none of ours"
    )
    allow_seen: bool = Field(
        default=False,
        description="train although the weights saw the test images; every evaluation says so beside its numbers",
    )

    @property
    def normalization(self) -> Normalization:
        """Pixel normalization of the trained network: its starting weights settled ``auto``."""
        return "imagenet" if self.normalize == "auto" else self.normalize
