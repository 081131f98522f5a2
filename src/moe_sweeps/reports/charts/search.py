"""Figures of a search: its history, each axis against the result, all axes side by side, and Optuna's importances.

Trials that stopped at a rung have their value there, and are drawn hollow: it is an evaluation on the way. None of this
is a test: a search goes where it expects to find something, so its trials are no sample of the space.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from moe_sweeps.host.plain import drawn
from moe_sweeps.records.manifest import SearchRecord
from moe_sweeps.records.numbers import Metric
from moe_sweeps.reports.charts.canvas import finish, log_axis, new_figure, number
from moe_sweeps.reports.drawing.style import COLOURS
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.tables import Table
from moe_sweeps.results.trials import TrialRow, better, search_of, trials_of

LEAST_DONE = 8  # trials that were trained to their end, below which importances say nothing
MOST_PANELS = 9
MOST_NAMES = 12  # values of an axis that are named on it
BEST = 3  # trials that are drawn apart
DONE, STOPPED = "trained to its end", "stopped at a rung: its value there"


def history(table: Table) -> Figure:
    """Value by trial in the order in which they were suggested, and the best so far of those trained to their end."""
    search, metric, trials = _valued(table)
    figure = new_figure(table, 4.2)
    axes = figure.subplots()
    _points(axes, [row.number for row in trials], trials, metric)
    done = sorted((row for row in trials if row.final), key=lambda row: row.number)
    if done:
        values = [better(metric, row.value) for row in done if row.value is not None]
        best = np.minimum.accumulate(values) * (-1 if metric.better == "higher" else 1) * metric.factor
        last = max(row.number for row in trials_of(table))
        steps = [*(row.number for row in done), last]
        axes.step(steps, [*best, best[-1]], where="post", color=COLOURS[1], linewidth=1.7, label="best so far")
    axes.set(xlabel="trial, in the order of suggestion", ylabel=drawn(metric.axis or metric.header))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True)
    return finish(figure, _caption(table, search, trials), legend=axes)


def slices(table: Table) -> Figure:
    """The result against each axis, a panel each."""
    search, metric, trials = _valued(table)
    axes_of = [key for key in search.space if len({row.settings.get(key) for row in trials} - {None}) > 1]
    if not axes_of:
        raise NotRecorded("no axis of the search has two values among trials with a result")
    shown = axes_of[:MOST_PANELS]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(table, 0.4 + 2.9 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for spare in panels.flat[len(shown) :]:
        spare.set_axis_off()
    for panel, key in zip(panels.flat, shown, strict=False):
        own = [row for row in trials if key in row.settings]
        places = _placed(panel, "x", key, search, [row.settings[key] for row in own])
        _points(panel, places, own, metric)
        panel.set_xlabel(drawn(key, most=60))
        panel.grid(True)
    for row in panels:
        row[0].set_ylabel(drawn(metric.header))
    left_out = f"{len(axes_of) - len(shown)} axes have no panel" if len(axes_of) > len(shown) else ""
    fullest = max(panels.flat, key=lambda panel: len(panel.get_legend_handles_labels()[1]))
    return finish(figure, _caption(table, search, trials, left_out), legend=fullest)


def parallel(table: Table) -> Figure:
    """Every trial as a line over the axes of the search to its result; the best ones are drawn apart."""
    search, metric, trials = _valued(table)
    keys = [key for key in search.space if len({row.settings.get(key) for row in trials} - {None}) > 1]
    if not keys:
        raise NotRecorded("no axis of the search has two values among trials with a result")
    figure = new_figure(table, 4.6)
    axes = figure.subplots()
    scales = [_Scale.of([row.settings.get(key) for row in trials], search.space.get(key, "")) for key in keys]
    values = [0.0 if row.value is None else row.value for row in trials]
    low, high = min(values), max(values)
    for rank, (row, value) in enumerate(zip(trials, values, strict=True)):
        at = [scale.place(row.settings.get(key)) for key, scale in zip(keys, scales, strict=True)]
        line = [*at, (value - low) / ((high - low) or 1.0)]
        _line(axes, line, rank if rank < BEST else None, row, metric)
    _posts(axes, keys, scales, metric, low, high)
    note = "An axis that a trial does not read has no point of it"
    return finish(figure, _caption(table, search, trials, note), legend=axes)


def importances(table: Table) -> Figure:
    """How much each axis explains of the result among the trials, by Optuna's PED-ANOVA."""
    search, metric, trials = _valued(table)
    found = optuna_importances(search, metric, [row for row in trials if row.final])
    figure = new_figure(table, 0.9 + 0.36 * len(found))
    axes = figure.subplots()
    names = list(found)[::-1]
    axes.barh([drawn(name, most=60) for name in names], [found[name] for name in names], color=COLOURS[0])
    for place, name in enumerate(names):
        axes.annotate(f"{found[name]:.2f}", (found[name], place), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=9)  # fmt: skip
    axes.set_xlim(0, max(1e-9, *found.values()) * 1.12)
    axes.set_xlabel("importance by Optuna (PED-ANOVA), shares of 1")
    done = sum(row.final for row in trials)
    others = [key for key in search.space if key not in found]
    left_out = f"Not read by all of them, or the same in all: {', '.join(others)}" if others else ""
    note = (
        f"Computed by Optuna from the {done} trials trained to their end. It says on which axes the best trials differ "
        "from the others here; it is no test, and it depends on where the search looked"
    )
    return finish(figure, _caption(table, search, trials, note, left_out))


