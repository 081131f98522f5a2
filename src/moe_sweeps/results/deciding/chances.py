"""The chance that further seeds decide something: the power functions of `plan --detect`, given what was seen so far.

Everything is in standard deviations of one run. Pairs of arms with n seeds each were seen `away` from the value that
they are held against; the true distance is taken from N(0, PRIOR²) times what was seen, and a later table finds it if
the distance seen then is beyond `critical`, where a table of that shape has even chances.
"""

from __future__ import annotations

import math
from functools import cache

from scipy.special import ndtr  # type: ignore[import-untyped]
from scipy.stats import chi2  # type: ignore[import-untyped]

from moe_sweeps.results.power import Shape, detectable

PRIOR = 2.0  # how far apart arms are taken to be before anything is seen: published effects are 0.2 to 5
_STEPS = (2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40)  # seeds at which tables are simulated


def critical(seeds: float, family: int, level: float) -> float:
    """The distance that a table of so many seeds an arm calls found at this level, corrected over `family` tests.

    Seeds may be a fraction: arms with 4 and 12 know their difference as well as two with 6.
    """
    if seeds < 2 or level <= 0:
        return math.inf
    if seeds >= _STEPS[-1]:
        return _simulated(_STEPS[-1], family, level) * math.sqrt(_STEPS[-1] / seeds)
    place = next(i for i, step in enumerate(_STEPS) if step > seeds)
    low, high = _STEPS[max(place - 1, 0)], _STEPS[place]
    if seeds == low:
        return _simulated(low, family, level)
    share = math.log(seeds / low) / math.log(high / low)
    ends = (math.log(_simulated(n, family, level)) for n in (low, high))
    below, above = ends
    return math.exp(below + share * (above - below))


@cache
def _simulated(seeds: int, family: int, level: float) -> float:
    found = detectable(Shape(max(family, 1) + 1, seeds, paired=False), chance=0.5, level=level)
    assert found is not None  # from two seeds on
    return found


def equal_later(away: float, width: float, seen: float, later: float, inside: float, outside: float) -> float:
    """The chance that a difference is found between two margins, or outside them, with `later` seeds an arm.

    The margins are `width` apart, and with `seen` seeds it was seen `away` from the nearer one, negative outside. It is
    found between them where it is seen `inside` or more from both, and outside where it is seen `outside` beyond one.
    """
    if math.isinf(inside) or math.isinf(outside):
        return 0.0
    mean, sd = _later(width / 2 - away, seen, later)  # from the middle
    half = width / 2

    def beyond(edge: float) -> float:
        if sd == 0:
            return float(mean > edge)
        return float(ndtr((mean - edge) / sd))

    between = max(0.0, beyond(-(half - inside)) - beyond(half - inside)) if half > inside else 0.0
    return between + beyond(half + outside) + 1 - beyond(-(half + outside))


def _later(away: float, seen: float, later: float) -> tuple[float, float]:
    """Mean and sd of what `later` seeds an arm will show of a difference that `seen` seeds showed as `away`."""
    before, new = 2 / seen, max(later - seen, 0.0)
    weight = PRIOR**2 / (PRIOR**2 + before)
    mean = away * (seen + new * weight) / (seen + new)
    variance = (new / (seen + new)) ** 2 * (weight * before + 2 / new) if new else 0.0
    return mean, math.sqrt(variance)


def found_later(away: float, seen: float, later: float, needed: float, *, one_sided: bool = False) -> float:
    """The chance that a distance seen as `away` with `seen` seeds an arm is beyond `needed`, to either side or above
    alone, with `later` seeds an arm.

    Of the normal model: a prior N(0, PRIOR²), a difference of two means, known spread.
    """
    if math.isinf(needed):
        return 0.0
    mean, sd = _later(away, seen, later)
    if sd == 0:
        return float((mean if one_sided else abs(mean)) > needed)
    below = 0.0 if one_sided else ndtr((-mean - needed) / sd)
    return float(ndtr((mean - needed) / sd) + below)


def spread_found_later(ratio: float, later: int, level: float) -> float:
    """The chance that a standard deviation `ratio` times its bound is told from the bound by `later` seeds: the
    chi-squared test, if the spread is what it looks like."""
    if later < 2 or ratio <= 0 or level <= 0:
        return 0.0
    low, high = chi2.ppf([level / 2, 1 - level / 2], later - 1) / ratio**2
    return float(chi2.cdf(low, later - 1) + chi2.sf(high, later - 1))
