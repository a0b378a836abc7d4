"""Several processes that run the same commands together, as Slurm would start them."""

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from cutting import ask, before_call
from tiny import REPO, Outcome, plain_environment, run_command

from cxrlit.model.module import CXRModule

PYTHONPATH = os.pathsep.join(map(str, (REPO, REPO / "tests", REPO / "tests" / "training")))


def start_ranks(
    folder: Path, n_ranks: int, *commands: list[str], signals: dict[int, int] | None = None, step: int = 0
) -> list[subprocess.Popen[str]]:
    """Start processes that run commands one after another: a script and its arguments each.

    Args:
        folder: Gets what they leave behind.
        n_ranks: How many.
        commands: What they run.
        signals: Ranks that send themselves a signal, and which one.
        step: Before which training step of each command.
    """
    folder.mkdir(exist_ok=True)
    todo = {"commands": commands, "signals": signals or {}, "step": step}
    (folder / "todo.json").write_text(json.dumps(todo))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "SLURM_JOB_NAME": "tests", "SLURM_JOB_ID": "1",
                "SLURM_NTASKS": str(n_ranks), "SLURM_NTASKS_PER_NODE": str(n_ranks), "SLURM_NNODES": "1",
                "SLURM_NODEID": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env=plain_environment(**settings, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n_ranks)
    ]


def wait_for(processes: list[subprocess.Popen[str]], seconds: float = 300) -> list[int]:
    """Their exit codes. Whoever has not ended by then is killed, and that is a failure."""
    try:
        for process in processes:
            process.communicate(timeout=seconds)
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes]


def run_ranks(folder: Path, n_ranks: int, *commands: list[str]) -> list[list[Outcome]]:
    """What each rank left behind of each command."""
    codes = wait_for(start_ranks(folder, n_ranks, *commands))
    outcomes = [read_outcomes(folder, rank) for rank in range(n_ranks)]
    assert codes == [0] * n_ranks, outcomes
    return outcomes


def read_outcomes(folder: Path, rank: int) -> list[Outcome]:
    return [Outcome(**values) for values in json.loads((folder / f"{rank}.json").read_text())]


def main(folder: Path) -> None:
    todo, rank = json.loads((folder / "todo.json").read_text()), os.environ["SLURM_PROCID"]
    signum, outcomes = todo["signals"].get(rank), []
    for script, *arguments in todo["commands"]:
        with before_call(CXRModule, "training_step", todo["step"], ask(signum)) if signum else nullcontext():
            outcomes.append(vars(run_command(script, *arguments)))
        (folder / f"{rank}.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
