"""The figures of a table: each function draws a Table, or raises NotRecorded with the reason.

Arms differ in dash and marker besides colour, and heat maps get lighter all the way and carry their numbers, so that
all of it can be read in black and white. Bars are intervals of the table's tests; captions say what n is, what each
mark is, and what is not shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from moe_sweeps.reports.charts.along import forest, turning_point
from moe_sweeps.reports.charts.canvas import caption
from moe_sweeps.reports.charts.difference import difference
from moe_sweeps.reports.charts.over import curves, equal_time, maxvio, unreadable_curves
from moe_sweeps.reports.charts.search import history, importances, parallel, slices
from moe_sweeps.reports.charts.spots import heat, tradeoff
from moe_sweeps.results.tables import Table


@dataclass(frozen=True, slots=True)
class Chart:
    """One kind of picture: its heading, how to read it, and its function."""

    title: str
    reading: str
    draw: Callable[[Table], Figure]


OVER_TRAINING = frozenset({"curves", "difference", "maxvio", "equal_time"})  # charts that read metrics.jsonl
CHARTS = {
    "curves": Chart("Loss over training", "Lower is better. Bands reach from the lowest to the highest seed.", curves),
    "difference": Chart(
        "Difference to the baseline over training",
        "Below 0 is a better model than the baseline. Where the shade holds 0, nothing was found at that step.",
        difference,
    ),
    "heat": Chart("Grid", "Lighter is higher; for a loss or MaxVio darker is better.", heat),
    "turning_point": Chart("Along the setting", "Where loss begins to rise, the setting costs quality.", turning_point),
    "maxvio": Chart("Balance over training", "0 is balanced; lower is better.", maxvio),
    "forest": Chart("Differences to the baseline", "Left is better; undecided where the bar holds the line.", forest),
    "tradeoff": Chart("Loss against balance", "Down is a better model, left is better balanced.", tradeoff),
    "equal_time": Chart("Loss at equal time", "Read from bottom to top at one second: who is lower then?", equal_time),
    "search_history": Chart("History of the search", "The line is the best so far; hollow marks are no ends.", history),
    "search_slices": Chart("Each setting against the result", "One panel a setting; hollow marks are no ends.", slices),
    "search_parallel": Chart("All settings of a trial", "A line is a trial; the best three are drawn apart.", parallel),
    "search_importances": Chart("Importances by Optuna", "A longer bar tells more of the result here.", importances),
}  # fmt: skip
OF_SEARCHES = ("search_history", "search_slices", "search_parallel", "search_importances")

__all__ = [
    "CHARTS",
    "OF_SEARCHES",
    "OVER_TRAINING",
    "Chart",
    "caption",
    "curves",
    "difference",
    "equal_time",
    "forest",
    "heat",
    "maxvio",
    "tradeoff",
    "turning_point",
    "unreadable_curves",
]
