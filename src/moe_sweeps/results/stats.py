"""Statistics over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit  # type: ignore[import-untyped]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """What n independent runs say about one number. What n is too small for is None, never 0."""

    n: int
    mean: float | None = None
    sd: float | None = None
    half_width: float | None = None


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Mean, sample standard deviation (n - 1) and half-width of the t-interval for the mean.

    The half-width is t(1 - (1 - confidence) / 2, n - 1) * sd / sqrt(n).

    Raises:
        ValueError: a value is NaN or infinite; such a run is an outcome to report, not a number to average.
    """
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"only finite values can be averaged, got {list(values)}")
    n = len(values)
    if n == 0:
        return Estimate(0)
    mean = statistics.mean(values)
    if n == 1:
        return Estimate(1, mean)
    sd = statistics.stdev(values)
    return Estimate(n, mean, sd, t_quantile(0.5 + confidence / 2, n - 1) * sd / math.sqrt(n))


def t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """The point below which Student's t with so many degrees of freedom lies with `probability`."""
    return float(stdtrit(degrees_of_freedom, probability))
