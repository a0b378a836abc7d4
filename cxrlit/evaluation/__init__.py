"""From predictions to tables: metrics, thresholds, and the files that they fill."""

from typing import Any

from numpy import floating
from numpy.typing import NDArray

Floats = NDArray[floating[Any]]
