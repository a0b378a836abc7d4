"""A logger of a user's own: it has the public interface of Lightning's loggers and nothing else."""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger


class RowLogger(Logger):
    """Adds each row to a file, and each dict of hyperparameters to another."""

    def __init__(self, folder: str, api_key: str = "", fails_at: int | None = None) -> None:
        super().__init__()
        self.folder, self.api_key, self.fails_at = Path(folder), api_key, fails_at

    @property
    def name(self) -> str:
        return "rows"

    @property
    def version(self) -> str:
        return "only"

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self._add("hyperparameters.jsonl", params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is not None and step == self.fails_at:
            raise ConnectionError("nobody answers\nat all")
        self._add("rows.jsonl", [step, dict(metrics)])

    def _add(self, name: str, value: Any) -> None:
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(value) + "\n")
