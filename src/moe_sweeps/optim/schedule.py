"""Learning-rate schedules: pure functions from the step to a factor of the peak learning rate.

Steps count from 0 to total_steps - 1. A warm-up of W steps reaches the peak at step W - 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, REGISTRY, Component, Unread, broken_bounds, component, knob
from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.optim.lr_split import Role

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


@dataclass(slots=True)
class ScheduleConfig(Component):
    """Base of the schedules. A knob called like a role gives that role another kind of schedule; null: the run's.

    The role's schedule has the run's `warmup_steps` and whatever else the two kinds share; the rest are its defaults.
    """

    warmup_steps: int = knob(100, ge=1, doc="updates of warm-up: a cosine with onecycle_cosine, else linear")
    expert: str | None = knob(None, neutral=None, doc="name of another schedule for the experts")
    router: str | None = knob(None, neutral=None, doc="name of another schedule for the router")
    dense: str | None = knob(None, neutral=None, doc="name of another schedule for attention")
    embedding: str | None = knob(None, neutral=None, doc="name of another schedule for the embedding")
    norm: str | None = knob(None, neutral=None, doc="name of another schedule for the norms")

    def factor(self, step: int, total_steps: int) -> float:
        """Factor of the peak learning rate for update `step`."""
        raise NotImplementedError

    def of(self, role: Role) -> ScheduleConfig:
        """The schedule of `role`: this one, unless the role has another kind."""
        kind = getattr(self, role.value)
        if kind in (None, self.kind):
            return self
        cls = REGISTRY["schedule"][kind]
        shared = {f.name for f in dataclasses.fields(cls)} & {f.name for f in dataclasses.fields(self)}
        found = cls(**{name: getattr(self, name) for name in shared - {"kind"} - {r.value for r in Role}})
        assert isinstance(found, ScheduleConfig)
        return found

    def check(self, run: Run) -> Iterator[ConfigError]:
        """Errors by the rules of this kind, and of the kinds that single roles have."""
        yield from self.check_steps(run.trainer.steps)
        for role in Role:
            if role.value not in self.unread(run):
                yield from self._check_role(role, run.trainer.steps)

    def check_steps(self, total_steps: int) -> Iterator[ConfigError]:
        """An error for each rule that a run of `total_steps` breaks."""
        if self.warmup_steps >= total_steps:
            rule = f"warm-up must end before training does (trainer.steps={total_steps})"
            yield ConfigError("schedule.warmup_steps", self.warmup_steps, rule, "Shorten it or train longer.")

    def _check_role(self, role: Role, total_steps: int) -> Iterator[ConfigError]:
        key, kind, kinds = f"schedule.{role.value}", getattr(self, role.value), sorted(REGISTRY["schedule"])
        if kind is not None and kind not in kinds:
            close = nearest(kind, kinds)
            fix = f"Did you mean {key}={close}?" if close else f"{key}=null follows the run's schedule."
            yield ConfigError(key, kind, f"the kinds of schedules are {', '.join(kinds)}", fix)
        elif kind not in (None, self.kind):
            own = self.of(role)
            for error in [*broken_bounds("schedule.", own), *own.check_steps(total_steps)]:
                rule = f"{error.field}={error.value} breaks its rule: {error.rule}"
                yield ConfigError(key, kind, rule, error.fix)

    def unread(self, run: Run) -> dict[str, Unread]:
        moe_only = [] if run.experts.is_moe else [Role.expert.value, Role.router.value]
        return dict.fromkeys(moe_only, DENSE_HAS_NO_ROUTER)

    def canonical(self, run: Run) -> ScheduleConfig:
        """A role with the run's own kind is the same as a role without one."""
        same: dict[str, Any] = {role.value: None for role in Role if getattr(self, role.value) == self.kind}
        return dataclasses.replace(self, **same)

    def _warmup(self, step: int) -> float:
        """Linear: 1/W in the first step, 1 from step W - 1 on."""
        return min((step + 1) / self.warmup_steps, 1.0)


