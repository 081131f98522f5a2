"""Tests and intervals of differences between arms: one machine for tables, claims, recommendations and plans.

A contrast c compares arms: sum_i c_i mean_i, with variance V = sum_i c_i² v_i / n_i. It must hold twice.

1. On moderated variances (moderated.py): p = sum over d0 of weight * 2 T(-|d| / sqrt(V)), on the fewest degrees of
   freedom that an arm in it has. This is what is corrected for the size of the family.
2. On each arm's own spread: one arm of several may be noisier than all others, and nothing that the others say is
   true of it. So V is taken with arm i's own variance, for every i in turn, on Satterthwaite's degrees of freedom
   (Biometrics Bulletin 2, 1946, p. 110), and the largest p is multiplied by a factor that does not grow with the
   family,
   since it guards against one arm: 2, half of the error budget (1 for a single difference, where nothing else can go
   wrong); times ((1 + m) / 2)^(1/4) for an arm that stands in m differences, as a baseline does. Two seeds hardly know
   their spread: there the factor is a quarter larger and the degrees of freedom the geometric mean with the fewest.

With two spreads in all there is nothing to learn from others: that is Welch's test. The factors are calibrated
(benchmarks/evidence.py, docs/results.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import stdtr  # type: ignore[import-untyped]

from moe_sweeps.results.blocks import Layout, lay_out
from moe_sweeps.results.moderated import Array, Flags, Moderated, moderate

_STEPS = 40  # to the end of an interval that is known to a factor of 4; eight do as a rule
_CLOSE = 1e-11  # of its logarithm, and of the chance there


@dataclass(frozen=True)
class Fit:
    """K arms (..., K) whose means are known with these spreads. Arms after the first `arms` only lend their spread."""

    layout: Layout
    squares: Array
    freedom: Array
    arms: int

    @classmethod
    def of(
        cls,
        values: Array,
        *,
        blocks: Flags | bool = True,
        others: tuple[Array, Array] | None = None,
        by_design: bool = False,
    ) -> Fit:
        """The fit of `values` (..., K, N), NaN where a run is missing.

        `others`: sums of squares and degrees of freedom (..., M) of alike arms that are not in the comparison.
        `by_design`: what may be blocks is taken for blocks (blocks.py).
        """
        layout = lay_out(values, blocks=blocks, by_design=by_design)
        squares, freedom = layout.squares, layout.freedom
        if others is not None:
            lead = squares.shape[:-1]
            squares, freedom = (
                np.concatenate([own, np.broadcast_to(more, (*lead, np.shape(more)[-1]))], -1)
                for own, more in zip((squares, freedom), others, strict=True)
            )
        return cls(layout, squares, freedom, values.shape[-2])

    @cached_property
    def spread(self) -> Moderated:
        """Moderated variances of the compared arms, learnt from all."""
        found = moderate(self.squares, self.freedom)
        k = self.arms
        return Moderated(found.weights, found.single, found.variances[..., :k], found.freedom[..., :k], found.cap)

    @cached_property
    def learns(self) -> Flags:
        """Where (...) more than two spreads are known, so that one can be held against the others."""
        found: Flags = (self.freedom > 0).sum(-1) > 2
        return found

    def difference(self, contrasts: Array) -> Array:
        """The contrasts (M, K) of the means, (..., M)."""
        return self.layout.means @ contrasts.T

    def tails(
        self, contrasts: Array, distance: Array, *, sides: int = 2, family: Array | None = None, plain: bool = False
    ) -> tuple[Array, Array]:
        """Chances (..., M) that noise alone moves the contrasts (M, K) this far: moderated, and by own spreads.

        `distance` (..., M) is in the metric's unit; `sides` is 2 for an absolute value, 1 for a direction; `family`
        are all the contrasts that are tested together, where these are some of them. `plain`: the second as it is,
        without the factors that calibrate it.
        """
        per_run = 1 / np.maximum(self.layout.counts, 1)
        each = per_run[..., None, :] * contrasts**2  # (..., M, K)
        extra = self._block_variance(contrasts)
        factors = self._factors(contrasts, contrasts if family is None else family)
        factors = factors * np.where(self.layout.counts < 3, 1.25, 1)[..., None, :]
        factors = np.ones(contrasts.shape) if plain else factors
        own = self._own(contrasts, each, extra, distance, sides, factors)
        welch = self._welch(each, extra, distance, sides)
        learns = self.learns[..., None] | self._has_single(contrasts)
        moderated = self._moderated(contrasts, each, extra, distance, sides)
        return np.where(learns, moderated, welch), np.where(learns, own, welch)

    def half_width(
        self, contrasts: Array, level: Array | float, own_level: Array | float, *, family: Array | None = None
    ) -> Array:
        """How far (..., M) a contrast must be from a value to contradict it at these levels of the two tests."""

        def above(distance: Array) -> Array:
            """Above 0 where one of the two tests holds."""
            tails = self.tails(contrasts, distance, family=family)
            with np.errstate(divide="ignore"):
                logs = [np.log(p) - np.log(at) for p, at in zip(tails, (level, own_level), strict=True)]
            found: Array = np.maximum(*logs)
            return found

        return _edge(above, self.error(contrasts))

    def error(self, contrasts: Array) -> Array:
        """The standard errors (..., M) of the contrasts, on moderated variances."""
        variance = (self.spread.mean / np.maximum(self.layout.counts, 1))[..., None, :] * contrasts**2
        found: Array = np.sqrt(variance.sum(-1) + self._block_variance(contrasts))
        return found

    def select(self, places: Sequence[int]) -> Fit:
        """The arms at these places alone, in this order; the others lend their spread."""
        rest = [i for i in range(self.squares.shape[-1]) if i not in places]
        order, layout = [*places, *rest], self.layout
        of_arms = {name: getattr(layout, name)[..., places] for name in ("means", "counts", "squares", "freedom")}
        chosen = replace(layout, here=layout.here[..., places, :], **of_arms)
        return Fit(chosen, self.squares[..., order], self.freedom[..., order], len(places))

    def mirrored(self) -> Fit:
        """The same with every value negated."""
        return replace(self, layout=replace(self.layout, means=-self.layout.means))

    def _moderated(self, contrasts: Array, each: Array, extra: Array, distance: Array, sides: int) -> Array:
        used = contrasts != 0
        total = np.zeros(distance.shape)
        spread = self.spread
        weights = np.where(self._has_single(contrasts), spread.single[..., None], spread.weights[..., None])
        for weight, variance, freedom in zip(weights, spread.variances, spread.freedom, strict=True):
            error = np.sqrt((variance[..., None, :] * each).sum(-1) + extra)
            fewest = np.where(used, freedom[..., None, :], np.inf).min(-1)
            fewest = np.minimum(fewest, spread.cap[..., None])
            total += weight * sides * stdtr(fewest, -distance / error)
        return total

    def _has_single(self, contrasts: Array) -> Flags:
        """Which contrasts (..., M) have an arm without a spread of its own."""
        found: Flags = ((contrasts != 0) & (self.layout.freedom == 0)[..., None, :]).any(-1)
        return found

    def _own(self, contrasts: Array, each: Array, extra: Array, distance: Array, sides: int, factors: Array) -> Array:
        """The largest of the tests with one arm's own spread, each times its factor; 0 where none has one."""
        squares, freedom = self.layout.squares, self.layout.freedom
        known = (freedom > 0)[..., None, :] & (contrasts != 0)
        own = squares / np.maximum(freedom, 1e-12)
        parts, fewest = self.spread.mean[..., None, :] * each, self.spread.mean_freedom[..., None, :]
        mine = own[..., None, :] * each
        error = parts.sum(-1)[..., None] - parts + mine  # (..., M, K): arm k's variance is its own
        spread = (parts**2 / fewest).sum(-1)[..., None] - parts**2 / fewest
        spread = np.maximum(spread, 0) + mine**2 / np.maximum(freedom, 1e-12)[..., None, :]
        error = error + extra[..., None]
        degrees = np.where(known, error**2 / np.where(known, spread, 1), 1)
        lowest = np.minimum(np.where(contrasts != 0, fewest, np.inf).min(-1)[..., None], freedom[..., None, :])
        two_seeds = (self.layout.counts < 3)[..., None, :]
        degrees = np.where(two_seeds & known, np.sqrt(degrees * np.where(known, lowest, 1)), degrees)
        safe = np.sqrt(np.where(known & (error > 0), error, 1))
        found = sides * stdtr(degrees, -distance[..., None] / safe) * factors
        largest: Array = np.where(known & (error > 0), found, 0).max(-1)
        return largest

    def _welch(self, each: Array, extra: Array, distance: Array, sides: int) -> Array:
        freedom = self.layout.freedom
        parts = (self.layout.squares / np.maximum(freedom, 1e-12))[..., None, :] * each
        error = parts.sum(-1) + extra
        spread = (parts**2 / np.maximum(freedom, 1e-12)[..., None, :]).sum(-1)
        possible = (error > 0) & (spread > 0) & ((each == 0) | (freedom > 0)[..., None, :]).all(-1)
        degrees = np.where(possible, error**2 / np.where(possible, spread, 1), 1)
        found = sides * stdtr(degrees, -distance / np.sqrt(np.where(possible, error, 1)))
        return np.where(possible, found, 1)

    def _factors(self, contrasts: Array, family: Array) -> Array:
        """(M, K): what the p of a test on an arm's own spread is multiplied by."""
        stands_in = (family != 0).sum(0)
        share = 1.0 if len(family) == 1 else 2.0
        return np.broadcast_to(share * ((1 + stands_in) / 2) ** 0.25, contrasts.shape)

    def _block_variance(self, contrasts: Array) -> Array:
        """What blocks add to the variance of contrasts (..., M) where arms do not have the same seeds."""
        per_run = self.layout.here / np.maximum(self.layout.counts, 1)[..., None]
        of_block = np.einsum("mk,...kn->...mn", contrasts, per_run)
        found: Array = (of_block**2 * self.layout.block_variance[..., None, :]).sum(-1)
        return found


