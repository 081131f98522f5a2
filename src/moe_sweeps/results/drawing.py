"""The pictures of one run: each function turns a History into a Figure, or raises NotRecorded.

Every figure is ten inches wide, so that its text is legible when it is shown 1,000 pixels wide. Nothing is told by
colour alone: lines differ in dash and marker, and the one colour map for shares gets lighter all the way.
Axes of arrays: N records, L layers, E experts, D domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from moe_sweeps.results.history import METRICS, Floats, History, NotRecorded, Series

WIDTH = 10.0  # inches
MOST_PANELS = 12
MOST_COLUMNS = 240  # of a heat map over steps: more cannot be told apart
MOST_POINTS = 400  # of one expert's line
MOST_NAMED_EXPERTS = 16

STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.06,
    "savefig.dpi": 150,
    "svg.hashsalt": "moe_sweeps",  # equal data, equal file
}

# Blue is below the balanced share, grey is at it, yellow is above; lighter is always more, also without colour.
_SHADES = ["#08204a", "#34649f", "#9b9b9b", "#efb440", "#fff8d0"]
SHARES = LinearSegmentedColormap.from_list("shares", _SHADES).with_extremes(bad="#ffffff")

# The colours of Okabe and Ito, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7f5fa8")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_ROLES = ("expert", "router", "dense", "embedding", "norm")
_STEP = "optimizer step"


# --- the eight pictures -----------------------------------------------------------------------------------------------


def loss(history: History) -> Figure:
    """Cross-entropy of training and validation over steps."""
    train = _series_or_none(history, "train", "loss", METRICS)
    val = _series_or_none(history, "val", "loss", METRICS)
    if train is None and val is None:
        raise NotRecorded(history.why_missing("train", "loss", METRICS))
    figure = _figure(history, "Language-model loss over training", 4.3)
    axes = _plain_axes(figure.add_subplot())
    if train is not None:
        _line(axes, train, "training\n(mean since the\nrecord before)", 0, marker="")
    if val is not None:
        label = f"validation\n(at the end {val.values[-1]:.3f})"
        _line(axes, val, label, 1, dash=_DASHES[1], marker="s", every=1)
    axes.set(xlabel=_STEP, ylabel="cross-entropy (nats a token)")
    _legend(axes)
    return figure


def load(history: History) -> Figure:
    """Heat map of each expert's share of the picks over steps, a panel a layer."""
    steps, shares_NLE = load_shares(history)
    layers = chosen_layers(shares_NLE.shape[1])
    title = "Share of tokens that each expert receives"
    records = len(history.series("train", "load_LE").steps)
    note = "Beside each layer: the lowest and the highest share at the end."
    note += f" Neighbours of {records:,} records are added up." if records > len(steps) else ""
    figure, panels = _panels(history, title, layers, shares_NLE.shape[1], height=2.3, note=note)
    for axes, layer in zip(panels, layers, strict=True):
        shares_EN = shares_NLE[:, layer].T
        mesh = _share_mesh(axes, edges(steps), shares_EN, halfrange=1.0)
        low, high = shares_EN[:, -1].min(), shares_EN[:, -1].max()
        axes.set_title(f"Layer {layer}:  {low:.2f}× to {high:.2f}×", fontsize=10)
    _label_outer(panels, _STEP, "expert")
    bar = figure.colorbar(
        mesh, ax=panels, extend="max", aspect=28, pad=0.02, shrink=_bar(figure), ticks=[0, 0.5, 1, 1.5, 2]
    )
    bar.ax.set_yticklabels(["0  unused", "0.5×", "1×  equal share", "1.5×", "2× or more"])
    bar.set_label("multiples of the equal share 1/E")
    return figure


def balance(history: History) -> Figure:
    """MaxVio over steps above, entropies of the router below."""
    rows = [draw for draw, keys in _BALANCE_ROWS if any(history.has(*key) for key in keys)]
    if not rows:
        raise NotRecorded(history.why_missing("train", "maxvio_batch_L"))
    note = "Shades reach from the lowest to the highest layer."
    figure = _figure(history, "Balance and decisiveness of the router, mean over layers", 0.7 + 3.4 * len(rows), note)
    for axes, draw in zip(figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0], rows, strict=True):
        draw(_plain_axes(axes), history)
        _legend(axes)
    axes.set_xlabel(_STEP)
    return figure


