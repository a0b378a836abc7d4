"""The CSV log of single steps, continued on resume."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only


def count_epochs_from_1(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Add 1 to the epoch of a log row: Lightning counts from 0, everything else from 1.

    >>> count_epochs_from_1({"val/loss": 0.5, "epoch": 0})
    {'val/loss': 0.5, 'epoch': 1}
    """
    epoch = metrics.get("epoch")
    return {**metrics, "epoch": epoch + 1} if type(epoch) is int else dict(metrics)  # a float: logged by a user


class StepLog(CSVLogger):
    """Lightning's CSV log with epochs from 1, which continues on resume after the rows of the saved state.

    Takes the arguments of ``CSVLogger``. Keeps all rows in memory: about 100 bytes each.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row, with the epoch counted from 1."""
        super().log_metrics(count_epochs_from_1(metrics), step)

    @rank_zero_only
    def save(self) -> None:
        """Write the rows; rank 0 only.

        Raises:
            OSError: They cannot be written; the error names the file.
        """
        self._rows += [dict(row) for row in self.experiment.metrics]
        try:
            super().save()
        except OSError as error:  # errors of an open file name no file
            error.filename = error.filename or self.experiment.metrics_file_path
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, in plain types."""
        self.save()
        return {"rows": self._rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace all rows by those of a ``state_dict``."""
        self._rows = []
        self.experiment.metrics = [dict(row) for row in state["rows"]]
        self.save()
