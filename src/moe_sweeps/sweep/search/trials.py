"""Trials, and what their run folders say about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from moe_sweeps.config.search import SamplerConfig
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.manifest import spell_settings
from moe_sweeps.records.numbers import Metric
from moe_sweeps.records.rundir import MetricsLog, RunDir, State
from moe_sweeps.sweep.search.space import Param
from moe_sweeps.sweep.search.suggest import Known, Told


@dataclass(slots=True)
class Trial:
    """One suggestion: a point of the space, trained with every seed up to `target` steps (None: to its end).

    `runs` holds run id -> run in the order of the seeds; it is empty for a point that the config's rules refuse, with
    the reason in `refused`. `same_as` is the number of an earlier trial that means the same runs. `shown` is the point
    with links followed and without what nothing reads.
    """

    number: int
    params: dict[str, Param]
    point: dict[str, str]
    target: int | None = None
    arm: str = ""
    shown: dict[str, str] = field(default_factory=dict)
    runs: dict[str, RunConfig] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    same_as: int | None = None
    refused: str | None = None

    @property
    def label(self) -> str:
        """The point in one line."""
        return spell_settings(self.shown)

    def goes_beyond(self, rung: int) -> bool:
        """Whether it was promoted from this rung."""
        return self.target is None or self.target > rung


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What one run folder says: its state, the steps that are saved, the metric by step, and its final value.

    A run that diverged, or that ended early because its router collapsed, has `ended_badly_at`.
    """

    state: State = State.planned
    step: int = 0
    values: Mapping[int, float] = field(default_factory=dict)
    final: float | None = None
    ended_badly_at: int | None = None
    attempt: int = 0

    def value_at(self, rung: int) -> float | None:
        """The metric at a rung, lower is better; None while the run is not there.

        For a run that another sweep trained past the rung without an evaluation there, it is the last value before: an
        earlier value can only be worse for it, and training it again would give nothing new.
        """
        if self.ended_badly_at is not None and self.ended_badly_at <= rung:
            return math.inf
        if self.step < rung and self.state is not State.done:
            return None
        if rung in self.values or self.step > rung or self.state is State.done:
            return next((self.values[s] for s in sorted(self.values, reverse=True) if s <= rung), None)
        return None

    @property
    def end_value(self) -> float | None:
        """The final metric, lower is better; None before the run has ended."""
        return math.inf if self.ended_badly_at is not None else self.final

    def has_reached(self, target: int | None) -> bool:
        """Whether nothing is left to train for a trial with this `target`."""
        if self.state in (State.done, State.diverged):
            return True
        if target is None:
            return False
        return self.step > target or (self.step == target and target in self.values)


def read_facts(folder: RunDir | None, metric: Metric) -> RunFacts:
    """The facts of a run. Without a folder it has not started."""
    if folder is None:
        return RunFacts()
    status, sign = folder.status(), 1 if metric.lower_is_better else -1
    lines = MetricsLog(folder.path / "metrics.jsonl").records()
    saved = folder.checkpoint_step()
    values = {r["step"]: sign * r[metric.in_log] for r in lines if r["split"] == "val" and metric.in_log in r}
    values = {step: value for step, value in values.items() if step <= saved}  # a resume removes later ones
    summary, final, bad_at = folder.summary() or {}, None, None
    if status.state is State.diverged:
        bad_at = int(summary.get("diverged_at_step", status.step))
    elif status.state is State.done:
        final = sign * summary[metric.column] if metric.column in summary else None
        bad_at = saved if summary.get("stopped_early") else None
    return RunFacts(status.state, saved, values, final, bad_at, status.attempt)


class Outcome(StrEnum):
    """How a trial came out, in the words of the result table."""

    done = "done"
    diverged = "diverged"  # or collapsed and stopped, with at least one seed
    failed = "failed"
    cancelled = "cancelled"
    refused = "refused"
    paused = "paused"  # at a rung; pruned, once the search is over
    open = "open"  # its runs wait or train


@dataclass(frozen=True, slots=True)
class Standing:
    """A trial with its seeds taken together. Values are means over seeds, lower is better; `step` is the least."""

    outcome: Outcome
    step: int
    rung_values: Mapping[int, float]
    final: float | None
    seeds_done: int

    @property
    def best_known(self) -> float | None:
        """The final value, or that of the highest rung."""
        if self.final is not None or not self.rung_values:
            return self.final
        return self.rung_values[max(self.rung_values)]


def standing(trial: Trial, facts: Sequence[RunFacts], rungs: Sequence[int]) -> Standing:
    """What the runs of a trial say together."""
    if trial.refused is not None:
        return Standing(Outcome.refused, 0, {}, math.inf, 0)
    by_rung = {rung: _mean([f.value_at(rung) for f in facts]) for rung in rungs}
    known = {rung: value for rung, value in by_rung.items() if value is not None}
    final = _mean([f.end_value for f in facts])
    if any(f.ended_badly_at is not None for f in facts):
        final = math.inf  # whatever the other seeds give
    done = sum(f.state is State.done and f.ended_badly_at is None for f in facts)
    return Standing(_outcome(trial, facts), min(f.step for f in facts), known, final, done)


def told(trial: Trial, found: Standing, search: SamplerConfig) -> Told:
    """What the sampler is told about the trial, in the metric's own direction."""
    sign = 1 if search.number.lower_is_better else -1
    values = {rung: sign * value for rung, value in found.rung_values.items()}
    if found.final is not None:
        return Told(trial.params, Known.complete, sign * found.final, values)
    if found.outcome in (Outcome.failed, Outcome.cancelled):
        return Told(trial.params, Known.failed)
    return Told(trial.params, Known.pruned if values else Known.running, None, values)


def _outcome(trial: Trial, facts: Sequence[RunFacts]) -> Outcome:
    if any(f.state is State.failed for f in facts):
        return Outcome.failed
    if any(f.state is State.cancelled for f in facts):
        return Outcome.cancelled
    if not all(f.has_reached(trial.target) for f in facts):
        return Outcome.open
    if any(f.ended_badly_at is not None for f in facts):
        return Outcome.diverged
    return Outcome.done if all(f.state is State.done for f in facts) else Outcome.paused


def _mean(values: Sequence[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return math.fsum(found) / len(found) if found and len(found) == len(values) else None