def _edge(above: Callable[[Array], Array], scale: Array) -> Array:
    """Where `above`, which falls on the way out from 0, reaches 0: bracketed by factors of 4 around `scale` first."""
    low, high = scale.copy(), scale.copy()
    for _ in range(60):  # 4^60: a level of 0 is never reached, and the interval is as good as unlimited
        inside = above(high) >= 0
        if not inside.any():
            break
        low, high = np.where(inside, high, low), np.where(inside, 4 * high, high)
    low = np.where(low == high, low / 4, low)  # it was outside at once
    while (outside := above(low) < 0).any():
        low = np.where(outside, low / 4, low)
    found: Array = np.exp(_root(lambda at: above(np.exp(at)), np.log(low), np.log(high)))
    return found


def _root(falling: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The root between `low` and `high`: false position, where a value counts half each time that its end has stayed
    (the Illinois algorithm; Dowell & Jarratt, BIT 11, 1971, p. 168)."""
    at_low, at_high, middle = _bounded(falling(low)), _bounded(falling(high)), low
    right = np.ones(low.shape, bool)
    for step in range(_STEPS):
        apart = np.where(at_low > at_high, at_low - at_high, 1)
        middle = low + (high - low) * np.clip(at_low / apart, 0, 1)
        found = _bounded(falling(middle))
        if np.all((np.abs(found) < _CLOSE) | (high - low < _CLOSE)):
            break
        before, right = right, found > 0
        stays = (before == right) & (step > 0)
        at_low, at_high = (
            np.where(right, found, np.where(stays, at_low / 2, at_low)),
            np.where(right, np.where(stays, at_high / 2, at_high), found),
        )
        low, high = np.where(right, middle, low), np.where(right, high, middle)
    return middle


def _bounded(values: Array) -> Array:
    """Logarithms of chances: one of 0 counts as e^-700."""
    return np.clip(values, -700, 700)
