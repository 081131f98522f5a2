"""How a run failed: tracebacks in traceback.txt, and a signature by which equal failures are grouped."""

from __future__ import annotations

import os
import socket
import time
import traceback
from contextlib import suppress
from pathlib import Path

from moe_sweeps.credentials import without_keys
from moe_sweeps.host.files import share
from moe_sweeps.host.reading import appending, read_tail
from moe_sweeps.records.status import Failure

TRACEBACK_BYTES = 1 << 20  # read from the end of the file; the last traceback is shown
TRACEBACK_MARK = "--- "  # at the beginning of each traceback


def record(path: Path, error: BaseException, who: str = "") -> Failure:
    """Append the traceback of `error` to the file `path` and return the failure for status.json.

    `who` names the process where several train the run. Nothing is raised where the file cannot be written: a full disk
    may be what failed.
    """
    text = "".join(traceback.format_exception(error))
    head = f"{TRACEBACK_MARK}{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {socket.gethostname()} pid {os.getpid()} {who}"
    with suppress(OSError, ValueError), appending(path) as file:
        share(path)
        file.write(f"{head.rstrip()}\n{without_keys(text)}\n".encode(errors="backslashreplace"))
    message = without_keys(f"{who}: {error}" if who else str(error))
    return Failure(type(error).__name__, message, failure_signature(error))


def last_traceback(path: Path) -> str | None:
    """The last traceback in the file `path`; None without a file, and the reason if it cannot be read."""
    if not path.exists():
        return None
    try:
        return read_tail(path, TRACEBACK_BYTES).rpartition(TRACEBACK_MARK)[2].partition("\n")[2].strip()
    except (OSError, ValueError) as error:
        return f"traceback.txt cannot be read: {error}"


def failure_signature(error: BaseException) -> str:
    """Where and what, without the values: equal for runs that fail for the same reason."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}moe_sweeps{os.sep}" in f.filename] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "unknown"
    return f"{type(error).__name__} in {place}"
