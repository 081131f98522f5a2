"""How `-m` chooses its runs: all combinations of a grid, or trials that a sampler suggests one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from moe_sweeps.config.registry import Component, component, knob
from moe_sweeps.errors import ConfigError
from moe_sweeps.records.numbers import PRIMARY, SEARCHABLE, Metric, metric_of

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


# What a trial is judged by: the mean over its seeds of one of these numbers of summary.json.
SearchMetric = Enum("SearchMetric", {metric.column: metric.column for metric in SEARCHABLE})  # type: ignore[misc]


@component("search", "none")
@dataclass(slots=True)
class SearchConfig(Component):
    """No search: `-m` trains every combination."""

    INFRA: ClassVar[bool] = True
    kind: str = "none"

    @property
    def is_on(self) -> bool:
        """Whether a sampler suggests runs."""
        return isinstance(self, SamplerConfig)


@dataclass(slots=True)
class SamplerConfig(SearchConfig):
    """`trials` suggestions of a sampler.

    With `min_steps` a trial is trained in rungs of min_steps * reduction^i steps, and the best 1/reduction of the
    trials at a rung continue (asynchronous successive halving, arXiv 1810.05934).
    """

    trials: int = knob(20, ge=1, doc="number of trials in all")
    metric: SearchMetric = knob(SearchMetric[PRIMARY.column], doc="final number that the search optimises")
    sampler_seed: int = knob(0, ge=0, doc="seed of the suggestions; `seed` is that of the runs")
    min_steps: int | None = knob(None, ge=1, doc="steps of the first rung; null: every trial is trained to its end")
    reduction: int = knob(3, ge=2, doc="the best 1/reduction of the trials at a rung continue")

    @property
    def number(self) -> Metric:
        """The catalogue's entry of `metric`."""
        return metric_of(self.metric.value)

    def check(self, run: Run) -> Iterator[ConfigError]:
        if run.fork.step is not None:
            rule = "the trials of a search have no trunk in common"
            yield ConfigError("fork.step", run.fork.step, rule, "Leave it out, or sweep a grid.")
        if self.min_steps is not None and self.min_steps >= run.trainer.steps:
            rule = f"the first rung must lie below trainer.steps={run.trainer.steps}"
            yield ConfigError("search.min_steps", self.min_steps, rule, "Lower it, or null trains trials to their end.")
        if self.number.needs_router and not run.experts.is_moe:
            rule = "experts=dense has no router that could be out of balance"
            yield ConfigError("search.metric", self.metric.value, rule, f"Use search.metric={PRIMARY.column}.")


@component("search", "random")
@dataclass(slots=True)
class RandomSearchConfig(SamplerConfig):
    """Every trial is drawn at random, independently of the others."""

    kind: str = "random"


@component("search", "tpe")
@dataclass(slots=True)
class TpeSearchConfig(SamplerConfig):
    """Tree-structured Parzen estimator: `startup_trials` at random, then near the best trials so far."""

    kind: str = "tpe"
    startup_trials: int = knob(10, ge=1, doc="random trials before the sampler learns")
