"""What the tests of the service share: a small bundle, and the service on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundles import write_bundle, write_images

from cxrlit import Predictor

if TYPE_CHECKING:
    from demos import Served


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A small network, by ONNX Runtime."""
    return Predictor.load(write_bundle(tmp_path_factory.mktemp("service") / "bundle"), "onnx", n_threads=1)


@pytest.fixture(scope="module")
def served(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Served"]:
    """The service in this process."""
    from demos import serve_here  # needs what the extra brings

    with serve_here(predictor, tmp_path_factory.mktemp("here")) as service:
        yield service


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    """A file that the service takes."""
    return write_images(tmp_path, 1)[0].read_bytes()
