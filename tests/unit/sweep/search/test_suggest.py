"""Suggestions are Optuna's own: the same sampler used directly, with the same seeds, says the same."""

from __future__ import annotations

import math
import warnings

import optuna
import pytest

from moe_sweeps.config.search import RandomSearchConfig, SamplerConfig, SearchMetric, TpeSearchConfig
from moe_sweeps.sweep.search.space import Axis, Choices, Interval, Param
from moe_sweeps.sweep.search.suggest import Known, Told, distribution, sampler, suggest

AXES: dict[str, Axis] = {
    "lr": Interval(1e-4, 1e-1, log=True),
    "coef": Choices(("0.1", "0.2", "0.6")),
    "layers": Interval(1, 4, whole=True),
    "width": Choices(("16", "32", "64"), ordered=True),
}
TPE, RANDOM = TpeSearchConfig(startup_trials=4), RandomSearchConfig(sampler_seed=5)


def objective(params: dict[str, Param]) -> float:
    """Lowest at lr=0.01, coef=0.2, layers=3, width=32; it diverges at the upper end of lr."""
    lr = float(params["lr"])
    distance = abs(math.log10(lr) + 2) + abs(float(params["coef"]) - 0.2)
    return math.inf if lr > 0.08 else distance + abs(float(params["layers"]) - 3) + abs(float(params["width"]) - 1)


@pytest.mark.parametrize(
    "search", [TPE, RANDOM, TpeSearchConfig(startup_trials=4, metric=SearchMetric["val_accuracy"])]
)
def test_suggestions_equal_those_of_optuna_used_directly(search: SamplerConfig) -> None:
    sign = 1 if search.number.lower_is_better else -1
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if sign == 1 else "maximize")
    distributions = {key: distribution(axis) for key, axis in AXES.items()}
    history: list[Told] = []
    for number in range(14):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = sampler(search, number)
        trial = study.ask(distributions)
        ours = suggest(AXES, search, history)
        assert ours == trial.params, number
        value = sign * objective(ours)
        study.tell(trial, value)
        history.append(Told(ours, Known.complete, value))


def test_tpe_finds_what_random_search_does_not_look_for() -> None:
    found = {}
    for search in (TpeSearchConfig(startup_trials=8), RandomSearchConfig()):
        history: list[Told] = []
        for _ in range(40):
            params = suggest(AXES, search, history)
            history.append(Told(params, Known.complete, objective(params)))
        found[search.kind] = sum(told.value or 0 for told in history[20:] if told.value != math.inf) / 20
    assert found["tpe"] < found["random"] / 1.5


def test_what_is_known_so_far_counts() -> None:
    """A trial that is paused at a rung informs the next suggestion; one that failed leaves no trace."""
    base = [Told(suggest(AXES, TPE, []), Known.complete, 1.0)]
    for _ in range(5):
        params = suggest(AXES, TPE, base)
        base.append(Told(params, Known.complete, objective(params)))
    params = suggest(AXES, TPE, base)
    # The same trials, paused at a rung: those with the lower values there, or those with the higher ones, are good.
    paused = [[Told(t.params, Known.pruned, None, {10: sign * (t.value or 0)}) for t in base] for sign in (1, -1)]
    assert suggest(AXES, TPE, paused[0]) != suggest(AXES, TPE, paused[1])
    failed = suggest(AXES, TPE, [*base, Told(params, Known.failed)])
    other = dict(params) | {"lr": 1e-4}
    assert failed == suggest(AXES, TPE, [*base, Told(other, Known.failed)])
    assert suggest(AXES, TPE, [*base, Told(params, Known.running)]).keys() == AXES.keys()
