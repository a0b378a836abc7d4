"""Signals that ask a command to stop. The command first saves its state, so that a rerun continues from there.

A scheduler announces the end of a job with SIGTERM or SIGUSR1: the command exits with ``REQUEUE_EXIT_CODE``. After
Ctrl-C (SIGINT) it exits with 130, the shells' convention.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REQUEUE_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: temporary failure, try again later."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(BaseException):
    """A signal ends the command. As with ``KeyboardInterrupt``, ``except Exception`` does not catch it.

    Args:
        signum: The signal.
        saved: The state that was saved, for the message.
    """

    def __init__(self, signum: int, saved: str = "what is finished is kept") -> None:
        self.signum = signal.Signals(signum)
        super().__init__(f"interrupted by {self.signum.name}: {saved}; the same command goes on")

    @property
    def exit_code(self) -> int:
        """Exit code of the command."""
        return 130 if self.signum == signal.SIGINT else REQUEUE_EXIT_CODE


class _Asked:
    """The pending signal of this process. Signals are per process, and so is this class.

    Attributes:
        signum: The held signal.
        is_held: Whether signals are being held.
        pid: The process that set the handlers; None: none did.
    """

    signum: int | None = None
    is_held = False
    pid: int | None = None


def asked_to_stop() -> int | None:
    """The signal that was held inside ``hold_signals``, if any."""
    return _Asked.signum


@contextmanager
def catch_signals() -> Iterator[None]:
    """Inside the block a signal raises ``Interrupted``, or waits inside ``hold_signals``."""
    in_main_thread = threading.current_thread() is threading.main_thread()  # Python sets handlers only there
    if _Asked.pid == os.getpid() or not in_main_thread:
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    _Asked.pid = os.getpid()
    set_handlers()
    try:
        yield
    finally:
        _Asked.pid = None
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)


def set_handlers() -> None:
    """Set the handlers of ``catch_signals`` again inside its block: Lightning replaces them when training starts."""
    if _Asked.pid == os.getpid():
        for signum in SIGNALS:
            signal.signal(signum, _handle)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold signals inside the block until ``asked_to_stop`` is checked. A second Ctrl-C is not held.

    Raises:
        Interrupted: A signal came inside the block; raised when the block ends.
    """
    _Asked.signum, _Asked.is_held = None, True
    try:
        yield
    except RuntimeError:
        if _Asked.signum is None:
            raise
    finally:
        signum, _Asked.signum, _Asked.is_held = _Asked.signum, None, False
    if signum is not None:
        raise Interrupted(signum)


def _handle(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _Asked.pid:  # a child that inherited this handler dies as it would have
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    elif not _Asked.is_held or (_Asked.signum is not None and signum == signal.SIGINT):
        raise Interrupted(signum)
    elif _Asked.signum is None:
        _Asked.signum = signum
        if signum == signal.SIGINT and os.isatty(2):
            os.write(2, b"stopping after this step; Ctrl-C again stops at once\n")  # print is not safe in a handler
