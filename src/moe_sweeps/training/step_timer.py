"""The time that the parts of a training step take, measured without synchronising with the device during a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# The first step of an attempt includes one-time costs: allocating memory, loading or compiling kernels.
SKIPPED_STEPS = 1
Mark = float | torch.cuda.Event


class StepTimer:
    """Seconds of each part of a step, summed over the sampled steps: every `every`-th, none if 0.

    On a GPU the marks are CUDA events. Reading seconds synchronises with the device.
    """

    def __init__(self, device: torch.device, every: int) -> None:
        self.device, self.every = device, every
        self._skip = SKIPPED_STEPS
        self._sampling = False
        self._spans: list[tuple[str, Mark, Mark]] = []  # not yet summed
        self._run = _Totals()
        self._interval = _Totals()

    def begin_step(self, step: int) -> None:
        """Step number `step`, counted from 1, starts."""
        self._sampling = bool(self.every) and step % self.every == 0 and not self._skip
        self._skip = max(self._skip - 1, 0)
        if self._sampling:
            self._run.steps += 1
            self._interval.steps += 1

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measures the block as part `name` of the step. The times of blocks with one name add up."""
        if not self._sampling:
            yield
            return
        start = self._mark()
        yield
        self._spans.append((name, start, self._mark()))

    def read_interval(self) -> dict[str, float]:
        """`seconds_<part>`, the mean over the steps that were sampled since the last call; empty without any."""
        self._sum_spans()
        means, self._interval = self._interval.means(), _Totals()
        return means

    def means(self) -> dict[str, float]:
        """The same over all sampled steps of the run."""
        self._sum_spans()
        return self._run.means()

    def _mark(self) -> Mark:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _sum_spans(self) -> None:
        if self._spans and isinstance(last := self._spans[-1][2], torch.cuda.Event):
            last.synchronize()
        for name, start, end in self._spans:
            seconds = _seconds(start, end)
            self._run.add(name, seconds)
            self._interval.add(name, seconds)
        self._spans = []

    def state_dict(self) -> dict[str, Any]:
        self._sum_spans()
        return {"run": self._run.state_dict(), "interval": self._interval.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._run, self._interval = _Totals(**state["run"]), _Totals(**state["interval"])


class _Totals:
    """Seconds by part, summed over `steps` steps."""

    def __init__(self, steps: int = 0, seconds: dict[str, float] | None = None) -> None:
        self.steps, self.seconds = steps, dict(seconds or {})

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def means(self) -> dict[str, float]:
        return {f"seconds_{name}": float(f"{total / self.steps:.6g}") for name, total in self.seconds.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "seconds": dict(self.seconds)}


def _seconds(start: Mark, end: Mark) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return float(start.elapsed_time(end)) / 1e3
    assert isinstance(start, float)
    assert isinstance(end, float)
    return end - start