def bias(history: History) -> Figure:
    """The bias that a loss-free balancer adds to each expert, over steps, a panel a layer."""
    every_step, every_bias_NLE = history.series("train", "bias_LE")
    shown = _thinned(len(every_step))
    steps, bias_NLE = every_step[shown], every_bias_NLE[shown]
    note = f"{len(steps):,} of {len(every_step):,} records, evenly chosen." if len(steps) < len(every_step) else ""
    layers = chosen_layers(bias_NLE.shape[1])
    title = "Bias that the balancer adds to each expert's score"
    figure, panels = _panels(history, title, layers, bias_NLE.shape[1], height=2.3, sharey=True, note=note)
    for axes, layer in zip(panels, layers, strict=True):
        _plain_axes(axes).axhline(0, color="#808080", linewidth=0.8)
        _bias_lines(axes, steps, bias_NLE[:, layer])
        axes.set_title(f"Layer {layer}")
    _label_outer(panels, _STEP, "bias")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", handlelength=3)
    return figure


def specialisation(history: History) -> Figure:
    """Share of each domain's picks that goes to each expert, at the last validation, a panel a layer."""
    record = history.last("val", "domain_load")
    domains, shares_LDE = domain_shares(record)
    count, experts = shares_LDE.shape[0], shares_LDE.shape[2]
    layers = chosen_layers(count)
    title = f"Which experts each domain of text uses, at step {record['step']:,}"
    height = 0.75 + 0.34 * len(domains)
    figure, panels = _panels(history, title, layers, count, height=height, columns=1 if len(layers) <= 6 else 2)
    for axes, layer in zip(panels, layers, strict=True):
        columns = np.arange(experts + 1) - 0.5
        mesh = _share_mesh(axes, columns, shares_LDE[layer], halfrange=1 / experts)
        axes.set_yticks(range(len(domains)), domains)
        axes.invert_yaxis()
        axes.set_title(f"Layer {layer}")
        if experts <= MOST_NAMED_EXPERTS:
            axes.set_xticks(range(experts))
        if experts <= MOST_NAMED_EXPERTS and len(panels) <= 6:
            _write_percentages(axes, shares_LDE[layer])
    _label_outer(panels, "expert", "")
    ticks = [0, 0.5 / experts, 1 / experts, 1.5 / experts, 2 / experts]
    bar = figure.colorbar(mesh, ax=panels, extend="max", aspect=28, pad=0.02, shrink=_bar(figure), ticks=ticks)
    notes = ["  unused", "", "  equal share", "", "  or more"]
    bar.ax.set_yticklabels([f"{100 * tick:.3g}%{note}" for tick, note in zip(ticks, notes, strict=True)])
    bar.set_label("share of the domain's picks")
    return figure


def norms(history: History) -> Figure:
    """Gradient and parameter norms by role, on logarithmic axes."""
    titles = {"grad_norm": "Gradient norm before clipping", "param_norm": "Parameter norm"}
    found = {key: history.by_role(key) for key in titles if history.has("train", key)}
    if not found:
        raise NotRecorded(history.why_missing("train", "grad_norm", router=False))
    figure = _figure(history, "Size of gradients and parameters, by what the parameters are for", 0.7 + 3 * len(found))
    rows = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (key, roles) in zip(rows, found.items(), strict=True):
        for role, (steps, values) in roles.items():
            place = _ROLES.index(role) if role in _ROLES else len(_ROLES)
            _line(axes, Series(steps, np.where(values > 0, values, np.nan)), role, place)
        _log_axis(_plain_axes(axes))
        axes.set(title=titles[key], ylabel="L2 norm (log scale)")
        _legend(axes)
    axes.set_xlabel(_STEP)
    return figure


def rates(history: History) -> Figure:
    """Learning rates by role; roles that share theirs share a line. Shaded: those of single experts."""
    found = history.by_role("lr")
    by_values: dict[bytes, list[str]] = {}
    for role, series in found.items():
        by_values.setdefault(series.values.tobytes(), []).append(role)
    note = "Roles with one learning rate have one line."
    figure = _figure(history, "Learning rates, by what the parameters are for", 4.2, note)
    axes = _plain_axes(figure.subplots())
    for roles in by_values.values():
        place = _ROLES.index(roles[0]) if roles[0] in _ROLES else len(_ROLES)
        _line(axes, found[roles[0]], ",\n".join(roles), place)
    if history.has("train", "expert_lr_min_LE"):
        steps, low_NLE = history.series("train", "expert_lr_min_LE")
        high_NLE = history.series("train", "expert_lr_max_LE").values
        low, high = low_NLE.min(axis=(1, 2)), high_NLE.max(axis=(1, 2))
        axes.fill_between(steps, low, high, color=_COLOURS[0], alpha=0.15, linewidth=0, label="single experts")
    axes.set(ylabel="learning rate", xlabel=_STEP)
    _legend(axes)
    return figure


