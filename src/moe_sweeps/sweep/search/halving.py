"""Asynchronous successive halving (ASHA; Li et al., arXiv 1810.05934): which trial is promoted from a rung.

A rung is a number of steps. Values are better the lower they are; infinity stands for a trial that diverged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


def rungs_below(steps: int, min_steps: int | None, reduction: int) -> tuple[int, ...]:
    """min_steps * reduction^i for all i where that is below `steps`, ascending; none without `min_steps`."""
    found: list[int] = []
    rung = min_steps
    while rung is not None and rung < steps:
        found.append(rung)
        rung *= reduction
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Rung:
    """Trial -> value, of all trials that ever reached the rung; the trials that were promoted from it; and those that
    are lost, here or further on: diverged, failed or cancelled."""

    values: Mapping[int, float]
    promoted: AbstractSet[int]
    lost: AbstractSet[int] = frozenset()

    def promotable(self, reduction: int, at_least: int = 0) -> int | None:
        """The best trial of the top 1/reduction that is not promoted yet, of equals the earlier; None if all are.

        A diverged trial counts in the size of the rung and is never promoted. Of the trials that are not lost, at least
        `at_least` belong to the top.
        """
        ranked = sorted(self.values, key=lambda trial: (self.values[trial], trial))
        kept = [trial for trial in ranked if trial not in self.lost]
        best = [*ranked[: len(ranked) // reduction], *kept[:at_least]]
        return next((t for t in best if t not in self.promoted and math.isfinite(self.values[t])), None)


def next_promotion(rungs: Sequence[Rung], reduction: int, *, at_the_end: bool = False) -> tuple[int, int] | None:
    """(rung, trial) of the next promotion, the highest rung first; None while there is none.

    `at_the_end`, when no further trial will come, one trial of each rung is promoted even if the rung has fewer than
    `reduction`: otherwise a short search could end without a single run trained to its end.
    """
    for level in reversed(range(len(rungs))):
        trial = rungs[level].promotable(reduction, at_least=int(at_the_end))
        if trial is not None:
            return level, trial
    return None


def expected_steps(trials: int, rungs: Sequence[int], steps: int, reduction: int) -> int:
    """Training steps of `trials` if each rung promotes 1/reduction of them, and at least one."""
    total, before, left = 0, 0, trials
    for rung in (*rungs, steps):
        total += left * (rung - before)
        before, left = rung, max(1, left // reduction)
    return total