def optuna_importances(search: SearchRecord, metric: Metric, done: Sequence[TrialRow]) -> dict[str, float]:
    """Optuna's importance of each axis that all of these trials read, the largest first.

    Raises:
        NotRecorded: too few trials were trained to their end, or they hardly differ.
    """
    keys = [key for key in search.space if all(key in row.params and key in row.settings for row in done)]
    varied = [key for key in keys if len({row.params[key] for row in done}) > 1]
    if len(done) < LEAST_DONE:
        raise NotRecorded(f"{len(done)} trials were trained to their end, and importances need {LEAST_DONE}")
    if len(varied) < 2:
        raise NotRecorded("fewer than two settings differ among the trials that were trained to their end")
    if len({row.value for row in done}) < 2:
        raise NotRecorded("the results of the trials that were trained to their end do not differ")
    import optuna  # half a second, which no other page needs
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spread = {key: _distribution([row.params[key] for row in done], search.space[key]) for key in varied}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="maximize" if metric.better == "higher" else "minimize")
        study.add_trials([create_trial(params={key: row.params[key] for key in varied}, distributions=spread,
                                       value=row.value) for row in done])  # fmt: skip
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return dict(sorted(((key, float(value)) for key, value in found.items()), key=lambda item: -item[1]))


def _distribution(values: Sequence[Any], space: str) -> Any:
    """What Optuna is told of an axis: the range of its trials, or its values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if any(isinstance(value, str) for value in values):
        return CategoricalDistribution(sorted({str(value) for value in values}))
    low, high, log = min(values), max(values), space.endswith("log scale") and min(values) > 0
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


# --- parts ------------------------------------------------------------------------------------------------------------


def _valued(table: Table) -> tuple[SearchRecord, Metric, list[TrialRow]]:
    """The search, its number, and the trials that have one, best first."""
    found = search_of(table)
    if found is None:
        raise NotRecorded("this is the table of a grid, and not of a search")
    trials = [row for row in trials_of(table) if row.value is not None]
    if not trials:
        raise NotRecorded("no trial has a result yet")
    return *found, trials


def _points(axes: Axes, places: Sequence[float], trials: Sequence[TrialRow], metric: Metric) -> None:
    for final, name, fill in ((True, DONE, COLOURS[0]), (False, STOPPED, "white")):
        own = [(x, row.value * metric.factor) for x, row in zip(places, trials, strict=True)
               if row.final is final and row.value is not None]  # fmt: skip
        if own:
            axes.plot(*zip(*own, strict=True), linestyle="None", marker="o" if final else "s", markersize=5.5,
                      markerfacecolor=fill, markeredgecolor=COLOURS[0], label=name)  # fmt: skip


def _placed(axes: Axes, which: str, key: str, search: SearchRecord, texts: Sequence[str]) -> list[float]:
    """Where the values of an axis stand: as numbers where they are, else side by side under their names."""
    numbers = [number(text) for text in texts]
    if all(value is not None for value in numbers):
        found = [value for value in numbers if value is not None]
        if search.space.get(key, "").endswith("log scale") and min(found) > 0:
            log_axis(axes, which)
            axes.xaxis.set_major_locator(
                LogLocator(subs=(1,) if max(found) > 20 * min(found) else (1, 2, 5), numticks=6)
            )
        return found
    names = list(dict.fromkeys(sorted(texts)))
    axes.set_xticks(range(len(names)), [drawn(name, most=24) for name in names], rotation=30, ha="right", fontsize=9)
    axes.set_xlim(-0.5, len(names) - 0.5)
    return [float(names.index(text)) for text in texts]


class _Scale:
    """Places from 0 to 1 for the values of one axis, and the names at them."""

    def __init__(self, places: dict[str, float], names: list[tuple[float, str]]) -> None:
        self._places, self.names = places, names

    @classmethod
    def of(cls, texts: Sequence[str | None], space: str) -> _Scale:
        """The scale of these values: by number, on a log scale where the search had one, else side by side."""
        known = list(dict.fromkeys(text for text in texts if text is not None))
        numbers = {text: value for text in known if (value := number(text)) is not None}
        if len(numbers) < len(known):
            ordered = sorted(known)
            places = {text: index / max(1, len(ordered) - 1) for index, text in enumerate(ordered)}
            return cls(places, [(places[text], text) for text in ordered[:MOST_NAMES]])
        is_log = space.endswith("log scale") and min(numbers.values()) > 0
        at = {text: math.log(value) if is_log else value for text, value in numbers.items()}
        low, high = min(at.values()), max(at.values())
        places = {text: (value - low) / ((high - low) or 1.0) for text, value in at.items()}
        ends = [min(known, key=lambda text: at[text]), max(known, key=lambda text: at[text])]
        return cls(places, [(places[text], text) for text in dict.fromkeys(ends)])

    def place(self, text: str | None) -> float:
        """Where a value stands; NaN for none."""
        return math.nan if text is None else self._places[text]


def _line(axes: Axes, line: Sequence[float], place: int | None, row: TrialRow, metric: Metric) -> None:
    if place is None:
        axes.plot(line, color="#9a9a9a", linewidth=0.8, alpha=0.6, linestyle="-" if row.final else ":", zorder=1)
        return
    value = metric.spell(0.0 if row.value is None else row.value)
    label = f"trial {row.number}: {value}{'' if row.final else f' at step {row.rung:,}'}"
    axes.plot(line, color=COLOURS[place], linewidth=2.2, linestyle="-" if row.final else ":",
              marker=("o", "s", "^")[place], label=label, zorder=5 - place)  # fmt: skip


def _posts(axes: Axes, keys: Sequence[str], scales: Sequence[_Scale], metric: Metric, low: float, high: float) -> None:
    names = [*(scale.names for scale in scales), [(0.0, metric.spell(low)), (1.0, metric.spell(high))]]
    for place, ends in enumerate(names):
        axes.axvline(place, color="#505050", linewidth=0.8)
        for at, text in ends:
            axes.annotate(drawn(text, most=24), (place, at), xytext=(4, 2), textcoords="offset points", fontsize=8.5)
    titles = ["\n".join(drawn(key, most=40).rsplit(".", 1)) for key in keys]
    axes.set_xticks(range(len(names)), [*titles, drawn(metric.header)])
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(names) - 0.6)
    axes.set_ylim(-0.06, 1.08)


def _caption(table: Table, search: SearchRecord, trials: Sequence[TrialRow], *notes: str) -> str:
    done = sum(row.final for row in trials)
    every = len(search.trials)
    missing = every - len(trials)
    text = f"{table.title}: {search.kind} search, {every} suggestions; {done} trained to their end"
    text += f", {len(trials) - done} with a value at a rung" if len(trials) > done else ""
    why = "refused, repeated, failed, diverged or not over"
    text += f"; {missing} have no value ({why}) and are not drawn." if missing else "."
    return " ".join([text, *(f"{note}." for note in notes if note)])