def saturation(history: History) -> Figure:
    """How much of each token's final choice of experts the router makes already, over steps."""
    steps, values_NL = history.series("saturation", "saturation_L")
    layers = chosen_layers(values_NL.shape[1])
    figure = _figure(
        history, "How early the router settles on its final choices", 4.6, _left_out(layers, values_NL.shape[1])
    )
    axes = _plain_axes(figure.add_subplot())
    for place, layer in enumerate(layers):
        _line(axes, Series(steps, values_NL[:, layer]), f"layer {layer}", place, width=1.1, every=1)
    mean = Series(steps, np.nanmean(values_NL, axis=1))
    _line(axes, mean, "mean of all layers", 4, dash="-", marker="", width=3.0)
    experts = (history.config.get("experts") or {}).get("num_experts")
    if history.top_k and experts:
        axes.axhline(history.top_k / experts, color="#606060", linestyle=":", label="chance, k/E")
    axes.set(xlabel=_STEP, ylabel="picks that equal the final ones", ylim=(0, 1.03))
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(axes)
    return figure


# --- numbers behind them ----------------------------------------------------------------------------------------------


def load_shares(history: History) -> Series:
    """Picks of each expert in multiples of the equal share, (N, L, E); neighbouring records are added up if many."""
    steps, load_NLE = history.series("train", "load_LE")
    starts = np.unique(np.linspace(0, len(steps), min(len(steps), MOST_COLUMNS), endpoint=False).astype(int))
    ends = np.append(starts[1:], len(steps)) - 1
    summed_NLE = np.add.reduceat(load_NLE, starts, axis=0)
    return Series((steps[starts] + steps[ends]) / 2, _shares(summed_NLE) * load_NLE.shape[-1])


def domain_shares(record: dict[str, object]) -> tuple[list[str], Floats]:
    """Names, and shares (L, D, E) of each domain's picks; the first row is all domains together."""
    by_domain = record["domain_load"]
    assert isinstance(by_domain, dict)
    load_DLE = np.array(list(by_domain.values()), dtype=float)
    with_all_DLE = np.concatenate([load_DLE.sum(axis=0, keepdims=True), load_DLE])
    return ["all text", *by_domain], _shares(with_all_DLE).transpose(1, 0, 2)


def sampling_floor(tokens: int, experts: int, top_k: int) -> float:
    """Expected MaxVio of a router that picks at random, from the largest of `experts` normal variables.

    A pick count has mean T k/E and variance T k/E (1 - k/E); the counts sum to kT, which makes them correlated.
    """
    share = top_k / experts
    deviation = math.sqrt((1 - share) / (tokens * share) * experts / (experts - 1)) if experts > 1 else 0.0
    return deviation * _expected_maximum(experts)


def chosen_layers(count: int) -> list[int]:
    """All layers, or twelve evenly chosen ones with the first and the last."""
    return sorted({round(float(place)) for place in np.linspace(0, count - 1, min(count, MOST_PANELS))})


def edges(steps: Floats) -> Floats:
    """Borders of the cells around `steps`: half-way between neighbours."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middle[0]], middle, [2 * steps[-1] - middle[-1]]])


def _shares(load: Floats) -> Floats:
    """Counts over the last axis as shares; NaN where there are none."""
    total = load.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(load, total, out=np.full_like(load, np.nan), where=total > 0)
    return shares


def _expected_maximum(count: int) -> float:
    """The mean of the largest of `count` independent standard normal variables, by integration."""
    points = np.linspace(-8, 8, 1601)
    below = np.array([NormalDist().cdf(point) for point in points]) ** count
    return float(np.trapezoid(np.where(points > 0, 1 - below, -below), points))


def _thinned(count: int) -> slice:
    """At most MOST_POINTS of `count` records, the last among them."""
    stride = max(1, math.ceil(count / MOST_POINTS))
    return slice((count - 1) % stride, None, stride)


def _series_or_none(history: History, split: str, key: str, file: str) -> Series | None:
    return history.series(split, key, file) if history.has(split, key, file) else None


# --- parts of pictures ------------------------------------------------------------------------------------------------


def _figure(history: History, title: str, height: float, note: str = "") -> Figure:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    text = f"run {history.name}" + (f".  {note}" if note else "")
    figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color="#505050")
    return figure


def _panels(history: History, title: str, layers: Sequence[int], count: int, *, height: float,
            columns: int | None = None, sharey: bool = False, note: str = "") -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure with one panel for each of `layers`, of which the model has `count`."""
    columns = columns or (1 if len(layers) == 1 else 2 if len(layers) <= 4 else 3)
    rows = math.ceil(len(layers) / columns)
    notes = f"{_left_out(layers, count)}  {note}".strip()
    figure = _figure(history, title, 0.8 + rows * height + (0.6 if rows == 1 else 0), notes)
    grid = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
    for spare in grid.flat[len(layers) :]:
        spare.set_axis_off()
    return figure, list(grid.flat[: len(layers)])


