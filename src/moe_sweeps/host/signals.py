"""The signals that ask a process to stop, and which processes react to them.

A signal that the parent process made this one ignore stays ignored: `nohup` does that to SIGHUP, a script's `command &`
to SIGINT. A handler may run in the middle of a write or of taking a lock, so it does neither: it only sets a note,
which is polled.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]
# A terminal sends SIGINT and SIGHUP. SLURM announces a time limit or a preemption with SIGTERM, SIGUSR1 or SIGUSR2,
# depending on the cluster.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# A driver asks a worker to stop with the first of these that is not ignored. Not with SIGINT: a terminal sends it to
# both.
ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def is_ignored(signum: int) -> bool:
    """Whether this process ignores the signal."""
    return signal.getsignal(signum) is signal.SIG_IGN


def asking_signal() -> signal.Signals:
    """The signal that asks a worker to save and stop: it ignores the ones that this process ignores."""
    return next((s for s in ASKING if not is_ignored(s)), signal.SIGTERM)


@contextmanager
def handled(handler: Handler, signums: Sequence[signal.Signals] = STOP_SIGNALS) -> Iterator[None]:
    """Call `handler` for these signals, except those that are ignored. Outside the main thread it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.getsignal(s) for s in signums}
    # None: a handler that is not Python's, such as faulthandler's; it could not be put back.
    heeded = {s: found for s, found in before.items() if found not in (signal.SIG_IGN, None)}
    for s in heeded:
        signal.signal(s, handler)
    try:
        yield
    finally:
        for s, found in heeded.items():
            signal.signal(s, found)
