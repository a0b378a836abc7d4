"""A signal ends a command with a code that says what to do, and waits where something can still be saved."""

import os
import signal
import subprocess
import sys

import pytest

from cxrlit.core.signals import SIGNALS, Interrupted, _Asked, asked_to_stop, catch_signals, hold_signals, set_handlers


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_block(signum: signal.Signals, code: int) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Interrupted) as interrupted, catch_signals():
        send(signum)
    assert interrupted.value.exit_code == code
    assert str(interrupted.value) == f"interrupted by {signum.name}: what is finished is kept; the same command goes on"
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_no_fault_handler_takes_it_for_a_fault() -> None:
    assert not issubclass(Interrupted, Exception)


def hold(*steps: int | BaseException) -> list[int | None]:
    """Send the signals and raise the faults, in this order, inside the block; what could be asked for after each."""
    asked = []
    with hold_signals():
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            send(step)
            asked.append(asked_to_stop())
        _Asked.signum = None  # as if somebody had answered
    return asked


def test_a_signal_that_is_held_is_there_to_be_asked_for() -> None:
    with catch_signals():
        assert hold(signal.SIGUSR1, signal.SIGTERM) == [signal.SIGUSR1, signal.SIGUSR1]
        assert asked_to_stop() is None
        with pytest.raises(Interrupted, match="interrupted by SIGUSR1: saved"):
            hold(signal.SIGUSR1, Interrupted(signal.SIGUSR1, "saved"))
        assert asked_to_stop() is None
        with pytest.raises(Interrupted, match="SIGTERM"):  # it is over
            send(signal.SIGTERM)


def test_a_signal_that_nobody_answers_ends_the_block_that_held_it() -> None:
    with catch_signals(), pytest.raises(Interrupted, match="SIGTERM"), hold_signals():
        send(signal.SIGTERM)


def test_a_signal_that_a_loader_process_died_of_is_no_fault_and_others_are() -> None:
    with catch_signals():
        with pytest.raises(Interrupted, match="SIGTERM"):
            hold(signal.SIGTERM, RuntimeError("DataLoader worker is killed"))
        with pytest.raises(RuntimeError, match="mine"):
            hold(RuntimeError("mine"))
        with pytest.raises(ValueError, match="mine"):
            hold(signal.SIGTERM, ValueError("mine"))


def test_a_second_ctrl_c_does_not_wait() -> None:
    with catch_signals():
        assert hold(signal.SIGINT, signal.SIGTERM) == [signal.SIGINT] * 2
        with pytest.raises(Interrupted, match="what is finished is kept"):
            hold(signal.SIGINT, signal.SIGINT, ValueError("not reached"))


def test_blocks_inside_each_other_are_one() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with catch_signals():
        inside = signal.getsignal(signal.SIGTERM)
        with catch_signals():
            pass
        assert signal.getsignal(signal.SIGTERM) is inside
    assert signal.getsignal(signal.SIGTERM) is before


def test_handlers_that_were_replaced_are_set_anew_and_only_inside() -> None:
    with catch_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        set_handlers()
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    set_handlers()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_child_that_inherits_the_handlers_dies_of_the_signal(signum: signal.Signals) -> None:
    program = f"""
import os, signal
from cxrlit.core.signals import catch_signals
with catch_signals():
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), {int(signum)})
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"-{int(signum)}\n"
    assert done.stderr == ""
