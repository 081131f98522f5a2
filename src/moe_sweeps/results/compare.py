"""Differences between the arms of a table and its baseline: paired or not, corrected, and against what can be detected.

Two arms are compared by seed (paired t-test) where initial weights and batches of each seed are the same, otherwise as
two independent samples with unequal variances (Welch's t-test), and the table says which. The p-values of a table are
corrected together (Holm 1979). Arms are called better or worse only if the corrected p-value is below LEVEL *and* the
difference is at least the minimum detectable effect: what so many seeds show with a chance of POWER at the level of
Holm's first step. A single seed decides nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from scipy import stats  # type: ignore[import-untyped]

from moe_sweeps.results.stats import CONFIDENCE, t_quantile

LEVEL, POWER = 1 - CONFIDENCE, 0.8
PAIRED, WELCH, SINGLE = "paired", "Welch", "one seed"
# A spread of this many units in the last place is rounding: R's t.test calls such data constant and refuses, too.
_ROUNDING = 10 * 2.0**-52


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of an arm by seed, and what each seed's runs began with; None if that is not known."""

    values: Mapping[object, float]
    pairing: Mapping[object, object | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arm minus baseline. What the number of seeds does not allow is None.

    `n` counts pairs, or the seeds of both sides. `p` is two-sided, `p_holm` corrected over the table. `detectable` is
    the minimum detectable effect, with one seed the noise floor. `lower_is_better` says which sign is good.
    `lost` seeds of either side diverged or were stopped: those that are left flatter their arm, so there is no verdict.
    """

    kind: str
    n: tuple[int, ...]
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    lower_is_better: bool = True
    lost: int = 0
    mixed: bool = False  # the two sides rest on several versions of code or data

    @property
    def grey(self) -> bool:
        """The difference is smaller than what can be told from noise here, or nothing is known about the noise."""
        return self.detectable is None or abs(self.difference) < self.detectable

    @property
    def verdict(self) -> str:
        """better, worse, or what keeps it from being either."""
        if self.lost:
            return f"no verdict: {self.lost} diverged or stopped"
        if self.mixed:
            return "no verdict: mixed code or data"
        if self.kind == SINGLE:
            return "one seed: nothing can be concluded" if self.grey else "above the noise floor, but one seed"
        if self.p_holm is None:
            return "no test: no spread"
        if self.p_holm >= LEVEL or self.grey:
            return "no detectable difference"
        return "better" if (self.difference < 0) == self.lower_is_better else "worse"


def compare(
    arm: Sample, baseline: Sample, *, lower_is_better: bool = True, confidence: float = CONFIDENCE
) -> Comparison | None:
    """The difference of two arms; None if one of them has no value.

    Paired over the seeds that both have, if at every one of them both began with the same weights and batches. A
    sample without spread, as R's t.test has it, is not tested: equal digits are rounding or a copy, not certainty.
    """
    if not arm.values or not baseline.values:
        return None
    shared = [seed for seed in arm.values if seed in baseline.values]
    paired = bool(shared) and all(_same_start(arm, baseline, seed) for seed in shared)
    if paired:
        found = _paired([arm.values[s] - baseline.values[s] for s in shared], _size(arm, baseline), confidence)
    else:
        found = _welch(list(arm.values.values()), list(baseline.values.values()), confidence)
    return replace(found, lower_is_better=lower_is_better)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being the best of many (S. Holm, Scandinavian Journal of Statistics 6, 1979, p. 65).

    The i-th smallest of m is multiplied by m - i + 1, i from 1, made monotone from below and cut at 1.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable_effect(sd: float, n: tuple[int, ...], *, level: float = LEVEL, power: float = POWER) -> float | None:
    """The smallest true difference that a two-sided t-test finds with a chance of `power`.

    `sd` is that of the differences and `n` their number (one entry), or `sd` that of one run and `n` the sizes of two
    samples. From the noncentral t distribution (Cohen, Statistical Power Analysis, 1988, chapter 2). None below n = 2.
    """
    freedom = sum(n) - len(n)
    if min(n) < 2:
        return None
    scale = sd * math.sqrt(sum(1 / k for k in n))
    return _shift(freedom, level, power) * scale


def complete(comparisons: Mapping[str, Comparison], sd_difference: float | None, sd_run: float | None,
             floor: float | None) -> dict[str, Comparison]:  # fmt: skip
    """The comparisons of one table with corrected p-values and detectable effects.

    `sd_difference` and `sd_run` are the table's spreads of a paired difference and of a run, pooled over its arms;
    `floor` is the difference that seeds alone exceed in one case of twenty.
    """
    tested = {arm: c.p for arm, c in comparisons.items() if c.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    level = LEVEL / max(1, len(tested))
    done = {}
    for arm, found in comparisons.items():
        sd = sd_difference if found.kind == PAIRED else sd_run
        effect = floor if found.kind == SINGLE else None if sd is None else detectable_effect(sd, found.n, level=level)
        done[arm] = replace(found, p_holm=adjusted.get(arm), detectable=effect)
    return done


def pooled_sd(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Standard deviation within groups and its degrees of freedom; None if no group has two values."""
    several = [g for g in groups if len(g) > 1]
    freedom = sum(len(g) - 1 for g in several)
    if not freedom:
        return None
    return math.sqrt(sum(statistics.variance(g) * (len(g) - 1) for g in several) / freedom), freedom


def differences(arm: Sample, baseline: Sample) -> list[float]:
    """Arm minus baseline at every seed that both have."""
    return [value - baseline.values[seed] for seed, value in arm.values.items() if seed in baseline.values]


def _same_start(a: Sample, b: Sample, seed: object) -> bool:
    start = a.pairing.get(seed)
    return start is not None and start == b.pairing.get(seed)


def _size(a: Sample, b: Sample) -> float:
    return max(abs(v) for v in (*a.values.values(), *b.values.values()))


def _paired(found: list[float], size: float, confidence: float) -> Comparison:
    n, mean = len(found), statistics.fmean(found)
    if n == 1:
        return Comparison(SINGLE, (1,), mean)
    error = statistics.stdev(found) / math.sqrt(n)
    if error <= _ROUNDING * size:
        return Comparison(PAIRED, (n,), mean)
    half = t_quantile(0.5 + confidence / 2, n - 1) * error
    return Comparison(PAIRED, (n,), mean, mean - half, mean + half, float(stats.ttest_1samp(found, 0.0).pvalue))


def _welch(a: list[float], b: list[float], confidence: float) -> Comparison:
    n, mean = (len(a), len(b)), statistics.fmean(a) - statistics.fmean(b)
    if min(n) == 1:
        return Comparison(SINGLE, n, mean)
    size = max(map(abs, (*a, *b)))
    if math.sqrt(statistics.variance(a) / n[0] + statistics.variance(b) / n[1]) <= _ROUNDING * size:
        return Comparison(WELCH, n, mean)
    test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(confidence)
    return Comparison(WELCH, n, mean, float(low), float(high), float(test.pvalue))


@cache
def _shift(freedom: int, level: float, power: float) -> float:
    """The noncentrality at which a t-test has this power, by bisection."""
    critical = t_quantile(1 - level / 2, freedom)
    low, high = 0.0, 2 * critical + 20 * math.sqrt(1 + critical**2 / freedom)
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        found = float(stats.nct.sf(critical, freedom, middle))  # the other tail is nothing at this power
        low, high = (middle, high) if found < power else (low, middle)
    return high
