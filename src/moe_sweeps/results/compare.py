"""Differences between the arms of a table and its baseline: what is tested, and what is said of it.

The test is that of verdicts.py, and the verdict follows from its corrected p alone. Seeds are blocks only where every
arm began alike at every seed that it shares, and only where that is shown to matter (blocks.py). Numbers are compared
on their metric's scale (records/numbers.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_sweeps.records.numbers import Metric
from moe_sweeps.records.words import BETTER, NO_VERDICT, ONE_SEED, UNDECIDED, WORSE
from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import LEVEL, level_of_look
from moe_sweeps.results.moderated import Array
from moe_sweeps.results.verdicts import Family, against_baseline, to_baseline

PAIRED, INDEPENDENT, SINGLE = "paired by seed", "independent", "one seed"
POWER = 0.8
_NORMAL_POWER = 0.8416  # the normal quantile of POWER
# A spread of this many units in the last place is rounding: R's t.test calls such data constant and refuses, too.
_ROUNDING = 10 * 2.0**-52


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of an arm by seed, and what each seed's runs began with; None if that is not known.

    `forked`: the seeds are trunks, which are blocks by design.
    """

    values: Mapping[object, float]
    pairing: Mapping[object, object | None]
    forked: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arm minus baseline on the metric's scale. What the runs do not allow is None.

    `n` are the runs of both sides. The interval holds for all arms of the table at once. `p` is two-sided, `p_family`
    corrected; `level` is what it is held against, at this look of `looks`. `detectable` is a number for planning: what
    a table of this spread finds with a chance of POWER. `lost` seeds of either side diverged or were stopped: those
    that are left flatter their arm, so there is no verdict.
    """

    metric: Metric
    kind: str
    n: tuple[int, int]
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_family: float | None = None
    detectable: float | None = None
    level: float = LEVEL
    lost: int = 0
    mixed: bool = False  # the two sides rest on several versions of code or data
    barred: str = ""  # what else keeps the numbers of the table from being compared
    tail: float | None = None  # two-sided, of this arm alone: see probability_better

    @property
    def decided(self) -> bool:
        """The corrected test has found a difference."""
        return self.p_family is not None and self.p_family < self.level and self.comparable

    @property
    def comparable(self) -> bool:
        """Nothing keeps the two sides from being compared."""
        return not (self.lost or self.mixed or self.barred)

    @property
    def grey(self) -> bool:
        """Nothing was found."""
        return not self.decided

    @property
    def better(self) -> bool:
        """The arm is on the good side of the baseline, found or not."""
        return (self.difference < 0) == self.metric.lower_is_better

    @property
    def probability_better(self) -> float | None:
        """The probability that the arm is better than the baseline, by the test behind the verdict; None without one.

        It is 1 - tail / 2 on the good side and tail / 2 on the bad one, with the larger of the two tails of
        contrasts.py, without the factors that calibrate the second. On moderated variances that is the posterior
        probability of a flat prior on the means (the t-distributions of the grid of d0, by their weights); the tail by
        own spreads can only draw it towards a half. It is of this arm alone, not corrected for the number of arms.
        """
        if self.tail is None or not self.comparable:
            return None
        return 1 - self.tail / 2 if self.better else self.tail / 2

    @property
    def verdict(self) -> str:
        """better, worse, or what keeps it from being either."""
        if self.lost:
            return f"{NO_VERDICT}: {self.lost} diverged or stopped"
        if self.mixed:
            return f"{NO_VERDICT}: mixed code or data"
        if self.barred:
            return f"{NO_VERDICT}: {self.barred}"
        if self.p_family is None:
            return "one seed: nothing can be concluded" if self.kind == SINGLE else "no test: no spread"
        if not self.decided:
            return UNDECIDED
        return (BETTER if self.better else WORSE) + (ONE_SEED if self.kind == SINGLE else "")


def build_fit(samples: Sequence[Sample], metric: Metric, lent: tuple[Array, Array] | None = None) -> Fit | None:
    """The arms as one layout on the metric's scale; None if a value has no place there.

    Values that differ by rounding alone are equal.
    """
    seeds = list(dict.fromkeys(seed for sample in samples for seed in sample.values))
    values = np.full((len(samples), len(seeds)), np.nan)
    for row, sample in zip(values, samples, strict=True):
        for seed, value in sample.values.items():
            row[seeds.index(seed)] = metric.on_scale(value)
        if not np.isfinite(row[[seeds.index(seed) for seed in sample.values]]).all():
            return None
        known = np.isfinite(row)
        if known.any() and np.nanstd(row) <= _ROUNDING * np.nanmax(np.abs(row)):
            row[known] = row[known][0]
    forked = all(sample.forked for sample in samples)
    return Fit.of(values, blocks=began_alike(samples), others=None if forked else lent, by_design=forked)


def has_spread(fit: Fit) -> bool:
    """Whether seeds move anything by more than rounding: if not, there is nothing to test by."""
    size = float(np.abs(fit.layout.means).max())
    return bool(fit.squares.sum() > (_ROUNDING * size) ** 2)


def began_alike(samples: Sequence[Sample]) -> bool:
    """Whether at every seed all arms that have it began with the same weights and saw the same batches."""
    starts: dict[object, set[object]] = {}
    for sample in samples:
        for seed in sample.values:
            starts.setdefault(seed, set()).add(sample.pairing.get(seed))
    return all(len(found) == 1 and None not in found for found in starts.values())


def compare_all(
    samples: Mapping[str, Sample], baseline: str, metric: Metric, *, lent: tuple[Array, Array] | None = None,
    look: int = 1,
) -> dict[str, Comparison]:  # fmt: skip
    """Every other arm minus the arm `baseline`, as one family; arms without a value are left out.

    An arm with one run is judged by the spread of the others, if there is any. After the last look there is no level
    left, and so no interval.
    """
    there = {arm: sample for arm, sample in samples.items() if sample.values}
    if baseline not in there or len(there) < 2:
        return {}
    arms = [baseline, *(arm for arm in there if arm != baseline)]
    fit = build_fit([there[arm] for arm in arms], metric, lent)
    counts = [len(there[arm].values) for arm in arms]
    if fit is None:
        return {}
    level, found = level_of_look(look), {}
    family, detectable = _judged(fit, level)
    for place, arm in enumerate(arms[1:]):
        single = min(counts[place + 1], counts[0]) == 1
        kind = SINGLE if single else PAIRED if bool(fit.layout.blocked) else INDEPENDENT
        n = counts[place + 1], counts[0]
        difference = float(fit.difference(to_baseline(fit.arms))[place])
        low, high, p, p_family, least, tail = _numbers(family, detectable, place)
        found[arm] = Comparison(metric, kind, n, difference, low, high, p, p_family, least, level, tail=tail)
    return found


def _judged(fit: Fit, level: float) -> tuple[Family | None, Array | None]:
    """The family of all arms, and what can be detected."""
    if not has_spread(fit):
        return None, None
    contrasts = to_baseline(fit.arms)
    if not level:
        return against_baseline(fit, single=True, intervals=False), np.full(len(contrasts), np.nan)
    half = fit.half_width(contrasts, level / len(contrasts), level)
    return against_baseline(fit, level=level, single=True), half + _NORMAL_POWER * fit.error(contrasts)


def _numbers(family: Family | None, detectable: Array | None, place: int) -> tuple[float | None, ...]:
    """low, high, p, p_family, detectable and tail of one arm."""
    if family is None or detectable is None or not np.isfinite(family.p_family[place]):
        return (None,) * 6
    parts = (family.low, family.high, family.p, family.p_family, detectable, family.tail)
    return tuple(float(part[place]) if np.isfinite(part[place]) else None for part in parts)