def _left_out(layers: Sequence[int], count: int) -> str:
    return f"{len(layers)} of {count} layers, evenly chosen." if len(layers) < count else ""


def _bar(figure: Figure) -> float:
    """How long a colour bar is, as a part of the figure's height."""
    return min(1.0, 5.0 / float(figure.get_figheight()))


def _label_outer(panels: Sequence[Axes], x: str, y: str) -> None:
    """Axis labels at the outside alone; the lowest panel of each column has the steps."""
    lowest = {_column(axes): axes for axes in panels}
    for axes in panels:
        is_lowest = lowest[_column(axes)] is axes
        axes.tick_params(labelbottom=is_lowest)
        axes.set_xlabel(x if is_lowest else "")
        axes.set_ylabel(y if _column(axes) == 0 else "")


def _column(axes: Axes) -> int:
    spec = axes.get_subplotspec()
    return spec.colspan.start if spec is not None else 0


def _plain_axes(axes: Axes) -> Axes:
    """Faint grid, whole steps with thousands separators."""
    axes.grid(True, axis="both")
    axes.set_axisbelow(True)
    _step_ticks(axes)
    return axes


def _step_ticks(axes: Axes) -> None:
    spec = axes.get_subplotspec()
    columns = spec.get_gridspec().ncols if spec is not None else 1
    axes.xaxis.set_major_locator(MaxNLocator(nbins={1: 6, 2: 5}.get(columns, 3), integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _share_mesh(axes: Axes, borders: Floats, shares: Floats, halfrange: float) -> QuadMesh:
    """Rows of shares as coloured cells; the colour map's middle is the equal share."""
    rows = np.arange(len(shares) + 1) - 0.5
    norm = CenteredNorm(vcenter=halfrange, halfrange=halfrange)
    mesh = axes.pcolormesh(borders, rows, shares, cmap=SHARES, norm=norm, rasterized=True)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    _step_ticks(axes)
    axes.spines[:].set_visible(True)
    return mesh


def _write_percentages(axes: Axes, shares_DE: Floats) -> None:
    middle = 1 / shares_DE.shape[1]
    for (row, expert), share in np.ndenumerate(shares_DE):
        if np.isfinite(share):
            colour = "white" if share < 0.8 * middle else "black"
            axes.text(expert, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=9.5)


def _line(axes: Axes, series: Series, label: str, place: int, *, dash: object = None, marker: str | None = None,
          width: float | None = None, every: int | None = None) -> None:  # fmt: skip
    """One line in the `place`-th style; markers stand apart and do not meet those of other lines."""
    count = len(series.steps)
    stride = every or max(1, count // 9)
    colour, again = _COLOURS[place % len(_COLOURS)], place // len(_COLOURS)
    axes.plot(
        series.steps,
        series.values,
        label=label,
        color=colour,
        markerfacecolor="white" if again % 2 else colour,
        linestyle=_DASHES[(place // 2 + again) % len(_DASHES)] if dash is None else dash,
        marker=(_MARKERS[place % len(_MARKERS)] if marker is None else marker) or "None",
        markevery=((place * stride // 9) % stride, stride),
        linewidth=width,
    )


def _band(axes: Axes, steps: Floats, values_NL: Floats, place: int) -> None:
    """From the lowest to the highest layer."""
    low, high = np.nanmin(values_NL, axis=1), np.nanmax(values_NL, axis=1)
    axes.fill_between(steps, low, high, color=_COLOURS[place], alpha=0.15, linewidth=0)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handlelength=3)


def _log_axis(axes: Axes) -> None:
    """A logarithmic axis with plain numbers; 1, 2 and 5 in each decade unless there are many decades."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _maxvio_axes(axes: Axes, history: History) -> None:
    # With one micro-batch a step both lines are one; the dashes of the second then lie on the first.
    lines = (("train", "maxvio_batch_L", "batch of a step", ""), ("train", "maxvio_micro_L", "micro-batch", ""))
    for place, (split, key, label, marker) in enumerate((*lines, ("val", "maxvio_L", "validation set", "D"))):
        if history.has(split, key):
            steps, values_NL = history.series(split, key)
            mean = Series(steps, np.nanmean(values_NL, axis=1))
            _line(axes, mean, label, (0, 6, 1)[place], dash=("-", "--", "-")[place], marker=marker, every=1)
            if key == "maxvio_batch_L":
                _band(axes, steps, values_NL, 0)
    _recorded_means(axes, history)
    _floor(axes, history)
    axes.set(title="How much the busiest expert is overloaded", ylabel="MaxVio (0 = balanced)")
    if all(np.min(line.get_ydata()) > 0 for line in axes.lines):
        _log_axis(axes)


def _recorded_means(axes: Axes, history: History) -> None:
    """Of runs without routing.jsonl: the means over layers that metrics.jsonl has."""
    for place, (split, key, routing, label) in enumerate(_MEANS):
        if not history.has(split, routing) and history.has(split, key, METRICS):
            _line(
                axes, history.series(split, key, METRICS), label, place, marker="D" if split == "val" else "", every=1
            )


_MEANS = (
    ("train", "maxvio_batch", "maxvio_batch_L", "batch of a step"),
    ("val", "maxvio_global", "maxvio_L", "validation set"),
)


def _floor(axes: Axes, history: History) -> None:
    experts = (history.config.get("experts") or {}).get("num_experts")
    if history.top_k and experts and history.tokens_per_step:
        floor = sampling_floor(history.tokens_per_step, experts, history.top_k)
        label = f"chance alone\n({floor:.3f} a batch)"
        axes.axhline(floor, color="#606060", linestyle=(0, (1, 1.5)), label=label)


def _entropy_axes(axes: Axes, history: History) -> None:
    names = {
        "batch_entropy_L": "of the mean choice",
        "token_entropy_L": "of one token's choice",
        "mutual_information_L": "difference: mutual\ninformation",
    }
    for place, (key, label) in enumerate(names.items()):
        if history.has("train", key):
            steps, values_NL = history.series("train", key)
            _line(axes, Series(steps, np.nanmean(values_NL, axis=1)), label, place, dash=_DASHES[place])
            _band(axes, steps, values_NL, place)
    experts = (history.config.get("experts") or {}).get("num_experts")
    if experts:
        axes.axhline(math.log(experts), color="#606060", linestyle=(0, (1, 1.5)), label=f"largest, ln {experts}")
    axes.set(title="Entropy of the router's probabilities", ylabel="nats")
    axes.set_ylim(bottom=0)


_BALANCE_ROWS = (
    (_maxvio_axes, (("train", "maxvio_batch_L"), ("train", "maxvio_micro_L"), ("val", "maxvio_L"),
                    ("train", "maxvio_batch", METRICS), ("val", "maxvio_global", METRICS))),
    (_entropy_axes, (("train", "token_entropy_L"), ("train", "batch_entropy_L"), ("train", "mutual_information_L"))),
)  # fmt: skip


def _bias_lines(axes: Axes, steps: Floats, bias_NE: Floats) -> None:
    """A line an expert. Of many experts, the highest and the lowest at the end stand out and the others are grey."""
    experts = bias_NE.shape[1]
    if experts <= MOST_NAMED_EXPERTS:
        for expert in range(experts):
            dash = _DASHES[expert // len(_COLOURS)]
            _line(axes, Series(steps, bias_NE[:, expert]), f"expert {expert}", expert, dash=dash, width=1.2)
        return
    lines = [np.column_stack([steps, bias_NE[:, expert]]) for expert in range(experts)]
    style = {"colors": "#8c8c8c", "linewidths": 0.5, "alpha": 0.6, "rasterized": True, "label": "each expert"}
    axes.add_collection(LineCollection(lines, **style))  # type: ignore[arg-type]
    axes.autoscale_view()
    tail_E = np.nanmean(bias_NE[-max(1, len(steps) // 10) :], axis=0)
    extremes = ((int(tail_E.argmax()), "highest at the end"), (int(tail_E.argmin()), "lowest at the end"))
    for place, (expert, name) in enumerate(extremes):
        _line(axes, Series(steps, bias_NE[:, expert]), name, place, dash=_DASHES[place], width=1.0)
