"""Statements about arms along an axis: it falls all the way, it is best at one of some points.

Both are intersections: every part must be shown, so each part is tested at the full level and the largest p counts
(intersection-union test; Berger, Technometrics 24, 1982, p. 295). What contradicts is a union: one part shown to be
otherwise, its p multiplied by the number of parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.equivalence import p_above
from moe_sweeps.results.moderated import Array

TOLERANCE = 0.1  # of the whole way: how far a curve that falls may turn back up between two points


@dataclass(frozen=True, slots=True)
class Shown:
    """p (moderated, by own spreads) that the statement holds, and that it does not; and the parts, as places of arms,
    that each rests on."""

    p_for: Array
    p_against: Array
    weakest: tuple[int, int]
    opposed: tuple[int, int]


def rises(fit: Fit, by: float = 0.0) -> Shown:
    """Whether the means rise along the order of the arms: the last above the first by more than `by`, and no later
    point below an earlier one by more than TOLERANCE of the whole way.

    Contradicted: the last is not `by` above the first, or a later point is below an earlier one by more than that.
    """
    last = fit.arms - 1
    ends = pair(fit.arms, last, 0)
    places = [(0, last), *(p for p in itertools.combinations(range(fit.arms), 2) if p != (0, last))]
    shown = [2 * p_above(fit, ends, by)[:, 0]]
    against = [2 * p_above(fit, -ends, -by)[:, 0]]
    for i, j in places[1:]:
        step = pair(fit.arms, j, i)
        shown.append(p_above(fit, step + TOLERANCE * ends, 0.0)[:, 0])
        against.append(p_above(fit, -(step + TOLERANCE * ends), 0.0)[:, 0])
    worst, most = _largest(shown), _smallest(against)
    p_for = np.minimum(1, np.max(shown, 0))
    return Shown(p_for, _times(against[most], len(places)), places[worst], places[most])


def lowest_at(fit: Fit, claimed: Sequence[int], ends: Sequence[int] = ()) -> Shown:
    """Whether one of the points `claimed` is below every other; with `ends`, below those too and not one of them.

    For: the claimed point that does best, p times the number of claimed points, since it was picked. Against: a point
    that is below all claimed ones.
    """
    inside = [arm for arm in claimed if arm not in ends]
    others = [arm for arm in range(fit.arms) if arm not in claimed]
    p_for, weakest = _best(fit, inside, sorted({*others, *ends}))
    p_against, opposed = _best(fit, others, list(claimed))
    at = claimed[0]
    return Shown(p_for, p_against, weakest or (at, at), opposed or (at, at))


def pair(arms: int, plus: int, minus: int) -> Array:
    """The contrast (1, arms) of two arms."""
    contrast = np.zeros((1, arms))
    contrast[0, plus] += 1.0
    contrast[0, minus] -= 1.0
    return contrast


def _best(fit: Fit, candidates: Sequence[int], rivals: Sequence[int]) -> tuple[Array, tuple[int, int] | None]:
    """p of "this candidate is below all rivals" for the candidate that does best, times their number."""
    found = {arm: _below_all(fit, arm, [r for r in rivals if r != arm]) for arm in candidates}
    if not found:
        return np.ones(2), None
    best = min(found, key=lambda arm: float(found[arm][0].max()))
    return _times(found[best][0], len(found)), (best, found[best][1])


def _below_all(fit: Fit, arm: int, rivals: Sequence[int]) -> tuple[Array, int]:
    """The largest p of "`arm` is below this rival", and the rival that is hardest to beat."""
    found = [p_above(fit, pair(fit.arms, rival, arm), 0.0)[:, 0] for rival in rivals]
    return np.max(found, 0), rivals[_largest(found)]


def _times(p: Array, count: int) -> Array:
    """Bonferroni for the moderated p; that by own spreads is not corrected."""
    return np.minimum(1, p * [count, 1])


def _largest(found: Sequence[Array]) -> int:
    return int(np.argmax([p.max() for p in found]))


def _smallest(found: Sequence[Array]) -> int:
    return int(np.argmin([p.max() for p in found]))
