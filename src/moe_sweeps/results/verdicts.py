"""Which arms of a table differ from its baseline: one family of tests, with intervals that hold together.

The verdict follows from the corrected test alone. p of the moderated test is corrected over the family (Holm,
Scandinavian Journal of Statistics 6, 1979, p. 65); p by own spreads is not, since it guards against one noisy arm
(contrasts.py); the larger of both is the p of the arm. Intervals are those of the first step (Bonferroni), so they hold
for all arms at once and for whichever is picked afterwards. Where Holm's later steps decide an arm whose interval of
the first step reaches zero, it is cut there: the interval that goes with Holm's test (Strassburger & Bretz, Statistics
in Medicine 27, 2008, p. 4914).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.moderated import Array


@dataclass(frozen=True, slots=True)
class Family:
    """Arms minus baseline (..., K - 1), with p uncorrected and corrected, and simultaneous intervals.

    `tail` is the larger of the two tails, two-sided, without the factors of the test; NaN without intervals.
    """

    difference: Array
    p: Array
    p_family: Array
    low: Array
    high: Array
    tail: Array


def against_baseline(fit: Fit, *, level: float = FIRST, intervals: bool = True, single: bool = False) -> Family:
    """Every arm of `fit` but the first against the first. Without `intervals` those are NaN, and it is much faster.

    `level` is that of the look (looks.py). An arm with one run has no spread of its own to be held against, so it is no
    member of the family (NaN), unless `single`: then it is judged by the spread of the others alone, and nothing guards
    against its being noisier.
    """
    contrasts = to_baseline(fit.arms)
    counts = fit.layout.counts
    tested = np.minimum(counts[..., 1:], counts[..., :1]) >= (1 if single else 2)
    difference = np.where(np.minimum(counts[..., 1:], counts[..., :1]) > 0, fit.difference(contrasts), np.nan)
    moderated, own = fit.tails(contrasts, np.nan_to_num(np.abs(difference)))
    moderated = np.where(tested, moderated, np.nan)
    p = np.maximum(moderated, own)
    corrected = np.maximum(holm(moderated), np.minimum(own, 1))
    if not intervals:
        nothing = np.full(difference.shape, np.nan)
        return Family(difference, np.minimum(p, 1), corrected, nothing, nothing, nothing)
    members = np.maximum(tested.sum(-1, keepdims=True), 1)
    half = np.where(tested, fit.half_width(contrasts, level / members, level), np.nan)
    decided = corrected < level
    low = np.where(decided & (difference > 0), np.maximum(difference - half, 0), difference - half)
    high = np.where(decided & (difference < 0), np.minimum(difference + half, 0), difference + half)
    tail = np.maximum(moderated, fit.tails(contrasts, np.nan_to_num(np.abs(difference)), plain=True)[1])
    return Family(difference, np.minimum(p, 1), corrected, low, high, tail)


def to_baseline(arms: int) -> Array:
    """The contrasts (arms - 1, arms) of every arm with the first."""
    return np.concatenate([-np.ones((arms - 1, 1)), np.eye(arms - 1)], 1)


def holm(p: Array) -> Array:
    """p (..., m) adjusted for being the best of m: the i-th smallest times m - i + 1, never below the one before.

    NaN is no test, and not counted.
    """
    order = np.argsort(p, -1, kind="stable")  # NaN comes last
    steps = np.isfinite(p).sum(-1, keepdims=True) - np.arange(p.shape[-1])
    raised = np.maximum.accumulate(np.minimum(np.take_along_axis(p, order, -1) * steps, 1), -1)
    found = np.empty_like(raised)
    np.put_along_axis(found, order, raised, -1)
    return found
