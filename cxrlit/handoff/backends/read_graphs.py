"""Read the graphs of a bundle, each checked before it is loaded."""

from pathlib import Path

from cxrlit.core.errors import ConfigError
from cxrlit.handoff.backends.backend import Precision
from cxrlit.handoff.bundle import Bundle
from cxrlit.handoff.check_graph import check_graph

GRAPH_BATCH_SIZE = 16
"""Images per batch if each has its own thread: threads seldom wait for the last image of a batch."""


def read_graphs(bundle: Bundle, precision: Precision) -> list[tuple[Path, bytes]]:
    """Read and check the graph of each network in the given precision, with its path for messages.

    Raises:
        BundleError: A graph fails ``check_graph``.
        ConfigError: int8 is requested, and the bundle has none.
    """
    is_int8 = precision == "int8"
    names = bundle.int8_files if is_int8 else [graph for _, graph in bundle.member_files]
    if not names:
        raise ConfigError(f"precision=int8: {bundle.folder} has no int8: cxrlit export CKPT --int8 makes one that has")
    graphs = [(bundle.folder / name, bundle.contents[name]) for name in names]
    for path, graph in graphs:
        check_graph(graph, len(bundle.labels), bundle.config.preprocessing.img_size, path, is_int8=is_int8)
    return graphs
