"""Which arms of a table a figure shows where it has no room for all."""

from __future__ import annotations

import math

from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.results.tables import Arm, Table

MOST_ARMS = 8  # lines that can be told apart


def chosen(table: Table, most: int = MOST_ARMS) -> list[Arm]:
    """All arms with a finished run, or of many the baseline and the best, in the order of the design."""
    arms = [arm for arm in table.arms if arm.done]
    if len(arms) <= most:
        return arms
    best = ranked(table)[:most]
    return [arm for arm in arms if arm in best]


def ranked(table: Table) -> list[Arm]:
    """The arms with a finished run: the baseline, then from the lowest loss to the highest."""
    arms = [arm for arm in table.arms if arm.done]
    return sorted(arms, key=lambda a: (a.arm != table.baseline, _loss(a)))


def _loss(arm: Arm) -> float:
    mean = arm.cells[PRIMARY.column].mean
    return math.inf if mean is None else mean
