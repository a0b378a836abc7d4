"""Evaluate a DenseNet121 of another project, features and head, without training.

Its probs are the sigmoid of the head's outputs, even if the original network ends without a sigmoid.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cxrlit.config import EvaluateConfig, InternalData
from cxrlit.core.console import make_printable
from cxrlit.core.errors import CheckpointError, ConfigError, DataError, name_some
from cxrlit.core.files import hash_file
from cxrlit.core.labels import LABELS
from cxrlit.data.dataset import SplitData, load_data, read_data, split_data
from cxrlit.data.image_io.decode import Resize
from cxrlit.data.index import read_targets
from cxrlit.data.sources.registry import name_sources
from cxrlit.evaluation.answers import Answers, choose_answers, describe_answers
from cxrlit.evaluation.measure.assessment import EvaluatedModel
from cxrlit.evaluation.measure.evaluation_names import (
    choose_evaluation_precision,
    describe_prediction,
    describe_way,
    name_way,
)
from cxrlit.evaluation.predictions import check_label_names
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.seen_files import NOTHING_SEEN, SeenFiles
from cxrlit.model.weights.finite import check_finite
from cxrlit.model.weights.head import Head, match_head
from cxrlit.model.weights.locate import locate
from cxrlit.model.weights.open_weights import open_weights
from cxrlit.model.weights.seen import describe_saw, find_overlap, name_seen, refuse_seen_test
from cxrlit.model.weights.start import StartingWeights


@dataclass(frozen=True)
class OtherNetwork:
    """Weights of another project, with all that prediction needs.

    Attributes:
        name: Name of the file, or for example ``xrv:chex``.
        start: Features and head.
        outputs: Index of the head's output for each evaluated label, in order.
        img_size: S, side of the images, pixels.
        resize: ``data.resize``: how images are made square.
        moments: Mean and std, of one channel or three, in place of ``start.normalize``.
        batch_size: Images of one forward pass.
        files: Image files that it has seen; unknown, so empty.
    """

    name: str
    start: StartingWeights
    outputs: Mapping[str, int]
    img_size: int
    resize: Resize
    moments: tuple[list[float], list[float]] | None = None
    batch_size: int = 32
    files: SeenFiles = NOTHING_SEEN

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the evaluated outputs, in order."""
        return tuple(self.outputs)

    @property
    def head(self) -> Head:
        """The head of the weights."""
        assert self.start.head is not None  # open_network guarantees it
        return self.start.head

    def build_network(self) -> CXRNet:
        """Build the network with its features and the evaluated outputs."""
        network, rows = build_network("none", self.start.normalize, len(self.outputs), seed=0), [*self.outputs.values()]
        self.start.load_into(network.features, network.head)
        with torch.no_grad():
            network.head.weight.copy_(self.head.weight[rows])
            network.head.bias.copy_(self.head.bias[rows])
            for buffer, values in zip((network.mean, network.std), self.moments or (), strict=False):
                buffer.copy_(torch.tensor(values).view(1, -1, 1, 1).expand_as(buffer))
        return network

    def only(self, labels: Sequence[str]) -> "OtherNetwork":
        """Return the same network with only these labels."""
        return replace(self, outputs={label: self.outputs[label] for label in labels})

    def describe_head(self, data: SplitData) -> str:
        """Say which labels are evaluated, and which are not.

        Args:
            data: Data of the evaluation.
        """
        theirs = self.head.labels
        named = [name if theirs[at] == name else f"{name} (its {theirs[at]})" for name, at in self.outputs.items()]
        parts = {
            "evaluated": named,
            f"not evaluated, without targets in {data.name} or not asked for": [
                name for place, name in enumerate(theirs) if name and place not in self.outputs.values()
            ],
            "not in its head": [label for label in LABELS if not match_head([label], theirs)],
        }
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def open_network(config: EvaluateConfig) -> OtherNetwork:
    """Read the weights that ``weights`` names, with every label of their head.

    Raises:
        CheckpointError: They cannot be read, are not DenseNet121's, are a cxrlit checkpoint, or have no linear head.
        ConfigError: Labels, size or normalization are neither known nor set, or are set to wrong values.
    """
    assert config.weights is not None
    assert not isinstance(config.data, InternalData)
    what = f"weights={config.weights}"
    if config.weights in ("none", "imagenet"):
        raise ConfigError(f"{what}: it has no head for findings: name a file of weights, or xrv:NAME")
    said = name_seen(config.weights_saw, name_sources(config.data), section="")
    normalize = config.normalize if config.mean is None else "numbers"
    start = open_weights(config.weights, normalize, said, config.weights_labels, section="")
    if start.trained_patients:
        raise CheckpointError(f"{what}: a checkpoint of cxrlit: say ckpt={config.weights}")
    if start.head is None:
        raise CheckpointError(f"{what}: it has no head linear on the mean of each feature map, so there is no output")
    if not start.head.labels:
        raise ConfigError(
            f"{what}: the labels of its {len(start.head.bias)} outputs are not known: name them in their order: "
            "weights_labels=[...]"
        )
    if not start.is_normalize_known:
        raise ConfigError(
            f"{what}: how its images were normalized is not known: say normalize=imagenet, half, unit or another that "
            "it may be, or mean=[...] std=[...]"
        )
    img_size = config.img_size or (start.known.img_size if start.known else None)
    if img_size is None:
        raise ConfigError(f"{what}: the size of its images is not known: say img_size=224, or what it was trained on")
    check_finite({"the head": start.head.weight, "its bias": start.head.bias}, what)
    return OtherNetwork(
        name=make_printable(Path(config.weights).name),
        start=start,
        outputs=name_outputs(start.head.labels, config.labels, what),
        img_size=img_size,
        resize=config.data.resize,
        moments=None if config.mean is None or config.std is None else (config.mean, config.std),
    )


