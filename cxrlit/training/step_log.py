"""The CSV log of single steps, which a phase that resumes goes on writing."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only


def count_epochs_from_1(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a log, with the epoch that Lightning adds to it counted as everywhere else.

    >>> count_epochs_from_1({"val/loss": 0.5, "epoch": 0})
    {'val/loss': 0.5, 'epoch': 1}
    """
    epoch = metrics.get("epoch")
    return {**metrics, "epoch": epoch + 1} if type(epoch) is int else dict(metrics)  # a float: logged by a user


class StepLog(CSVLogger):
    """Lightning's CSV log, with epochs from 1. It would start anew; this one is cut back to what was saved, and goes
    on.

    Takes the arguments of ``CSVLogger``. Keeps all rows: some 100 bytes each.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(count_epochs_from_1(metrics), step)

    @rank_zero_only
    def save(self) -> None:
        self._rows += [dict(row) for row in self.experiment.metrics]
        try:
            super().save()
        except OSError as error:  # of an open file, which has no name
            error.filename = error.filename or self.experiment.metrics_file_path
            raise

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, plain types."""
        self.save()
        return {"rows": self._rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin with the rows of a ``state_dict``."""
        self._rows = []
        self.experiment.metrics = [dict(row) for row in state["rows"]]
        self.save()
