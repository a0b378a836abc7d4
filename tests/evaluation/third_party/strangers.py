"""Tables of another program for the tests: a few images, scores, and what is true of them."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cxrlit.config.evaluate import PredictionsConfig

WHOLE: Any = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[3] / "conf" / "evaluate.yaml"))
DEFAULTS = {key: WHOLE[key] for key in PredictionsConfig.model_fields}


def make_config(**changes: Any) -> PredictionsConfig:
    """The defaults with changes; those of ``columns`` are laid over its defaults."""
    columns = {**DEFAULTS["columns"], **changes.pop("columns", {})}
    return PredictionsConfig.model_validate({**DEFAULTS, **changes, "columns": columns})


def write(folder: Path, *lines: str, name: str = "predictions.csv") -> Path:
    """Lines as a file."""
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name
