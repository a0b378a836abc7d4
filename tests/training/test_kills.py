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
    assert re.search(r"ended with the bytes of the one that was not +5 +5 +all$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^\d: .*; yes$", done.stdout, re.MULTILINE)) == 5
