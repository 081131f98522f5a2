"""How a command ends: Ctrl-C, at any moment and as often as one likes, ends it with a line and without a traceback."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from moe_sweeps.host.signals import handled, is_ignored

STOPPED = 130  # by a shell's convention: 128 + SIGINT
# A further Ctrl-C this soon is impatience with the first, and would only interrupt what answers that one.
IMPATIENT_SECONDS = 1.0


class _CtrlC:
    """Raises KeyboardInterrupt, as Python's own handler does, but not twice at once."""

    def __init__(self) -> None:
        self._raised_at: float | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._raised_at is None or now - self._raised_at > IMPATIENT_SECONDS:
            self._raised_at = now
            raise KeyboardInterrupt

    def is_dropped(self) -> None:
        """Python has dropped it: it was raised within a weak reference's callback or a __del__. It comes again."""
        self._raised_at = None
        signal.signal(signal.SIGALRM, lambda signum, frame: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, 0.01)


def run_program(main: Callable[[], int]) -> NoReturn:
    """Call `main`, which loads and runs a command, and end this process with the code that it returns.

    From its return on, Ctrl-C is ignored: what is left is to end helper processes and to flush, which takes a moment.
    A SIGINT that the parent process made this one ignore stays ignored.
    """
    if _may_set() and not is_ignored(signal.SIGINT):
        signal.signal(signal.SIGINT, ctrl_c := _CtrlC())
        sys.unraisablehook = _told_to(ctrl_c)
    try:
        code = main()
    except KeyboardInterrupt:  # while it loads, or while it reports an earlier one
        code = stopped()
    finally:
        _ignore_for_good()
        exec("")  # Python dies of SIGINT if the last text that it executed was interrupted, though that was caught
    sys.exit(code)


def stopped(how: str = "") -> int:
    """Say that Ctrl-C ended the command, and `how` it goes on; returns the exit code. A further Ctrl-C is ignored."""
    if isinstance(signal.getsignal(signal.SIGINT), _CtrlC):
        _ignore_for_good()
    with handled(lambda signum, frame: None, [signal.SIGINT]):
        from moe_sweeps.host.consoles import say  # rich takes a while

        say(f"\nstopped; {how}" if how else "\nstopped", stderr=True)
    return STOPPED


def _told_to(ctrl_c: _CtrlC) -> Callable[[sys.UnraisableHookArgs], None]:
    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            ctrl_c.is_dropped()
        else:
            sys.__unraisablehook__(dropped)

    return hook


def _ignore_for_good() -> None:
    if _may_set():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _may_set() -> bool:
    return threading.current_thread() is threading.main_thread()
