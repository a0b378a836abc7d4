"""Array types shared by the metrics."""

from typing import Any

from numpy import floating
from numpy.typing import NDArray

Floats = NDArray[floating[Any]]
