"""Pictures of training: the loss, the learning rates, and the sizes of gradients and parameters."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from moe_sweeps.reports.drawing.panels import figure_of
from moe_sweeps.reports.drawing.style import COLOURS, DASHES, STEP, end_point, legend, line, log_axis, plain_axes
from moe_sweeps.results.evaluations import parted
from moe_sweeps.results.history import METRICS, History, NotRecorded, Series

_ROLES = ("expert", "router", "dense", "embedding", "norm")


def loss(history: History) -> Figure:
    """Cross-entropy of training and validation over steps."""
    train = _series_or_none(history, "train", "loss", METRICS)
    val = parted(history, "loss") if history.has("val", "loss", METRICS) else None
    if train is None and val is None:
        raise NotRecorded(history.why_missing("train", "loss", METRICS))
    figure = figure_of(history, "Language-model loss over training", 4.3)
    axes = plain_axes(figure.add_subplot())
    if train is not None:
        line(axes, train, "training\n(mean since the\nrecord before)", 0, marker="")
    if val is not None:
        end = "" if len(val.final.steps) else f"\n(at the end {val.line.values[-1]:.3f})"
        line(axes, val.line, f"validation{end}", 1, dash=DASHES[1], marker="s", every=1)
        if len(val.final.steps):
            end_point(axes, val.final, f"final evaluation,\non other windows\n({val.final.values[-1]:.3f})", 1)
    axes.set(xlabel=STEP, ylabel="cross-entropy (nats a token)")
    legend(axes)
    return figure


def norms(history: History) -> Figure:
    """Gradient and parameter norms by role, on logarithmic axes."""
    titles = {"grad_norm": "Gradient norm before clipping", "param_norm": "Parameter norm"}
    found = {key: history.by_role(key) for key in titles if history.has("train", key)}
    if not found:
        raise NotRecorded(history.why_missing("train", "grad_norm", router=False))
    figure = figure_of(
        history, "Size of gradients and parameters, by what the parameters are for", 0.7 + 3 * len(found)
    )
    rows = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (key, roles) in zip(rows, found.items(), strict=True):
        for role, (steps, values) in roles.items():
            place = _ROLES.index(role) if role in _ROLES else len(_ROLES)
            line(axes, Series(steps, np.where(values > 0, values, np.nan)), role, place)
        log_axis(plain_axes(axes))
        axes.set(title=titles[key], ylabel="L2 norm (log scale)")
        legend(axes)
    axes.set_xlabel(STEP)
    return figure


def rates(history: History) -> Figure:
    """Learning rates by role; roles that share theirs share a line. Shaded: those of single experts."""
    found = history.by_role("lr")
    by_values: dict[bytes, list[str]] = {}
    for role, series in found.items():
        by_values.setdefault(series.values.tobytes(), []).append(role)
    note = "Roles with one learning rate have one line."
    figure = figure_of(history, "Learning rates, by what the parameters are for", 4.2, note)
    axes = plain_axes(figure.subplots())
    for roles in by_values.values():
        place = _ROLES.index(roles[0]) if roles[0] in _ROLES else len(_ROLES)
        line(axes, found[roles[0]], ",\n".join(roles), place)
    if history.has("train", "expert_lr_min_LE"):
        steps, low_NLE = history.series("train", "expert_lr_min_LE")
        high_NLE = history.series("train", "expert_lr_max_LE").values
        low, high = low_NLE.min(axis=(1, 2)), high_NLE.max(axis=(1, 2))
        axes.fill_between(steps, low, high, color=COLOURS[0], alpha=0.15, linewidth=0, label="single experts")
    axes.set(ylabel="learning rate", xlabel=STEP)
    legend(axes)
    return figure


def _series_or_none(history: History, split: str, key: str, file: str) -> Series | None:
    return history.series(split, key, file) if history.has(split, key, file) else None
