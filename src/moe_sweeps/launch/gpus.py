"""Which GPU a run of a sweep on one machine gets, and how several runs share one. Not yet measured."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from moe_sweeps.host.devices import Device
from moe_sweeps.host.hardware import available_cores, resolve_device

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
MPS_FOLDERS = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
MPS_SECONDS = 60


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return named[:count] if named else [str(n) for n in range(count)]


def side_by_side(device: Device, pack: int) -> int:
    """How many runs this machine trains at once: one per core, or if they use GPUs, `pack` per GPU."""
    return len(visible_gpus()) * pack if resolve_device(device).type == "cuda" else available_cores()


def least_used(gpus: Sequence[str], used: Iterable[str | None]) -> str | None:
    """The GPU with the fewest runs, the first of equals; None without GPUs."""
    runs = Counter(used)
    return min(gpus, key=lambda gpu: runs[gpu], default=None)


@contextmanager
def shared_gpus(gpus: Sequence[str], workers: int) -> Iterator[dict[str, str]]:
    """Environment variables for `workers` on `gpus`: those of CUDA MPS where runs share a GPU and MPS is installed.

    Without MPS the runs on one GPU take turns, kernel by kernel. An MPS server that somebody else started is used.
    """
    control = shutil.which("nvidia-cuda-mps-control")
    if not gpus or workers <= len(gpus) or control is None or MPS_FOLDERS[0] in os.environ:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="moe_sweeps-mps-", ignore_cleanup_errors=True) as folder:
        environment = {name: str(Path(folder) / name) for name in MPS_FOLDERS}
        for path in environment.values():
            Path(path).mkdir()
        if not _mps(control, environment, "-d"):
            yield {}
            return
        try:
            yield environment
        finally:
            _mps(control, environment, say="quit\n")


def _mps(control: str, environment: dict[str, str], *options: str, say: str = "") -> bool:
    """Run the control program of CUDA MPS; returns whether it succeeded.

    It serves all GPUs. A server that is told of some numbers them anew from 0, and its clients, which are told the old
    numbers, would find other GPUs or none.
    """
    everything = {name: value for name, value in os.environ.items() if name != VISIBLE} | environment
    try:
        done = subprocess.run([control, *options], input=say, env=everything, text=True,
                              capture_output=True, timeout=MPS_SECONDS, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("runs share a GPU without CUDA MPS: %s", error)
        return False
    if done.returncode:
        log.warning("runs share a GPU without CUDA MPS: %s", (done.stderr or done.stdout).strip())
    return not done.returncode
