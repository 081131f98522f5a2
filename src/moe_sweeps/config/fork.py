"""Forks: runs that share their first steps, a trunk, and differ from there on (docs/forks.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.registry import Component, Unread, component, knob
from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run

_ID = re.compile(r"[0-9a-f]{12}")
NOT_FORKED = Unread("fork.step=null", "fork.step=N")
PLAN_FILLS_IN = "Leave it out: the plan fills it in."


class ForkRole(Choice):
    """Which part of a forked run this is."""

    arm = "arm", "what continues from a trunk's checkpoint"
    trunk = "trunk", "the shared first steps; it ends after fork.step"


@component("fork", "default")
@dataclass(slots=True)
class ForkConfig(Component):
    """A trunk is trained to `step` with the baseline's recipe; then each arm continues with settings of its own."""

    kind: str = "default"
    step: int | None = knob(
        None, ge=1, neutral=None, doc="step after which arms continue from a shared trunk; null: no fork"
    )
    replicates: int = knob(
        1, ge=1, le=1000, infra=True, neutral=1, doc="with -m: how many times each arm continues from each trunk"
    )
    replicate: int = knob(
        0, ge=0, neutral=0, doc="number of this continuation; all but number 0 begin with perturbed weights"
    )
    noise: float = knob(
        1e-3,
        gt=0,
        lt=1,
        neutral=1e-3,
        doc="size of that perturbation: each weight is multiplied by 1 + noise * N(0, 1)",
    )
    trunk: list[str] = knob(
        factory=list,
        infra=True,
        neutral=[],
        doc=(
            "the trunk's recipe, as settings in place of those that are swept; []: that of the sweep file's baseline, "
            "or of the first arm"
        ),
    )
    role: ForkRole = knob(ForkRole.arm, neutral=ForkRole.arm, doc="trunk: train the shared steps alone")
    arm: str | None = knob(None, neutral=None, doc="the trunk's arm, seeds apart; the plan fills it in")
    run: str | None = knob(None, infra=True, neutral=None, doc="the trunk's run id; the plan fills it in")

    @property
    def continues(self) -> bool:
        """Whether the run begins at a trunk's checkpoint."""
        return self.step is not None and self.role is ForkRole.arm

    @property
    def is_trunk(self) -> bool:
        """Whether the run ends where others begin."""
        return self.step is not None and self.role is ForkRole.trunk

    def unread(self, run: Run) -> dict[str, Unread]:
        if self.step is None:
            return {"": NOT_FORKED}
        mine = ("replicate", "noise", "arm")
        return dict.fromkeys(mine, Unread("fork.role=trunk", "fork.role=arm")) if self.is_trunk else {}

    def check(self, run: Run) -> Iterator[ConfigError]:
        if self.step is None:
            return
        if self.step >= run.trainer.steps:
            rule = f"something must be left to train after it (trainer.steps={run.trainer.steps})"
            yield ConfigError("fork.step", self.step, rule, "Fork earlier, or train longer.")
        stop_at = run.trainer.stop_at
        if self.continues and stop_at is not None and stop_at <= self.step:
            rule = f"the run begins after step {self.step}"
            yield ConfigError("trainer.stop_at", stop_at, rule, "Stop later, or leave it out.")
        if self.continues:
            yield from self._id_errors()

    def _id_errors(self) -> Iterator[ConfigError]:
        for name, value in (("arm", self.arm), ("run", self.run)):
            if value is None or not _ID.fullmatch(value):
                yield ConfigError(f"fork.{name}", value, "it is the 12 digits of a trunk's id", PLAN_FILLS_IN)
