"""What a plan can find: the very test of the tables, on simulated runs of the plan's own shape.

Arms, seeds, correction and pairing are those of the plan, so that a promise and a table cannot disagree. The detectable
difference is a number for planning: the verdict never asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.moderated import Array
from moe_sweeps.results.verdicts import to_baseline

TABLES = 800  # simulated; a rate of 80% is known to ±2.8 points
POWER = 0.8
MOST_SEEDS = 1000
_SEED = 20261128
_EXACT_TO = 40  # seeds; beyond, the spread is known and the test is as good as normal


@dataclass(frozen=True, slots=True)
class Shape:
    """A plan: how many arms with the baseline, the seeds of each, and how strongly seeds move all arms together.

    `paired`: whether runs of one seed begin alike. `lent`: degrees of freedom of alike arms that lend their spread.
    `counts`: the seeds of each arm where they are not equal, the baseline's first; what is asked is asked of the next.
    `by_design`: seeds are trunks of forks, which are blocks without being shown to matter; the unit of an effect is
    then the standard deviation of an arm within trunks.
    """

    arms: int
    seeds: int
    correlation: float = 0.0
    paired: bool = True
    lent: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    by_design: bool = False

    @property
    def testable(self) -> bool:
        """Whether a table of this shape tests anything: some arm has two seeds, or alike ones lend their spread."""
        return bool(self.lent) or max(self.counts or (self.seeds,)) > 1


def power(shape: Shape, effect: float, *, level: float = FIRST) -> float:
    """The chance that a table of this shape calls one arm different whose true difference is `effect`, in units of
    the standard deviation of one run; the other arms are like the baseline."""
    if not shape.testable:
        return 0.0
    noise, needed = _needed(shape, level)
    return float(np.mean(np.abs(noise + effect) > needed))


def detectable(shape: Shape, *, chance: float = POWER, level: float = FIRST) -> float | None:
    """The difference, in standard deviations of one run, that is found with this chance; None where nothing is."""
    if not shape.testable:
        return None
    return _inverse(lambda effect: power(shape, effect, level=level) >= chance, 1.0)


def seeds_for(shape: Shape, effect: float, *, chance: float = POWER, level: float = FIRST) -> int | None:
    """The fewest seeds an arm, two at least, that find `effect` (in standard deviations) with this chance; None above
    MOST_SEEDS."""
    if effect <= 0:
        raise ValueError(f"a difference to detect is above 0, not {effect}")
    return _fewest(lambda seeds: power(_with(shape, seeds), effect, level=level) >= chance)


def power_to_decide(shape: Shape, effect: float, margin: float, *, level: float = FIRST) -> float:
    """The chance that two arms are called different, or equivalent within `margin`, if `effect` is their difference."""
    if not shape.testable or shape.arms != 2:
        return 0.0
    noise, needed = _needed(shape, level)
    _, one_sided = _needed(shape, 2 * level)  # equivalence is two one-sided tests at the level (equivalence.py)
    seen = np.abs(noise + effect)
    return float(np.mean((seen > needed) | (seen + one_sided < margin)))


def seeds_to_decide(
    shape: Shape, effect: float, margin: float, *, chance: float = POWER, level: float = FIRST
) -> int | None:
    """The fewest seeds an arm that do so with this chance; None above MOST_SEEDS."""
    return _fewest(lambda seeds: power_to_decide(_with(shape, seeds), effect, margin, level=level) >= chance)


def _fewest(finds: Callable[[int], bool]) -> int | None:
    """The fewest seeds, two at least, of which `finds` is true; None above MOST_SEEDS."""
    low, high = 1, 2
    while not finds(high):
        if high >= MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return high


def _with(shape: Shape, seeds: int) -> Shape:
    return replace(shape, seeds=seeds, counts=())


@cache
def _needed(shape: Shape, level: float) -> tuple[Array, Array]:
    """What noise adds to a difference in each simulated table, and how large the difference must be to be called.

    Beyond _EXACT_TO seeds both are those of that many, made smaller by the root of the ratio.
    """
    if shape.seeds > _EXACT_TO and not shape.counts:
        noise, needed = _needed(_with(shape, _EXACT_TO), level)
        shrink = float(np.sqrt(_EXACT_TO / shape.seeds))
        return noise * shrink, needed * shrink
    random = np.random.default_rng([_SEED, shape.arms, shape.seeds])
    runs = simulate(random, TABLES, shape)
    lent = None
    if shape.lent:
        freedom = np.asarray(shape.lent, float)
        lent = random.chisquare(freedom, (TABLES, len(freedom))), np.broadcast_to(freedom, (TABLES, len(freedom)))
    fit = Fit.of(runs, blocks=shape.paired, others=lent, by_design=shape.by_design)
    family = to_baseline(shape.arms)
    noise = fit.difference(family[:1])[:, 0]
    needed = fit.half_width(family[:1], level / len(family), level, family=family)[:, 0]
    return noise, needed


def simulate(random: np.random.Generator, tables: int, shape: Shape) -> Array:
    """Runs (tables, arms, seeds) without any difference, with standard deviation 1, NaN beyond an arm's seeds."""
    own = random.standard_normal((tables, shape.arms, shape.seeds))
    common = random.standard_normal((tables, 1, shape.seeds)) if shape.paired else np.zeros((1, 1, 1))
    share = shape.correlation if shape.paired else 0.0
    found: Array = np.sqrt(1 - share) * own + np.sqrt(share) * common
    if shape.counts:
        found = np.where(np.arange(shape.seeds) < np.asarray(shape.counts)[:, None], found, np.nan)
    return found


def _inverse(enough: Callable[[float], bool], start: float) -> float:
    low, high = 0.0, start
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
