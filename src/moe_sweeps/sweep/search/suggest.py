"""What to try next, by Optuna. Each suggestion rebuilds the study from the known trials, so a search has no state but
its folders: suggestion n follows from the sampler's seed, n, and the trials before it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_sweeps.config.search import SamplerConfig, TpeSearchConfig
from moe_sweeps.sweep.search.space import Axis, Choices, Param

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class Known(StrEnum):
    """How much is known about a trial, by Optuna's names."""

    complete = "COMPLETE"
    pruned = "PRUNED"  # trained to a rung so far, and judged by its value there
    running = "RUNNING"  # no value yet; TPE avoids its neighbourhood
    failed = "FAIL"


@dataclass(frozen=True, slots=True)
class Told:
    """One trial as the sampler sees it. `values`: step -> value, as far as it was trained; infinity if it diverged."""

    params: Mapping[str, Param]
    known: Known
    value: float | None = None
    values: Mapping[int, float] = field(default_factory=dict)


def suggest(axes: Mapping[str, Axis], search: SamplerConfig, history: Sequence[Told]) -> dict[str, Param]:
    """Parameters of the trial after those of `history`, whose values are in the unit of `search.metric`."""
    import optuna  # half a second, which no plan needs

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: distribution(axis) for key, axis in axes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # constant_liar
        direction = "minimize" if search.number.lower_is_better else "maximize"
        study = optuna.create_study(direction=direction, sampler=sampler(search, len(history)))
        study.add_trials([_frozen(told, distributions) for told in history])
        return dict(study.ask(distributions).params)


def sampler(search: SamplerConfig, number: int) -> BaseSampler:
    """The sampler for suggestion `number`, with its own seed."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([search.sampler_seed, number]).generate_state(1)[0])
    if isinstance(search, TpeSearchConfig):
        return TPESampler(seed=seed, n_startup_trials=search.startup_trials, constant_liar=True)
    return RandomSampler(seed=seed)


def distribution(axis: Axis) -> BaseDistribution:
    """An axis as Optuna's distribution."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Choices):
        return IntDistribution(0, len(axis.values) - 1) if axis.ordered else CategoricalDistribution(axis.values)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _frozen(told: Told, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    values: dict[str, Any] = {"value": told.value} if told.known is Known.complete else {}
    return create_trial(
        state=TrialState[told.known.value],
        params=dict(told.params),
        distributions=dict(distributions),
        intermediate_values=dict(told.values),
        **values,
    )