def name_outputs(theirs: Sequence[str], asked: Sequence[str] | None, what: str) -> dict[str, int]:
    """Choose the output for each label: first cxrlit's labels, then the others of the head, each output once.

    Args:
        theirs: Labels of the head, in order.
        asked: Labels to evaluate; None: all.
        what: What to call the weights in messages.

    Raises:
        ConfigError: The head has no output of that name.

    >>> name_outputs(["Hernia", "Pleural Effusion", "", "Mass"], None, "weights=a.pth")
    {'Effusion': 1, 'Mass': 3, 'Hernia': 0}
    """
    found = match_head(asked or [*LABELS, *filter(None, theirs)], theirs)
    missing = [label for label in asked or () if label not in found]
    if missing:
        there = name_some(list(filter(None, theirs)), limit=20)
        raise ConfigError(f"labels: {name_some(missing)} is none of the labels of {what}, which are {there}")
    outputs: dict[str, int] = {}
    for label, place in found.items():
        if place not in outputs.values():
            outputs[label] = place
    check_label_names(list(outputs), Path(what))
    return outputs


def load_for_network(network: OtherNetwork, config: EvaluateConfig) -> tuple[OtherNetwork, SplitData, Answers | None]:
    """Load the data with their split, and reduce the network to the labels that have targets there.

    The split is that of a training on the eight findings, whatever the network's labels are, so that all models are
    compared on the same split.

    Returns:
        Both, and the outputs that answer the labels of the data, if those have other names.

    Raises:
        ConfigError: No output answers a label of the data.
        DataError: The data cannot be read, or have no target for any label of the network.
        LeakageError: The weights saw the test images, and ``allow_seen`` is not true.
    """
    assert not isinstance(config.data, InternalData)
    what, saw = f"weights={config.weights}", network.start.saw or ()
    remedy = "evaluate it on other data, or say allow_seen=true, and every number says it"
    answers = choose_answers(config.data, network.labels, what)
    if answers is not None:
        data = load_data(config.data, list(answers), Path(config.cache_dir), are_labels_fixed=True)
        refuse_seen_test(what, saw, data.sources, data.split_name, config.allow_seen, remedy)
        return network.only(list(dict.fromkeys(itertools.chain(*answers.values())))), data, answers
    columns = tuple(dict.fromkeys([*LABELS, *network.labels]))
    read = read_data(config.data, columns, Path(config.cache_dir), are_labels_fixed=True)
    data = split_data(replace(read, labels=LABELS), config.data)
    unknown = np.isnan(read_targets(data.index[data.split["split"] != "train"], network.labels))
    labels = [
        label for label, column in zip(network.labels, unknown.T, strict=True) if config.labels or not column.all()
    ]
    if unknown.all():
        raise DataError(
            f"{what}: none of the labels of its head has a target in {data.name}: it has "
            f"{name_some(list(network.labels), limit=20)}"
        )
    refuse_seen_test(what, saw, data.sources, data.split_name, config.allow_seen, remedy)
    return network.only(labels), replace(data, labels=tuple(labels)), None


def describe_network(
    network: OtherNetwork, data: SplitData, config: EvaluateConfig, answers: Answers | None = None
) -> EvaluatedModel:
    """Facts and caveats of the network for the report; takes what ``load_for_network`` returns."""
    assert config.weights is not None
    saw, what = network.start.saw, f"the weights ({network.name})"
    caveats = [*data.caveats, describe_saw(what, saw, data.sources, data.split_name)]
    if not caveats[-1] and find_overlap(saw or (), data.sources, ""):
        caveats.append(f"calibration and thresholds are fitted on images that {what} were trained on")
    moments = "" if network.moments is None else "; mean {} and std {}".format(*network.moments)
    digest = hash_file(locate(config.weights, f"weights={config.weights}").path)[:12]
    return EvaluatedModel(
        name=network.name,
        data=data.name,
        split_name=data.split_name,
        split_hash=data.split_hash,
        predicted=describe_prediction([], config),
        precision=choose_evaluation_precision(config),
        facts={
            "weights": f"{network.name}, SHA-256 {digest}: {network.start.note}{moments}",
            "images": f"{network.img_size} px, made square by data.resize={network.resize}",
            "labels": network.describe_head(data),
            **({} if answers is None else {f"labels of {data.name}": describe_answers(answers, network.labels)}),
            **describe_way(config),
        },
        caveats=tuple(filter(None, caveats)),
    )


def network_path(network: OtherNetwork, data: SplitData, config: EvaluateConfig) -> Path:
    """The default folder of the results: beside the weights' file, or in the current folder for ``xrv:NAME``."""
    assert config.weights is not None
    file = Path(config.weights.removeprefix("xrv:")).expanduser()
    folder = file.parent if file.is_file() else Path()
    return folder / f"{network.name.replace(':', '-')}-on-{data.name}{name_way(config)}"
