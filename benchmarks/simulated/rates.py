"""Rates of errors with their limits, and cells that are counted side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from scipy import stats  # type: ignore[import-untyped]

from moe_sweeps.host.hardware import available_cores

Row = dict[str, Any]
T = TypeVar("T")


def upper(hits: int, of: int) -> float:
    """The upper end of the two-sided 95% interval of a rate (Clopper & Pearson, Biometrika 26, 1934, p. 404)."""
    return 1.0 if hits == of else float(stats.beta.ppf(0.975, hits + 1, of - hits))


def percent(row: Row, digits: int = 1) -> str:
    """The rate of a row with `hits` of `of`, without the sign."""
    return f"{100 * row['hits'] / row['of']:.{digits}f}"


def limit(row: Row) -> str:
    """Its upper limit in percent, without the sign."""
    return f"{100 * upper(row['hits'], row['of']):.1f}"


def each(function: Callable[[T], list[Row]], cells: Iterable[T]) -> list[Row]:
    """The rows of all cells in their order, counted in as many processes as there are cores."""
    with ProcessPoolExecutor(available_cores()) as pool:
        return [row for rows in pool.map(function, cells) for row in rows]
