"""The catalogue of final numbers of summary.json: unit, better direction, and how each is shown.

Everything that names such a number asks here: tables, figures, claims of sweep files, searches, and the lines that end
a run. A new number is one entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher"]
IN_EVALUATIONS = "val_"  # an evaluation logs such a number under the rest of its name


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of summary.json.

    `header` and `axis` name it in tables and figures. `factor` turns the stored value into the unit that is shown, with
    `digits` behind the point. `better` is None where neither direction is. `words` and `unit` are for the lines that
    end a run; without `words` it has none there. `scale` is that of statistics: on "log" differences are of logarithms
    and are shown as ratios, because the spread over seeds grows with the level. `timed`: it depends on the machine.
    """

    column: str
    header: str
    digits: int
    factor: float = 1.0
    better: Better | None = "lower"
    axis: str = ""
    needs_router: bool = False  # a dense model has no such number
    words: str = ""
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"
    timed: bool = False

    @property
    def lower_is_better(self) -> bool:
        """Which direction is better.

        Raises:
            ValueError: neither is.
        """
        if self.better is None:
            raise ValueError(f"{self.column} has no better direction")
        return self.better == "lower"

    @property
    def in_log(self) -> str | None:
        """Its name in the `val` lines of metrics.jsonl; None if evaluations do not measure it."""
        found = self.column.removeprefix(IN_EVALUATIONS)
        return None if found == self.column else found

    def spell(self, value: float, *, sign: bool = False) -> str:
        """`value` as a table shows it."""
        return f"{value * self.factor:{'+' if sign else ''}.{self.digits}f}"

    def on_scale(self, value: float) -> float:
        """`value` on the scale of statistics; -inf where it has none there, NaN below."""
        if self.scale == "linear":
            return value
        return math.log(value) if value > 0 else -math.inf if value == 0 else math.nan

    def spell_effect(self, effect: float) -> str:
        """A difference on the scale of statistics as a table shows it: with a sign, or as a ratio."""
        return self.spell(effect, sign=True) if self.scale == "linear" else f"×{spell_ratio(effect)}"

    def spell_with_unit(self, value: float) -> str:
        """`value` as the lines that end a run show it: with separators and unit."""
        return f"{value * self.factor:,.{self.digits}f}{self.unit}"


# Columns of every table. The first is PRIMARY.
METRICS = (
    Metric("val_loss", "val loss", 4, axis="validation loss (nats a token)", words="validation loss", unit=" nats"),
    Metric("val_perplexity", "perplexity", 2, axis="validation perplexity", words="validation perplexity", scale="log"),
    Metric(
        "val_accuracy", "accuracy %", 2, factor=100.0, better="higher", axis="next-token accuracy (%)",
        words="next-token accuracy", unit="%",
    ),
    Metric(
        "val_maxvio_global", "MaxVio global", 3, axis="MaxVio on validation (0 = balanced)", needs_router=True,
        words="MaxVio, validation set", scale="log",
    ),
    Metric(
        "train_maxvio_batch", "MaxVio batch", 3, axis="MaxVio of a batch, end of training (0 = balanced)",
        needs_router=True, words="MaxVio, batch, last tenth", scale="log",
    ),
)  # fmt: skip
# Columns of tables whose definition asks for them. Both are without their coefficients.
FURTHER = (
    Metric(
        "val_load_balancing_loss", "L_norm", 4, axis="load-balancing loss on validation (1 = balanced)",
        needs_router=True,
    ),
    Metric("val_z_loss", "z-loss", 4, better=None, axis="router z-loss on validation", needs_router=True, scale="log"),
)  # fmt: skip
# What a run is and what it took.
FACTS = (
    Metric("collapsed", "collapsed", 2, axis="share of collapsed runs", needs_router=True),
    Metric("params_total", "parameters", 0, better=None, axis="parameters", words="parameters, total"),
    Metric("params_active", "active parameters", 0, better=None, axis="active parameters", words="parameters, active"),
    Metric("tokens", "tokens", 0, better=None, axis="training tokens", words="tokens"),
    Metric(
        "tokens_per_second", "tokens/s", 0, better="higher", axis="tokens per second", words="tokens/s", scale="log",
        timed=True,
    ),
    Metric(
        "share_of_peak", "MFU %", 1, factor=100.0, better="higher", axis="share of the fastest matrix products (%)",
        words="MFU (share of the fastest matrix products)", unit="%", timed=True,
    ),
    # What earlier versions wrote: the share of torch.mm, which other ways to multiply can exceed.
    Metric(
        "share_of_gemm_peak", "share of torch.mm %", 1, factor=100.0, better="higher", axis="share of torch.mm (%)",
        words="share of torch.mm's rate", unit="%", timed=True,
    ),
    Metric("train_seconds", "train s", 1, axis="seconds in training steps", scale="log", timed=True),
    Metric("wall_seconds", "wall s", 1, axis="seconds in all", words="wall time", unit=" s", scale="log", timed=True),
)  # fmt: skip
QUALITY = (*METRICS, *FURTHER)  # a run that is done has each of them as a finite number, or not at all
CATALOGUE = (*QUALITY, *FACTS)
PRIMARY = METRICS[0]  # the one whose differences are tested: one family of tests a table
BY_COLUMN = {metric.column: metric for metric in CATALOGUE}
# What a search may optimise: evaluations measure it on the way, and one direction is better.
SEARCHABLE = tuple(metric for metric in CATALOGUE if metric.in_log and metric.better)


def spell_probability(probability: float) -> str:
    """A probability in percent; never 0% or 100%, which no number of runs shows."""
    if probability < 0.001 or probability > 0.999:
        return "<0.1%" if probability < 0.5 else ">99.9%"
    return f"{probability:.1%}"


def spell_ratio(log_ratio: float) -> str:
    """A ratio, given as its logarithm, with three digits, zeros among them; from 1,000 on all before the point."""
    ratio = math.exp(min(log_ratio, 700.0))
    return f"{ratio:,.0f}" if 999.5 <= ratio < 1e9 else f"{ratio:#.3g}".rstrip(".")


def metric_of(column: str) -> Metric:
    """The metric of a column; a number of summary.json that is not in the catalogue is shown as it is stored."""
    return BY_COLUMN.get(column) or Metric(column, column, 4, better=None, axis=column)
