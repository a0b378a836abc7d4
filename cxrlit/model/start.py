"""The starting network of a phase: from the configured weights or an earlier checkpoint."""

from pathlib import Path
from typing import NamedTuple

from cxrlit.config import TrainConfig
from cxrlit.core.ranks import rank_0_first
from cxrlit.data.split import name_patients_sources
from cxrlit.model.checkpoint import Checkpoint, read_checkpoint
from cxrlit.model.densenet import CXRNet, build_network
from cxrlit.model.seen_files import SeenFiles
from cxrlit.model.weights.open_weights import open_configured


class Start(NamedTuple):
    """The starting network of a phase, and what it was trained on.

    Attributes:
        network: The network.
        patients: Patients that it was trained on.
        sources: Data sets that it was trained on before the chain began.
        files: The image files that it has seen.
        history: The phases that trained it, first to last.
        checkpoint: The checkpoint that it was read from; None: from ``model.weights``.
    """

    network: CXRNet
    patients: set[str]
    sources: list[str]
    files: SeenFiles
    history: list[str]
    checkpoint: Checkpoint | None = None


@rank_0_first
def start_network(config: TrainConfig, previous: Path | None) -> Start:
    """Load the starting network of a phase, with the record of what it has seen.

    Args:
        config: The resolved config of the chain.
        previous: A checkpoint or phase folder; None: start from ``model.weights``.
    """
    if previous is None:
        weights = open_configured(config.model)
        network = build_network("none", weights.normalize, len(config.labels), config.seed)
        weights.load_into(network.features, network.head, config.labels if config.model.take_head else ())
        sources = name_patients_sources(weights.trained_patients)
        return Start(network, set(weights.trained_patients), sources, weights.files, [])
    checkpoint = read_checkpoint(previous)
    metadata = checkpoint.metadata
    history = [*metadata.history, metadata.name]
    patients = set(metadata.trained_patients)
    sources = metadata.start_sources if config.init_from is None else name_patients_sources(patients)
    return Start(checkpoint.build_network(), patients, sources, checkpoint.files, history, checkpoint)
