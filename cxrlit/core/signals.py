"""Signals that ask a command to stop. What can be saved is saved first, and the same command goes on from there.

SIGTERM and SIGUSR1 are how a scheduler announces the end of a job: the command ends with ``REQUEUE_EXIT_CODE``. Ctrl-C
(SIGINT) ends with 130, as shells have it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REQUEUE_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(BaseException):
    """A signal ends the command. No fault: like ``KeyboardInterrupt`` it passes by ``except Exception``.

    Args:
        signum: The signal.
        saved: What was saved because of it, for the message.
    """

    def __init__(self, signum: int, saved: str = "what is finished is kept") -> None:
        self.signum = signal.Signals(signum)
        super().__init__(f"interrupted by {self.signum.name}: {saved}; the same command goes on")

    @property
    def exit_code(self) -> int:
        return 130 if self.signum == signal.SIGINT else REQUEUE_EXIT_CODE


class _Asked:
    """What this process was asked, and who answers. Signals are the process's, and so is this.

    Attributes:
        signum: The signal that is held back.
        is_held: Whether one would be.
        pid: The process whose handlers are set; None: nobody's.
    """

    signum: int | None = None
    is_held = False
    pid: int | None = None


def asked_to_stop() -> int | None:
    """The signal that was held back inside ``hold_signals``, if there was one."""
    return _Asked.signum


@contextmanager
def catch_signals() -> Iterator[None]:
    """Inside the block a signal raises ``Interrupted``, or is held back where ``hold_signals`` says so."""
    in_main_thread = threading.current_thread() is threading.main_thread()  # Python takes handlers there alone
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
    """Set the handlers of ``catch_signals`` anew, inside it: Lightning replaces them when a training starts."""
    if _Asked.pid == os.getpid():
        for signum in SIGNALS:
            signal.signal(signum, _handle)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Inside the block a signal waits until somebody looks at ``asked_to_stop``. A second Ctrl-C does not wait.

    Raises:
        Interrupted: There was one, and nobody looked, or a loader process died of it.
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
