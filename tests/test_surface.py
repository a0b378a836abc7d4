"""What a user can see changes only together with tests/surface.txt."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


@pytest.mark.slow
def test_what_a_user_can_see_is_what_surface_txt_says(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, TESTS / "surface.py", "--check"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"run make surface and look at the diff\n{done.stdout}{done.stderr}"
