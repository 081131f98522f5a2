"""A probe in a process of its own, which gives back all that it took: a GPU's context, its allocator, memory.

The process is forked from the server that forks workers (server.py). Job and answer are JSON in a temporary folder. A
process that dies, hangs or runs out of memory costs the probe alone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from moe_sweeps.errors import MoeSweepsError, first_line
from moe_sweeps.experiment.frozen import from_dict, to_dict
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.files import write_json
from moe_sweeps.host.machine_memory import oom_kills, out_of_memory
from moe_sweeps.host.reading import read_json, read_tail
from moe_sweeps.launch.probe import Probe, probe
from moe_sweeps.launch.process import Worker, start_probe

# Torch may compile the model first, in a minute or two.
PATIENCE = 180.0
GIVE_UP = 5.0  # a process in the middle of a system call may outlive SIGKILL
TAIL_BYTES = 4096
JOB, ANSWER, OUTPUT = "job.json", "answer.json", "output.txt"
FIX = "`moe-sweeps plan --no-probe` plans without one; training the run alone (launch.workers=1) shows its traceback"


class ProbeFailed(MoeSweepsError):
    """A probe gave no answer. Its run is not known to be wrong."""


def probe_apart(run: RunConfig, threads: int, patience: float = PATIENCE) -> Probe:
    """`probe` in a process of its own, which is gone when this returns.

    Raises:
        ProbeFailed: it died, or did not end within `patience` seconds.
        MoeSweepsError: the run is refused, as it would be in training.
    """
    with tempfile.TemporaryDirectory(prefix="moe_sweeps-", ignore_cleanup_errors=True) as name:
        folder, kills = Path(name), oom_kills()
        write_json(folder / JOB, {"run": to_dict(run), "threads": threads, "patience": patience})
        try:
            process = start_probe(folder)
        except OSError as error:
            raise ProbeFailed(f"the probe of {run.run_name} could not be started: {error}. {FIX}") from error
        try:
            process.join(patience)
            ended = process.exitcode is not None
        finally:
            with suppress(ProcessLookupError):  # it ended by itself at this moment
                process.kill()
            process.join(GIVE_UP)
        if not ended:
            raise ProbeFailed(f"the probe of {run.run_name} did not end within {patience:.0f} s. {FIX}")
        return _answer(folder, run, out_of_memory(socket.gethostname(), kills) or _last_words(folder, process))


def _answer(folder: Path, run: RunConfig, else_: str) -> Probe:
    """What the process found. `else_`: how it ended, where it left no answer."""
    try:
        found = read_json(folder / ANSWER)
    except (OSError, ValueError):
        found = None
    match found:
        case {"seconds_per_step": float(seconds)}:
            return Probe(seconds)
        case {"refused": str(error)}:
            raise MoeSweepsError(error)
        case {"failed": str(error)}:
            raise ProbeFailed(f"the probe of {run.run_name} failed: {error}. {FIX}")
    raise ProbeFailed(f"the probe of {run.run_name} died: {else_}. {FIX}")


def _last_words(folder: Path, process: Worker) -> str:
    code = process.exitcode or 0
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    try:
        said = read_tail(folder / OUTPUT, TAIL_BYTES).strip().splitlines()
    except (OSError, ValueError):
        said = []
    return f"{how} ({said[-1]})" if said else how


# --- in the process ---------------------------------------------------------------------------------------------------


def answer(folder: Path) -> None:
    """The body of the process: the job in `folder`, and its answer beside it."""
    _print_into(folder / OUTPUT)
    job = read_json(folder / JOB)
    signal.alarm(int(job["patience"]) + 1)  # its driver may have been killed
    write_json(folder / ANSWER, _found(job))


def _found(job: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"seconds_per_step": probe(from_dict(job["run"]), job["threads"]).seconds_per_step}
    except MoeSweepsError as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {first_line(error)}"}


def _print_into(file: Path) -> None:
    """Below Python, too: libraries of a GPU write their last words themselves."""
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)
