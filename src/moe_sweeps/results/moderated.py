"""Spreads of arms that learn from each other: few seeds say little about one arm's variance, many arms say more.

Every variance s²_i, on f_i degrees of freedom, is drawn towards a common one,

    v_i = (d0 s0² + f_i s²_i) / (d0 + f_i),    on d0 + f_i degrees of freedom

(Smyth, Statistical Applications in Genetics and Molecular Biology 3, 2004, article 3). How alike the arms are is d0.
Smyth estimates it; from two to sixteen arms that estimate is poor, and too certain. So every d0 of a grid is kept, with
a weight: how well it explains the variances times PRIOR, which leans to arms that are not alike. At each d0 the common
variance is the most likely one, which is the harmonic mean of the moderated ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln  # type: ignore[import-untyped]

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
GRID = (0.25, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)  # d0, from arms that tell nothing of each other to arms that are alike
PRIOR = (8, 4, 2, 1, 1, 1, 1)
# Of an arm with one run nothing is known but what the others say: there d0 is at least 2, or nothing could be said.
PRIOR_OF_SINGLE = (0, 0, 1, 1, 1, 1, 1)
_STEPS = 45  # of the search for s0², at most: ten digits without a single step of Newton's
_CLOSE = 1e-11  # a step of the logarithm; Newton's next one would be its square
_TINY = 1e-200  # a variance that is none


@dataclass(frozen=True, slots=True)
class Moderated:
    """Variances (D, ..., K) of K arms at each of D values of d0, their degrees of freedom, and weights (D, ...).

    `single` are the weights (D, ...) where an arm with one run takes part.
    """

    weights: Array
    single: Array
    variances: Array
    freedom: Array
    cap: Array  # (...): no variance is known better than all of them together

    @property
    def mean(self) -> Array:
        """Variances (..., K), averaged over d0."""
        found: Array = np.einsum("d...,d...k->...k", self.weights, self.variances)
        return found

    @property
    def mean_freedom(self) -> Array:
        """Their degrees of freedom (..., K), averaged in the same way."""
        found: Array = np.einsum("d...,d...k->...k", self.weights, self.freedom)
        return found


def moderate(squares: Array, freedom: Array) -> Moderated:
    """The moderated variances of arms with sums of squares (..., K) on `freedom` (..., K).

    An arm with one seed has freedom 0: it is given the common variance, on d0 degrees of freedom.

    Raises:
        ValueError: no arm has a spread, so there is nothing to learn from.
    """
    total = freedom.sum(-1)
    if not np.all(squares.sum(-1) > 0):
        raise ValueError("no spread to learn from: every arm has one seed or equal values")
    pooled = squares.sum(-1) / total
    scaled = squares / pooled[..., None]
    found = [_at(d0, scaled, freedom) for d0 in GRID]
    likelihood = np.stack([one[0] for one in found])
    weights, single = (_weights(likelihood, prior) for prior in (PRIOR, PRIOR_OF_SINGLE))
    variances = np.stack([one[1] for one in found]) * pooled[..., None]
    freedoms = np.stack([np.minimum(d0 + freedom, total[..., None]) for d0 in GRID])
    return Moderated(weights, single, variances, freedoms, total)


def _weights(likelihood: Array, prior: tuple[int, ...]) -> Array:
    weights = np.exp(likelihood - likelihood.max(0)) * np.reshape(prior, (-1, *(1,) * (likelihood.ndim - 1)))
    found: Array = weights / weights.sum(0)
    return found


def _at(d0: float, squares: Array, freedom: Array) -> tuple[Array, Array]:
    """Log-likelihood (...) of the variances at their most likely s0², and the moderated variances (..., K).

    f s² / s0² is f times an F(f, d0) variable: Smyth's marginal distribution.
    """
    known = freedom > 0
    common = _common(d0, squares, freedom)
    prior = d0 * common[..., None]
    each = (
        d0 / 2 * np.log(prior) - (d0 + freedom) / 2 * np.log(prior + squares)
        + gammaln((d0 + freedom) / 2) - gammaln(d0 / 2)
    )  # fmt: skip
    return np.where(known, each, 0).sum(-1), (prior + squares) / (d0 + freedom)


def _common(d0: float, squares: Array, freedom: Array) -> Array:
    """The most likely s0² (...): where sum_i of (d0 + f_i) d0 s0² / (d0 s0² + f_i s²_i) is d0 for each arm.

    The sum grows with s0², and its root lies between the smallest and the largest variance: Newton's steps in the
    logarithm, and the middle where one would leave the bracket.
    """
    known = freedom > 0
    wanted = d0 * known.sum(-1)
    own = np.log(np.where(known, np.maximum(squares, _TINY) / np.where(known, freedom, 1), 1))
    low, high = np.where(known, own, np.inf).min(-1), np.where(known, own, -np.inf).max(-1)
    at = (low + high) / 2
    for _ in range(_STEPS):
        prior = d0 * np.exp(at)[..., None]
        share = np.where(known, prior / (prior + squares), 0)
        over = ((d0 + freedom) * share).sum(-1) - wanted
        low, high = np.where(over < 0, at, low), np.where(over < 0, high, at)
        slope = ((d0 + freedom) * share * (1 - share)).sum(-1)
        step = at - over / np.maximum(slope, _TINY)
        before, at = at, np.where((step > low) & (step < high), step, (low + high) / 2)
        if np.all(np.abs(at - before) < _CLOSE):
            break
    found: Array = np.exp(at)
    return found
