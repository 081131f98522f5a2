"""How `-m` chooses its runs: all combinations of a grid, or trials that a sampler suggests one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from moe_sweeps.config.registry import Component, component, knob
from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


class SearchMetric(Enum):
    """What a trial is judged by: the mean over its seeds of this number of summary.json."""

    val_loss = "val_loss"
    val_perplexity = "val_perplexity"
    val_accuracy = "val_accuracy"
    val_maxvio_global = "val_maxvio_global"

    @property
    def lower_is_better(self) -> bool:
        return self is not SearchMetric.val_accuracy

    @property
    def needs_router(self) -> bool:
        return self is SearchMetric.val_maxvio_global

    @property
    def in_log(self) -> str:
        """Its name in the `val` lines of metrics.jsonl."""
        return self.value.removeprefix("val_")


@component("search", "none")
@dataclass(slots=True)
class SearchConfig(Component):
    """No search: `-m` trains every combination."""

    INFRA: ClassVar[bool] = True
    kind: str = "none"

    @property
    def is_on(self) -> bool:
        return isinstance(self, SamplerConfig)


@dataclass(slots=True)
class SamplerConfig(SearchConfig):
    """`trials` suggestions. With `min_steps` a trial is trained in rungs of min_steps * reduction^i steps, and of the
    trials at a rung the best 1/reduction go on (asynchronous successive halving, arXiv 1810.05934)."""

    trials: int = knob(20, ge=1)  # in all
    metric: SearchMetric = SearchMetric.val_loss  # what is to be best
    sampler_seed: int = knob(0, ge=0)  # of the suggestions; runs have `seed`
    min_steps: int | None = knob(None, ge=1)  # null: every trial is trained to its end
    reduction: int = knob(3, ge=2)  # of three trials one goes on at each rung

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        if self.min_steps is not None and self.min_steps >= run.trainer.steps:
            rule = f"the first rung must lie below trainer.steps={run.trainer.steps}"
            yield ConfigError("search.min_steps", self.min_steps, rule, "Lower it, or null trains trials to their end.")
        if self.metric.needs_router and not run.experts.is_moe:
            rule = "experts=dense has no router that could be out of balance"
            yield ConfigError("search.metric", self.metric.value, rule, "Use search.metric=val_loss.")


@component("search", "random")
@dataclass(slots=True)
class RandomSearchConfig(SamplerConfig):
    """Every trial is drawn at random, whatever the others found."""

    kind: str = "random"


@component("search", "tpe")
@dataclass(slots=True)
class TpeSearchConfig(SamplerConfig):
    """Tree-structured Parzen estimator: `startup_trials` at random, then near what was good so far."""

    kind: str = "tpe"
    startup_trials: int = knob(10, ge=1)  # random ones before the sampler learns
