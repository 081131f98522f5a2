"""status.json: what a run is doing, how it ended, and how often its worker died on the way.

This module knows neither torch nor the config schemas.
"""

from __future__ import annotations

import time
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
    preempted = "preempted"  # stopped before its end; it goes on from its last checkpoint when started again
    cancelled = "cancelled"  # stopped on purpose; it stays so until it is asked for by `moe-sweeps retry --cancelled`


# A run in one of these states has its result; starting it again trains nothing.
FINISHED = frozenset({State.done, State.diverged})
# A run in one of these states is not trained by typing its line again.
SETTLED = FINISHED | {State.cancelled}


@dataclass(slots=True)
class Failure:
    """Why a run failed. Failures with equal signatures have the same cause."""

    type: str
    message: str
    signature: str


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
    slurm_job_id: str | None = None
    failure: Failure | None = None
    collapsed: bool = False  # the router has collapsed at some step; see health.py
    tracking: str | None = None  # what is wrong with the run's tracker; nothing that its results depend on
    code_changed: bool = False  # the current attempt runs other training code than was submitted
    paused_at: int | None = None  # preempted where `trainer.stop_at` said, and not by anybody else
    deaths: int = 0  # attempts in a row that died without a word and without a new checkpoint
    death_step: int = -1  # newest checkpoint at the last of them

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Status:
        """Read the content of status.json; fields that this code does not know are passed over.

        Raises:
            KeyError, TypeError, ValueError: it is no status.
        """
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in content.items() if k in known}
        failure = values.pop("failure", None)
        return cls(**{**values, "state": State(values["state"])}, failure=Failure(**failure) if failure else None)

    @property
    def is_paused(self) -> bool:
        """Whether it stopped where it was told to, so that nothing is left to do for now."""
        return self.state is State.preempted and self.paused_at is not None

    @property
    def seconds_per_step(self) -> float | None:
        """Of the current attempt by the clock on the wall, else of the whole run by its training speed."""
        steps = self.step - self.started_step
        if self.started is not None and steps > 0 and self.heartbeat > self.started:
            return (self.heartbeat - self.started) / steps
        return self.tokens_per_step / self.tokens_per_second if self.tokens_per_second else None

    def count_death(self, checkpoint_step: int) -> None:
        """Note that a worker died without a word while the newest checkpoint was that of `checkpoint_step`."""
        self.deaths = self.deaths + 1 if checkpoint_step <= self.death_step else 1
        self.death_step = checkpoint_step
