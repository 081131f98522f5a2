"""What each arm reached and how far its seeds scatter, with or without what a seed does to all arms alike.

At one seed every arm begins with the same weights and sees the same batches, so a seed can move all arms together.
Taking that out (seed = block, a two-way layout) makes the rest smaller, and costs degrees of freedom. It is done where
the correlation is shown, never assumed: where its lower limit at CERTAIN is above zero. Blocks weigh every arm by the
inverse of its moderated variance, so that one noisy arm does not spoil the blocks of the quiet ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import f as f_distribution  # type: ignore[import-untyped]

from moe_sweeps.results.moderated import Array, Flags, moderate

CERTAIN, CERTAIN_OF_TWO = 0.8, 0.975  # one-sided, of the lower limit of the correlation; of a pair of arms alone
_SWEEPS = 10  # of the alternating fit, where runs are missing; complete designs need one


@dataclass(frozen=True, slots=True)
class Layout:
    """K arms with N seeds; `...` are tables that are computed at once.

    `squares` (..., K) are sums of squares around the fit on `freedom` (..., K). `block_variance` (..., N) is that of
    each block, 0 where blocks are not used; `here` (..., K, N) says which runs there are. The correlation of seeds
    has a lower and an upper limit, each at CERTAIN.
    """

    means: Array
    counts: Array
    squares: Array
    freedom: Array
    here: Flags
    block_variance: Array
    blocked: Flags
    correlation: Array
    correlation_low: Array
    correlation_high: Array


def lay_out(values: Array, *, blocks: Flags | bool = True, by_design: bool = False) -> Layout:
    """The layout of `values` (..., K, N), NaN where a run is missing.

    `blocks`: whether seeds may be blocks, which they may where the runs of a seed are known to have begun alike.
    `by_design`: they are then blocks without being shown to matter, as trunks are (nested.py).
    """
    here = np.isfinite(values)
    counts = here.sum(-1).astype(float)
    filled = np.where(here, values, 0)
    means = filled.sum(-1) / np.maximum(counts, 1)
    around = np.where(here, filled - means[..., None], 0)
    plain = (around**2).sum(-1), np.maximum(counts - 1, 0)
    none = np.zeros((*values.shape[:-2], values.shape[-1]))
    if values.shape[-2] < 2 or values.shape[-1] < 2 or not np.any(blocks) or not np.any(counts > 1):
        no = np.zeros(values.shape[:-2])
        return Layout(means, counts, *plain, here, none, no.astype(bool), no * np.nan, no * np.nan, no * np.nan)
    fitted, squares, freedom, of_block, limits = _blocked(filled, here, counts, means, around, plain)
    use = (np.isfinite(limits[1]) if by_design else limits[1] > 0) & blocks
    pick = use[..., None]
    return Layout(
        np.where(pick, fitted, means), counts, np.where(pick, squares, plain[0]), np.where(pick, freedom, plain[1]),
        here, np.where(pick, of_block, none), use, *limits,
    )  # fmt: skip


def _blocked(
    filled: Array, here: Flags, counts: Array, means: Array, around: Array, plain: tuple[Array, Array]
) -> tuple[Array, Array, Array, Array, tuple[Array, Array, Array]]:
    """Means, squares and freedom of the weighted two-way fit, the variance of its blocks, and the correlation."""
    variance = moderate(np.where(plain[1] > 0, plain[0], 0) + _tiny(filled)[..., None], plain[1]).mean
    weight = np.where(here, 1 / variance[..., None], 0)
    of_seed = weight.sum(-2)
    known = of_seed > 0
    fitted = means
    for _ in range(1 if here.all() else _SWEEPS):
        block = (weight * (filled - fitted[..., None])).sum(-2) / np.where(known, of_seed, 1)
        block = np.where(known, block - block.sum(-1, keepdims=True) / known.sum(-1, keepdims=True), 0)
        fitted = np.where(here, filled - block[..., None, :], 0).sum(-1) / np.maximum(counts, 1)
    rest = np.where(here, filled - fitted[..., None] - block[..., None, :], 0)
    share = weight / np.where(known, of_seed, 1)[..., None, :]
    freedom = np.where(here, 1 - share, 0).sum(-1) * np.maximum(counts - 1, 0) / np.maximum(counts, 1)
    total, left = (weight * around**2).sum((-2, -1)), (weight * rest**2).sum((-2, -1))
    limits = _correlation(total - left, left, counts, known.sum(-1))
    of_block = np.where(known, 1 / np.where(known, of_seed, 1), 0)
    return fitted, (rest**2).sum(-1), freedom, of_block, limits


def _correlation(between: Array, within: Array, counts: Array, seeds: Array) -> tuple[Array, Array, Array]:
    """The intraclass correlation of seeds with its limits, from the analysis of variance of standardised values.

    F = mean square between seeds / within; r = (F - 1) / (F - 1 + K); its limits replace F by F divided by quantiles of
    the F distribution (Shrout & Fleiss, Psychological Bulletin 86, 1979, p. 420, ICC(3, 1)).
    """
    arms = (counts > 0).sum(-1)
    above = np.maximum(seeds - 1, 1)
    below = counts.sum(-1) - arms - (seeds - 1)
    testable = (below > 0) & (arms > 1) & (within > 0)
    ratio = np.where(testable, (between / above) / np.where(testable, within / np.maximum(below, 1), 1), 0)
    certain = np.where(arms > 2, CERTAIN, CERTAIN_OF_TWO)
    low, high = _quantiles(above, below, certain), _quantiles(above, below, 1 - certain)
    found = [(r - 1) / (r - 1 + arms) for r in (ratio, ratio / low, ratio / high)]
    return tuple(np.where(testable, r, np.nan) for r in found)  # type: ignore[return-value]


def _quantiles(above: Array, below: Array, probability: Array) -> Array:
    """Quantiles of F; few of the tables that are computed at once differ in their degrees of freedom."""
    keys = np.stack(np.broadcast_arrays(above, np.maximum(below, 1), probability), -1)
    flat, places = np.unique(keys.reshape(-1, 3), axis=0, return_inverse=True)
    found = np.array([_quantile(float(a), float(b), float(p)) for a, b, p in flat])
    return found[places].reshape(keys.shape[:-1])


@cache
def _quantile(above: float, below: float, probability: float) -> float:
    return float(f_distribution.ppf(probability, above, below))


def _tiny(filled: Array) -> Array:
    """A sum of squares that is rounding, so that equal values do not divide by zero."""
    found: Array = (np.abs(filled).max((-2, -1)) * 2.0**-50) ** 2 + 1e-200
    return found
