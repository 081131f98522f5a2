"""The device of tests/gpu, and runs on it.

    python -m pytest tests/gpu                                 on a CUDA device; skipped where there is none
    MOE_SWEEPS_GPU_TESTS=cpu python -m pytest tests/gpu        every body on the CPU: do the tests themselves work?

Only the tests read the variable. On the CPU what is compared is often the same computation twice: that proves the
test, not the device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before CUDA starts: without it cuBLAS may sum in another order each time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from helpers import TINY, Silent, compose_run
from torch import Tensor

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.training.trainer import Trainer

VARIABLE = "MOE_SWEEPS_GPU_TESTS"
DEVICE = torch.device(os.environ.get(VARIABLE, "cuda"))
MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(),
        reason=f"torch sees no CUDA device on this machine ({VARIABLE}=cpu runs the test on the CPU)",
    ),
]
STEPS = 20
LINE = (*TINY, f"trainer.steps={STEPS}", "trainer.log_every=1")
# What an optimizer needs so that its expensive steps fall within so few.
DUE = {"shampoo": ("optimizer.precondition_frequency=4",), "soap": ("optimizer.precondition_frequency=4",)}


def line_of(*line: str) -> tuple[str, ...]:
    """The settings of a run, with what its optimizer needs."""
    more = next((DUE[kind] for kind in DUE if f"optimizer={kind}" in line), ())
    return (*LINE, *line, *more)


def trainer(data: TokenData, folder: Path, device: torch.device, *line: str) -> Trainer:
    """The trainer of a run of STEPS steps on `device`."""
    run = compose_run(*line_of(*line), f"engine.device={device.type}", f"paths.runs={folder}")
    return Trainer(run, freeze(run, [], command="test"), data, device, Silent())


def losses(one: Trainer) -> list[float]:
    """Train to the end; the loss of every step."""
    one.train(lambda: False)
    return [record["loss"] for record in one.journal.metrics.records() if record["split"] == "train"]


def state_of(one: Trainer) -> dict[str, Any]:
    """All tensors of a run, on the CPU: what two runs that are the same have in common bit for bit."""
    found = {f"model.{name}": value for name, value in one.model.state_dict().items()}
    found |= {f"balancer.{name}": value for name, value in one.balancer.state_dict().items()}
    return {name: value.detach().cpu() for name, value in found.items()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """The names of what is not the same bit for bit."""
    assert a.keys() == b.keys()
    return [name for name, value in a.items() if not torch.equal(value, b[name])]


@contextmanager
def deterministic() -> Iterator[None]:
    """Only algorithms that give the same bits each time; an operation that has none raises."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def without_waiting() -> Iterator[None]:
    """An operation that makes the host wait for the device raises. On the CPU none does."""
    if DEVICE.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def ids(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Names of cases by their settings."""
    return ["-".join(line) or "plain" for line in lines]
