"""Two arms that are the same for all purposes: two one-sided tests against a margin.

Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987, p. 657: "the difference is below -margin" and "it
is above margin" are both tested at the level, each one-sided, and equivalence needs both rejected. That is the
1 - 2 level interval lying within the margins. Not to have found a difference is not equivalence.
"""

from __future__ import annotations

import numpy as np

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.moderated import Array


def p_within(fit: Fit, contrasts: Array, low: float, high: float) -> Array:
    """p (2, ..., M) of "the contrast lies between low and high" against its not doing so; see `p_above`."""
    return np.maximum(p_above(fit, contrasts, low), p_above(fit, -contrasts, -high))


def p_outside(fit: Fit, contrasts: Array, low: float, high: float) -> Array:
    """p (2, ..., M) of "the contrast lies below low or above high" against its lying between them."""
    found: Array = np.minimum(1, 2 * np.minimum(p_above(fit, contrasts, high), p_above(fit, -contrasts, -low)))
    return found


def p_above(fit: Fit, contrasts: Array, bound: float) -> Array:
    """One-sided p (2, ..., M) of "the contrast is above `bound`"; at least a half where it is not seen to be.

    The first is that of moderated variances, which families correct; the second, by own spreads, is not corrected.
    """
    distance = fit.difference(contrasts) - bound
    found = np.stack(fit.tails(contrasts, np.abs(distance), sides=1))
    return np.where(distance > 0, np.minimum(found, 1), 1 - np.minimum(found[0], 0.5))
