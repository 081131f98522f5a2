"""Pictures of balance over steps: MaxVio, entropies, experts in use, and where the router collapsed.

Axes of arrays: N records, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_sweeps.reports.drawing.numbers import sampling_floor
from moe_sweeps.reports.drawing.panels import figure_of
from moe_sweeps.reports.drawing.style import DASHES, STEP, band, legend, line, log_axis, mark_collapse, plain_axes
from moe_sweeps.results.history import METRICS, History, NotRecorded, Series

Key = tuple[str, ...]  # split, name and file, as History.has takes them
Row = tuple[Callable[[Axes, History], None], tuple[Key, ...]]  # the panel's function, and keys of which it needs one

_DOTS = (0, (1, 1.5))


def balance(history: History) -> Figure:
    """MaxVio over steps above, entropies of the router below."""
    maxvio = (("train", "maxvio_batch_L"), ("train", "maxvio_micro_L"), ("val", "maxvio_L"))
    means = (("train", "maxvio_batch", METRICS), ("val", "maxvio_global", METRICS))
    entropies = (("train", "token_entropy_L"), ("train", "batch_entropy_L"), ("train", "mutual_information_L"))
    title = "Balance and decisiveness of the router, mean over layers"
    return _rows(history, title, ((_maxvio_axes, (*maxvio, *means)), (_entropy_axes, entropies)))


def usage(history: History) -> Figure:
    """The number of experts that are in effect in use above, of those that hardly any token reaches below."""
    title = "How many of a layer's experts are in use, mean over layers"
    return _rows(history, title, ((_n_eff_axes, (("train", "n_eff_L"),)), (_dead_axes, (("train", "dead_L"),))))


def _rows(history: History, title: str, rows: Sequence[Row]) -> Figure:
    """One panel a row of those whose numbers were recorded."""
    found = [draw for draw, keys in rows if any(history.has(*key) for key in keys)]
    if not found:
        raise NotRecorded(history.why_missing(*rows[0][1][0]))
    note = "Shades reach from the lowest to the highest layer."
    figure = figure_of(history, title, 0.7 + 3.4 * len(found), note)
    for axes, draw in zip(figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0], found, strict=True):
        draw(plain_axes(axes), history)
        mark_collapse(axes, history)
        legend(axes)
    axes.set_xlabel(STEP)
    return figure


# --- MaxVio -----------------------------------------------------------------------------------------------------------


def _maxvio_axes(axes: Axes, history: History) -> None:
    # With one micro-batch a step both lines coincide; the second is dashed so that the first stays visible.
    lines = (("train", "maxvio_batch_L", "batch of a step", ""), ("train", "maxvio_micro_L", "micro-batch", ""))
    for place, (split, key, label, marker) in enumerate((*lines, ("val", "maxvio_L", "validation set", "D"))):
        if history.has(split, key):
            steps, values_NL = history.series(split, key)
            mean = Series(steps, np.nanmean(values_NL, axis=1))
            line(axes, mean, label, (0, 6, 1)[place], dash=("-", "--", "-")[place], marker=marker, every=1)
            if key == "maxvio_batch_L":
                band(axes, steps, values_NL, 0)
    _recorded_means(axes, history)
    _floor(axes, history)
    if history.collapse is not None:
        label = f"collapse threshold\n({history.collapse.limit:.2f})"
        axes.axhline(history.collapse.limit, color="#b00020", linestyle=_DOTS, label=label)
    axes.set(title="How much the busiest expert is overloaded", ylabel="MaxVio (0 = balanced)")
    if all(np.min(each.get_ydata()) > 0 for each in axes.lines):
        log_axis(axes)


_MEANS = (
    ("train", "maxvio_batch", "maxvio_batch_L", "batch of a step"),
    ("val", "maxvio_global", "maxvio_L", "validation set"),
)


def _recorded_means(axes: Axes, history: History) -> None:
    """Of runs without routing.jsonl: the means over layers that metrics.jsonl has."""
    for place, (split, key, routing, label) in enumerate(_MEANS):
        if not history.has(split, routing) and history.has(split, key, METRICS):
            marker = "D" if split == "val" else ""
            line(axes, history.series(split, key, METRICS), label, place, marker=marker, every=1)


def _floor(axes: Axes, history: History) -> None:
    if history.top_k and history.num_experts and history.tokens_per_step:
        floor = sampling_floor(history.tokens_per_step, history.num_experts, history.top_k)
        axes.axhline(floor, color="#606060", linestyle=_DOTS, label=f"chance alone\n({floor:.3f} a batch)")


# --- entropies --------------------------------------------------------------------------------------------------------


def _entropy_axes(axes: Axes, history: History) -> None:
    names = {
        "batch_entropy_L": "of the mean choice",
        "token_entropy_L": "of one token's choice",
        "mutual_information_L": "difference: mutual\ninformation",
    }
    for place, (key, label) in enumerate(names.items()):
        if history.has("train", key):
            steps, values_NL = history.series("train", key)
            line(axes, Series(steps, np.nanmean(values_NL, axis=1)), label, place, dash=DASHES[place])
            band(axes, steps, values_NL, place)
    if history.num_experts:
        largest = f"largest, ln {history.num_experts}"
        axes.axhline(math.log(history.num_experts), color="#606060", linestyle=_DOTS, label=largest)
    axes.set(title="Entropy of the router's probabilities", ylabel="nats")
    axes.set_ylim(bottom=0)


# --- experts in use ---------------------------------------------------------------------------------------------------


def _n_eff_axes(axes: Axes, history: History) -> None:
    steps, values_NL = history.series("train", "n_eff_L")
    line(axes, Series(steps, np.nanmean(values_NL, axis=1)), "experts in effect", 0, marker="", dash="-")
    band(axes, steps, values_NL, 0)
    for count, colour, name in ((history.num_experts, "#606060", "all, E"), (history.top_k, "#b00020", "collapse, k")):
        if count:
            axes.axhline(count, color=colour, linestyle=_DOTS, label=f"{name} = {count}")
    axes.set(title="Experts in effect: exp(entropy of the loads)", ylabel="N_eff (experts)")
    axes.set_ylim(0, 1.05 * (history.num_experts or np.nanmax(values_NL)))


def _dead_axes(axes: Axes, history: History) -> None:
    steps, values_NL = history.series("train", "dead_L")
    line(axes, Series(steps, np.nanmean(values_NL, axis=1)), "dead experts", 1, marker="", dash="-")
    band(axes, steps, values_NL, 1)
    axes.set(title="Dead experts: load below 1% of the mean", ylabel="experts in a layer")
    axes.set_ylim(0, max(1.0, 1.05 * float(np.nanmax(values_NL))))
