"""Commands in processes of their own, as a person types them, and how to kill everything that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moe_sweeps.paths import REPOSITORY


def command(*arguments: str, repository: Path = REPOSITORY) -> list[str]:
    return [sys.executable, str(repository / "train.py"), *arguments]


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`moe-sweeps ...` to its end, so wide that no sentence folds: at 80 columns that hangs on the digits beside it."""
    line = [sys.executable, "-c", "import sys; from moe_sweeps.cli.manage import main; sys.exit(main())", *arguments]
    environment = os.environ | {"COLUMNS": "400"}
    return subprocess.run(line, capture_output=True, text=True, timeout=240, env=environment, check=False)


def train(*arguments: str, repository: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """`python train.py ...` to its end."""
    line = command(*arguments, repository=repository)
    environment = os.environ | {"COLUMNS": "160"}
    return subprocess.run(line, capture_output=True, text=True, timeout=600, env=environment, check=False)


def start(*arguments: str, repository: Path = REPOSITORY) -> subprocess.Popen[str]:
    """`python train.py ...` in a process group of its own."""
    line, pipe = command(*arguments, repository=repository), subprocess.PIPE
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def press_ctrl_c_until_it_ends(process: subprocess.Popen[Any], seconds: float = 240) -> None:
    """SIGINT to the whole process group, as a terminal sends it, twenty times a second."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        assert time.monotonic() < deadline, "it did not end"
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)


def kill_everything(runs: Path) -> int:
    """SIGKILL to every other process whose runs folder is `runs`; returns how many there were."""
    mark = f"MOE_SWEEPS_RUNS={runs}\0".encode()
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() + b"\0" and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
        except OSError:
            continue  # it ended meanwhile
    return killed


def wait_until(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
