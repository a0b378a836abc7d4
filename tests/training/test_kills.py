"""The command that kills trainings, as far as a test has time for it."""

import os
import re
import subprocess
import sys

import pytest
from tiny import REPO


@pytest.mark.slow
def test_five_killed_trainings_end_as_the_one_that_was_not() -> None:
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "kills.py"), "--kills", "5", "--seed", "1"],
        env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 of 5 killed trainings ended as the one that was never killed" in done.stdout
    assert len(re.findall(r"^\d: .*; yes$", done.stdout, re.MULTILINE)) == 5
