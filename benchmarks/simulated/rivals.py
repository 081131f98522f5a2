"""Tests of a table's arms against its first: the one that the tables use, and others.

Each takes runs (tables, arms, seeds) and says which arms (tables, arms - 1) it calls different.
"""

# scipy has no stubs
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats  # type: ignore[import-untyped]
from scipy.special import polygamma, psi, stdtr  # type: ignore[import-untyped]

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import FIRST, LEVEL
from moe_sweeps.results.verdicts import against_baseline, holm
from simulated.cases import Array

Test = Callable[[Array], Array]


def ours(runs: Array) -> Array:
    """The test of the tables, at its first look."""
    return against_baseline(Fit.of(runs), intervals=False).p_family < FIRST


def paired_holm(runs: Array) -> Array:
    """Paired t-tests with Holm's correction: what the tables used before, without their second condition."""
    found = runs[:, 1:] - runs[:, :1]
    n = np.isfinite(found).sum(-1)
    error = np.nanstd(found, -1, ddof=1) / np.sqrt(n)
    p = 2 * stdtr(np.maximum(n - 1, 1), -np.abs(np.nanmean(found, -1)) / error)
    return holm(np.where(n > 1, p, np.nan)) < LEVEL


def former(runs: Array) -> Array:
    """The rule until now: paired t with Holm, and the difference at least the detectable one of the pooled spread."""
    n = runs.shape[-1]
    found = runs[:, 1:] - runs[:, :1]
    pooled = np.sqrt(found.var(-1, ddof=1).mean(-1))
    reach = _shift(n - 1, LEVEL / found.shape[1]) / np.sqrt(n)
    return paired_holm(runs) & (np.abs(found.mean(-1)) >= reach * pooled[:, None])


def welch_holm(runs: Array) -> Array:
    """Welch's tests with Holm's correction."""
    n, mean, variance = np.isfinite(runs).sum(-1), np.nanmean(runs, -1), np.nanvar(runs, -1, ddof=1)
    part = variance / n
    error = part[:, 1:] + part[:, :1]
    degrees = error**2 / (part[:, 1:] ** 2 / (n[:, 1:] - 1) + part[:, :1] ** 2 / (n[:, :1] - 1))
    return holm(2 * stdtr(degrees, -np.abs(mean[:, 1:] - mean[:, :1]) / np.sqrt(error))) < LEVEL


def blocks_pooled(runs: Array) -> Array:
    """Arm + seed with one pooled residual variance, Holm."""
    arms, n = runs.shape[1:]
    rest = runs - runs.mean(-1, keepdims=True)
    rest = rest - rest.mean(1, keepdims=True)
    degrees = (arms - 1) * (n - 1)
    error = np.sqrt(2 * (rest**2).sum((1, 2)) / degrees / n)
    mean = runs.mean(-1)
    return holm(2 * stdtr(degrees, -np.abs(mean[:, 1:] - mean[:, :1]) / error[:, None])) < LEVEL


def limma(runs: Array) -> Array:
    """Variances of arms moderated with Smyth's own estimate of d0, on d0 + f degrees of freedom of each arm, Holm."""
    arms, n = runs.shape[1:]
    f = n - 1
    variance = runs.var(-1, ddof=1)
    e = np.log(variance) - psi(f / 2) + np.log(f / 2)
    excess = e.var(-1, ddof=1) - polygamma(1, f / 2)
    d0 = np.where(excess > 0, 2 * _inverse_trigamma(np.maximum(excess, 1e-6)), 1e9)
    common = np.exp(e.mean(-1) + np.where(excess > 0, psi(d0 / 2) - np.log(d0 / 2), 0))
    moderated = ((d0 * common)[:, None] + f * variance) / (d0 + f)[:, None]
    degrees = np.minimum(d0 + f, arms * f)[:, None]
    mean = runs.mean(-1)
    error = np.sqrt((moderated[:, 1:] + moderated[:, :1]) / n)
    return holm(2 * stdtr(degrees, -np.abs(mean[:, 1:] - mean[:, :1]) / error)) < LEVEL


def sign_flips(runs: Array, flips: int = 512) -> Array:
    """Max-T over sign flips of the seeds' differences to the baseline: all 2^(n-1) that matter, or `flips` of them."""
    found = runs[:, 1:] - runs[:, :1]
    n = found.shape[-1]
    if n <= 10:
        signs = 1.0 - 2 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (flips, n))
        signs[0] = 1
    squares = (found**2).sum(-1)[..., None]
    mean = found @ signs.T / n
    t = np.abs(mean) / np.sqrt(np.maximum(squares / n - mean**2, 1e-300))
    p = (t.max(1)[:, None, :] >= t[:, :, :1] * (1 - 1e-9)).mean(-1)
    return p <= LEVEL


def bootstrap(runs: Array, draws: int = 199) -> Array:
    """Max-T of a studentised bootstrap: residuals of each arm, inflated by sqrt(n / (n - 1)), are drawn anew."""
    random = np.random.default_rng(0)
    n = runs.shape[-1]
    mean = runs.mean(-1)
    rest = (runs - mean[..., None]) * np.sqrt(n / (n - 1))

    def statistic(values: Array) -> Array:
        part = values.var(-1, ddof=1) / n
        error = np.sqrt(np.maximum(part[:, 1:] + part[:, :1], 1e-300))
        return np.abs(values.mean(-1)[:, 1:] - values.mean(-1)[:, :1]) / error

    most = np.stack(
        [statistic(np.take_along_axis(rest, random.integers(0, n, rest.shape), -1)).max(-1) for _ in range(draws)], -1
    )
    p = (1 + (most[:, None, :] >= statistic(runs)[..., None]).sum(-1)) / (1 + draws)
    return p <= LEVEL


RIVALS: dict[str, Test] = {
    "this one": ours, "until 2026-11: paired, Holm, and detectable": former, "paired, Holm": paired_holm,
    "Welch, Holm": welch_holm, "blocks, pooled": blocks_pooled, "limma's d0": limma, "sign flips, max-T": sign_flips,
    "studentised bootstrap": bootstrap,
}  # fmt: skip


def _shift(freedom: int, level: float, chance: float = 0.8) -> float:
    critical = stats.t.ppf(1 - level / 2, freedom)
    low, high = 0.0, 50 * critical
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stats.nct.sf(critical, freedom, middle) < chance else (low, middle)
    return high


def _inverse_trigamma(value: Array) -> Array:
    found = 0.5 + 1 / value
    for _ in range(30):
        tri = polygamma(1, found)
        found = found + tri * (1 - tri / value) / polygamma(2, found)
    return found
