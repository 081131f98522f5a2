"""Pictures of what goes to which expert: load, bias, specialisation, saturation.

Axes of arrays: N records, L layers, E experts, D domains.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from moe_sweeps.host.plain import drawn
from moe_sweeps.reports.drawing.numbers import domain_shares, edges, load_shares, thinned
from moe_sweeps.reports.drawing.panels import (
    bar_length,
    chosen_layers,
    figure_of,
    label_outer,
    left_out,
    panels_of,
    share_mesh,
)
from moe_sweeps.reports.drawing.style import COLOURS, DASHES, STEP, legend, line, plain_axes
from moe_sweeps.results.history import Floats, History, Series

MOST_NAMED_EXPERTS = 16


def load(history: History) -> Figure:
    """Heat map of each expert's share of the picks over steps, a panel a layer."""
    steps, shares_NLE = load_shares(history)
    layers = chosen_layers(shares_NLE.shape[1])
    title = "Share of tokens that each expert receives"
    records = len(history.series("train", "load_LE").steps)
    note = "Beside each layer: the lowest and the highest share at the end."
    note += f" Neighbours of {records:,} records are added up." if records > len(steps) else ""
    figure, panels = panels_of(history, title, layers, shares_NLE.shape[1], height=2.3, note=note)
    for axes, layer in zip(panels, layers, strict=True):
        shares_EN = shares_NLE[:, layer].T
        mesh = share_mesh(axes, edges(steps), shares_EN, halfrange=1.0)
        low, high = shares_EN[:, -1].min(), shares_EN[:, -1].max()
        axes.set_title(f"Layer {layer}:  {low:.2f}× to {high:.2f}×", fontsize=10)
    label_outer(panels, STEP, "expert")
    bar = figure.colorbar(
        mesh, ax=panels, extend="max", aspect=28, pad=0.02, shrink=bar_length(figure), ticks=[0, 0.5, 1, 1.5, 2]
    )
    bar.ax.set_yticklabels(["0  unused", "0.5×", "1×  equal share", "1.5×", "2× or more"])
    bar.set_label("multiples of the equal share 1/E")
    return figure


def bias(history: History) -> Figure:
    """The bias that a loss-free balancer adds to each expert, over steps, a panel a layer."""
    every_step, every_bias_NLE = history.series("train", "bias_LE")
    shown = thinned(len(every_step))
    steps, bias_NLE = every_step[shown], every_bias_NLE[shown]
    note = f"{len(steps):,} of {len(every_step):,} records, evenly chosen." if len(steps) < len(every_step) else ""
    layers = chosen_layers(bias_NLE.shape[1])
    title = "Bias that the balancer adds to each expert's score"
    figure, panels = panels_of(history, title, layers, bias_NLE.shape[1], height=2.3, sharey=True, note=note)
    for axes, layer in zip(panels, layers, strict=True):
        plain_axes(axes).axhline(0, color="#808080", linewidth=0.8)
        _bias_lines(axes, steps, bias_NLE[:, layer])
        axes.set_title(f"Layer {layer}")
    label_outer(panels, STEP, "bias")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", handlelength=3)
    return figure


def _bias_lines(axes: Axes, steps: Floats, bias_NE: Floats) -> None:
    """A line an expert. Of many experts, the highest and the lowest at the end stand out and the others are grey."""
    experts = bias_NE.shape[1]
    if experts <= MOST_NAMED_EXPERTS:
        for expert in range(experts):
            dash = DASHES[expert // len(COLOURS)]
            line(axes, Series(steps, bias_NE[:, expert]), f"expert {expert}", expert, dash=dash, width=1.2)
        return
    lines = [np.column_stack([steps, bias_NE[:, expert]]) for expert in range(experts)]
    style = {"colors": "#8c8c8c", "linewidths": 0.5, "alpha": 0.6, "rasterized": True, "label": "each expert"}
    axes.add_collection(LineCollection(lines, **style))  # type: ignore[arg-type]
    axes.autoscale_view()
    tail_E = np.nanmean(bias_NE[-max(1, len(steps) // 10) :], axis=0)
    extremes = ((int(tail_E.argmax()), "highest at the end"), (int(tail_E.argmin()), "lowest at the end"))
    for place, (expert, name) in enumerate(extremes):
        line(axes, Series(steps, bias_NE[:, expert]), name, place, dash=DASHES[place], width=1.0)


def specialisation(history: History) -> Figure:
    """Share of each domain's picks that goes to each expert, at the last validation, a panel a layer."""
    record = history.last("val", "domain_load")
    domains, shares_LDE = domain_shares(record)
    count, experts = shares_LDE.shape[0], shares_LDE.shape[2]
    layers = chosen_layers(count)
    title = f"Which experts each domain of text uses, at step {record['step']:,}"
    height = 0.75 + 0.34 * len(domains)
    figure, panels = panels_of(history, title, layers, count, height=height, columns=1 if len(layers) <= 6 else 2)
    for axes, layer in zip(panels, layers, strict=True):
        columns = np.arange(experts + 1) - 0.5
        mesh = share_mesh(axes, columns, shares_LDE[layer], halfrange=1 / experts)
        axes.set_yticks(range(len(domains)), [drawn(domain, most=40) for domain in domains])
        axes.invert_yaxis()
        axes.set_title(f"Layer {layer}")
        if experts <= MOST_NAMED_EXPERTS:
            axes.set_xticks(range(experts))
        if experts <= MOST_NAMED_EXPERTS and len(panels) <= 6:
            _write_percentages(axes, shares_LDE[layer])
    label_outer(panels, "expert", "")
    _share_bar(figure, mesh, panels, experts)
    return figure


def _share_bar(figure: Figure, mesh: QuadMesh, panels: list[Axes], experts: int) -> None:
    ticks = [0, 0.5 / experts, 1 / experts, 1.5 / experts, 2 / experts]
    bar = figure.colorbar(mesh, ax=panels, extend="max", aspect=28, pad=0.02, shrink=bar_length(figure), ticks=ticks)
    notes = ["  unused", "", "  equal share", "", "  or more"]
    bar.ax.set_yticklabels([f"{100 * tick:.3g}%{note}" for tick, note in zip(ticks, notes, strict=True)])
    bar.set_label("share of the domain's picks")


def _write_percentages(axes: Axes, shares_DE: Floats) -> None:
    middle = 1 / shares_DE.shape[1]
    for (row, expert), share in np.ndenumerate(shares_DE):
        if np.isfinite(share):
            colour = "white" if share < 0.8 * middle else "black"
            axes.text(expert, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=9.5)


def saturation(history: History) -> Figure:
    """How much of each token's final choice of experts the router makes already, over steps."""
    steps, values_NL = history.series("saturation", "saturation_L")
    layers = chosen_layers(values_NL.shape[1])
    figure = figure_of(
        history, "How early the router settles on its final choices", 4.6, left_out(layers, values_NL.shape[1])
    )
    axes = plain_axes(figure.add_subplot())
    for place, layer in enumerate(layers):
        line(axes, Series(steps, values_NL[:, layer]), f"layer {layer}", place, width=1.1, every=1)
    mean = Series(steps, np.nanmean(values_NL, axis=1))
    line(axes, mean, "mean of all layers", 4, dash="-", marker="", width=3.0)
    if history.top_k and history.num_experts:
        axes.axhline(history.top_k / history.num_experts, color="#606060", linestyle=":", label="chance, k/E")
    axes.set(xlabel=STEP, ylabel="picks that equal the final ones", ylim=(0, 1.03))
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend(axes)
    return figure
