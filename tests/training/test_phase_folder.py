"""Records in a phase folder that hold anything."""

import json
import shutil
from pathlib import Path

import pytest

from cxrlit.config import EvaluateConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.core.errors import CheckpointError
from cxrlit.evaluation.evaluate import find_evaluation
from cxrlit.evaluation.measure.evaluation_names import describe_evaluation
from cxrlit.model.checkpoint import read_checkpoint
from cxrlit.training.logger_runs import read_run
from cxrlit.training.phase_folder import read_phase_record

NO_RECORDS = [b"\xff", b"[" * 100_000, b'{"settings": ' * 100_000]


@pytest.mark.parametrize("content", NO_RECORDS)
def test_what_is_no_record_of_a_phase_or_a_logger_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "loggers").mkdir()
    for name in ("phase.json", "loggers/wandb.json"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"phase.json: it is damaged: remove \S+, the phase is trained anew$"):
        read_phase_record(tmp_path)
    with pytest.raises(CheckpointError, match=r"wandb.json: it is damaged"):
        read_run(tmp_path, "wandb")


def test_what_is_no_record_of_an_evaluation_is_made_anew(frozen: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(frozen, tmp_path / frozen.name, ignore=shutil.ignore_patterns("eval*"))
    config = compose_defaults("evaluate", EvaluateConfig, {"ckpt": [str(folder)]})
    record = folder / "eval" / "evaluation.json"
    record.parent.mkdir()
    checkpoints = [read_checkpoint(folder)]
    for content in [*NO_RECORDS, b"null", b"{}"]:
        record.write_bytes(content)
        assert find_evaluation(checkpoints, config) is None
    record.write_text(json.dumps(describe_evaluation(checkpoints, config)))
    assert find_evaluation(checkpoints, config) == record.parent