@component("schedule", "onecycle_cosine")
@dataclass(slots=True)
class OneCycleCosineConfig(ScheduleConfig):
    """Cosine from `start_fraction` of the peak up to it in `warmup_steps`, then cosine down to `end_fraction` of it.

    The numbers of torch.optim.lr_scheduler.OneCycleLR with anneal_strategy="cos" (arXiv 1708.07120).
    """

    kind: str = "onecycle_cosine"
    start_fraction: float = knob(0.01, gt=0, le=1, doc="share of the peak at the first update")
    end_fraction: float = knob(0.1, ge=0, le=1, doc="share of the peak at the last update")

    def factor(self, step: int, total_steps: int) -> float:
        peak_step = self.warmup_steps - 1
        if step <= peak_step:
            return _cosine(self.start_fraction, 1.0, step / peak_step if peak_step else 1.0)
        return _cosine(1.0, self.end_fraction, (step - peak_step) / (total_steps - 1 - peak_step))


@component("schedule", "cosine")
@dataclass(slots=True)
class CosineConfig(ScheduleConfig):
    """Linear warm-up, then cosine down to `end_fraction` of the peak in the last step (arXiv 1608.03983)."""

    kind: str = "cosine"
    end_fraction: float = knob(0.1, ge=0, le=1, doc="share of the peak at the last update")

    def factor(self, step: int, total_steps: int) -> float:
        peak_step = self.warmup_steps - 1
        if step <= peak_step:
            return self._warmup(step)
        return _cosine(1.0, self.end_fraction, (step - peak_step) / (total_steps - 1 - peak_step))


class DecayShape(Choice):
    """How a warm-up-stable-decay schedule goes from 1 to `end_fraction`; x runs from 0 to 1 over the decay."""

    exponential = "exponential", "end^x (arXiv 2404.06395)"
    linear = "linear", "1 - (1 - end) x"
    sqrt = "sqrt", "1 - (1 - end) sqrt(x) (arXiv 2405.18392)"


@component("schedule", "wsd")
@dataclass(slots=True)
class WarmupStableDecayConfig(ScheduleConfig):
    """Linear warm-up, then the peak, then a decay in the last `decay_fraction` of the steps (arXiv 2404.06395)."""

    kind: str = "wsd"
    decay_fraction: float = knob(0.1, gt=0, lt=1, doc="share of the updates, at the end, over which the rate decays")
    decay_shape: DecayShape = knob(DecayShape.exponential, doc="shape of the decay")
    end_fraction: float = knob(0.1, ge=0, le=1, doc="share of the peak at the last update")

    def factor(self, step: int, total_steps: int) -> float:
        decay_steps = self.decay_steps(total_steps)
        progress = (step - (total_steps - 1 - decay_steps)) / decay_steps
        return self._warmup(step) if progress <= 0 else self._decayed(progress)

    def decay_steps(self, total_steps: int) -> int:
        """Steps below the peak at the end of a run; at least one."""
        return max(round(self.decay_fraction * total_steps), 1)

    def _decayed(self, progress: float) -> float:
        if self.decay_shape is DecayShape.exponential:
            return float(self.end_fraction**progress)
        way = math.sqrt(progress) if self.decay_shape is DecayShape.sqrt else progress
        return 1 - (1 - self.end_fraction) * way

    def check_steps(self, total_steps: int) -> Iterator[ConfigError]:
        yield from ScheduleConfig.check_steps(self, total_steps)
        decay_steps = self.decay_steps(total_steps)
        if self.warmup_steps < total_steps < self.warmup_steps + decay_steps:
            rule = f"its {decay_steps} of {total_steps} steps begin before the {self.warmup_steps} of the warm-up end"
            yield ConfigError("schedule.decay_fraction", self.decay_fraction, rule, "Shorten either.")
        if self.decay_shape is DecayShape.exponential and self.end_fraction == 0:
            rule = "an exponential decay never reaches 0"
            yield ConfigError("schedule.end_fraction", 0, rule, "Use schedule.decay_shape=linear, or a small number.")


@component("schedule", "constant")
@dataclass(slots=True)
class ConstantConfig(ScheduleConfig):
    """Linear warm-up, then the peak to the end; `warmup_steps=1` is constant from the first step."""

    kind: str = "constant"

    def factor(self, step: int, total_steps: int) -> float:
        return self._warmup(step)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
