"""status.json: what a run is doing, how it ended, and how often its worker died on the way.

This module knows neither torch nor the config schemas.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """What a run is doing, or how it ended."""

    planned = "planned"
    queued = "queued"
    running = "running"
    done = "done"
    failed = "failed"
    diverged = "diverged"  # the loss became NaN or infinite: an outcome
    preempted = "preempted"  # stopped before its end; it resumes from its last checkpoint when it is started again
    cancelled = "cancelled"  # stopped on purpose; only `moe-sweeps retry --cancelled` resumes it


# What a run that stopped before its end is called, wherever it is named.
PAUSED = "paused"  # it stopped where it was told to: at `trainer.stop_at`, or at a rung of its search
PRUNED = "pruned"  # the same, and its search ended without training it further
# A run in one of these states has its result; starting it again trains nothing.
FINISHED = frozenset({State.done, State.diverged})
# Typing the line of a run in one of these states again does not train it.
SETTLED = FINISHED | {State.cancelled}


@dataclass(slots=True)
class Failure:
    """Why a run failed. Failures with equal signatures have the same cause."""

    type: str
    message: str
    signature: str


_COUNTS = ("attempt", "step", "total_steps", "tokens_per_step", "started_step", "slurm_restarts", "deaths")
_NUMBERS = ("tokens_per_second", "loss", "maxvio", "heartbeat", "started")
_MAY_BE_NONE = ("tokens_per_second", "loss", "maxvio", "started")
_TEXTS = ("host", "slurm_job_id", "tracking", "rebuilt")


@dataclass(slots=True)
class Status:
    """The content of status.json. Times are seconds since the epoch."""

    state: State = State.planned
    attempt: int = 0
    step: int = 0
    total_steps: int = 0
    tokens_per_step: int = 0
    tokens_per_second: float | None = None
    loss: float | None = None
    maxvio: float | None = None
    heartbeat: float = field(default_factory=time.time)
    started: float | None = None  # when the current attempt began, and at which step
    started_step: int = 0
    host: str | None = None
    pid: int | None = None
    slurm_job_id: str | None = None  # as squeue names it: 123_4 for a task of an array
    slurm_restarts: int = 0  # how often SLURM had requeued that job when the current attempt began
    failure: Failure | None = None
    collapsed: bool = False  # the router has collapsed at some step; see training/collapse.py
    tracking: str | None = None  # what is wrong with the run's tracker; results do not depend on it
    code_changed: bool = False  # the current attempt runs training code that differs from what was submitted
    paused_at: int | None = None  # the step of `trainer.stop_at`, if that is why it stopped
    deaths: int = 0  # consecutive attempts that ended without an error and without a new checkpoint
    death_step: int = -1  # step of the newest checkpoint at the last of them
    rebuilt: str | None = None  # why this status was rebuilt from other files; None if status.json holds it
    oom_kills: dict[str, int] = field(
        default_factory=dict
    )  # the kernel's counts of killed processes when the attempt began

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Status:
        """Read the content of status.json; fields that the current code does not know are ignored.

        Raises:
            KeyError, TypeError, ValueError: it is no status.
        """
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in content.items() if k in known}
        failure = values.pop("failure", None)
        values["oom_kills"] = {str(k): int(v) for k, v in (values.get("oom_kills") or {}).items()}
        state = State(values["state"])
        _require_types(values)
        return cls(**{**values, "state": state}, failure=_failure(failure) if failure else None)

    @property
    def is_paused(self) -> bool:
        """Whether it stopped at `trainer.stop_at`, so that nothing is left to do for now."""
        return self.state is State.preempted and self.paused_at is not None

    @property
    def name(self) -> str:
        """Its state as every output says it."""
        return PAUSED if self.is_paused else str(self.state)

    @property
    def seconds_per_step(self) -> float | None:
        """Wall-clock time per step of the current attempt; before its first step, the run's training speed."""
        steps = self.step - self.started_step
        if self.started is not None and steps > 0 and self.heartbeat > self.started:
            return (self.heartbeat - self.started) / steps
        return self.tokens_per_step / self.tokens_per_second if self.tokens_per_second else None

    def forget_deaths(self) -> None:
        """Reset the count of deaths: the run was asked for again."""
        self.deaths, self.death_step = 0, -1

    def count_death(self, checkpoint_step: int) -> None:
        """Count a worker that ended without an error. `checkpoint_step`: step of the newest checkpoint then."""
        self.deaths = self.deaths + 1 if checkpoint_step <= self.death_step else 1
        self.death_step = checkpoint_step


def own_slurm_job(environ: Mapping[str, str]) -> str | None:
    """The job that this process runs in, as squeue names it: 123_4 for a task of an array; None outside SLURM.

    SLURM_JOB_ID alone does not do: for one task of every array it is the number of the whole array.
    """
    if "SLURM_ARRAY_TASK_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID")


def slurm_restarts(environ: Mapping[str, str]) -> int:
    """How often the job that this process runs in was requeued before this start."""
    return int(environ.get("SLURM_RESTART_COUNT") or 0)


def _require_types(values: dict[str, Any]) -> None:
    """Raise ValueError for a value that no worker has ever written."""
    for name, value in values.items():
        if not _is_right(name, value):
            raise ValueError(f"{name}={value!r} is no value of {name}")
    if values.get("total_steps") and values.get("step", 0) > values["total_steps"]:
        raise ValueError(f"step={values['step']} is beyond total_steps={values['total_steps']}")


def _is_right(name: str, value: Any) -> bool:
    if name in _COUNTS:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if name in _NUMBERS:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return is_number or (value is None and name in _MAY_BE_NONE)
    if name in _TEXTS:
        return value is None or isinstance(value, str)
    return True


def _failure(content: Any) -> Failure:
    found = Failure(**content)
    if not all(isinstance(part, str) for part in (found.type, found.message, found.signature)):
        raise ValueError("failure is not made of texts")
    return found
