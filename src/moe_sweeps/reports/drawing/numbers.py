"""The numbers behind the pictures.

Axes of arrays: N records, L layers, E experts, D domains.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from moe_sweeps.results.history import Floats, History, Series

MOST_COLUMNS = 240  # of a heat map over steps: more cannot be told apart
MOST_POINTS = 400  # of one expert's line


def load_shares(history: History) -> Series:
    """Picks of each expert in multiples of the equal share, (N, L, E); neighbouring records are added up if many."""
    steps, load_NLE = history.series("train", "load_LE")
    starts = np.unique(np.linspace(0, len(steps), min(len(steps), MOST_COLUMNS), endpoint=False).astype(int))
    ends = np.append(starts[1:], len(steps)) - 1
    summed_NLE = np.add.reduceat(load_NLE, starts, axis=0)
    return Series((steps[starts] + steps[ends]) / 2, shares(summed_NLE) * load_NLE.shape[-1])


def domain_shares(record: dict[str, object]) -> tuple[list[str], Floats]:
    """Names, and shares (L, D, E) of each domain's picks; the first row is all domains together."""
    by_domain = record["domain_load"]
    assert isinstance(by_domain, dict)
    load_DLE = np.array(list(by_domain.values()), dtype=float)
    with_all_DLE = np.concatenate([load_DLE.sum(axis=0, keepdims=True), load_DLE])
    return ["all text", *by_domain], shares(with_all_DLE).transpose(1, 0, 2)


def sampling_floor(tokens: int, experts: int, top_k: int) -> float:
    """Expected MaxVio of a router that picks at random, from the largest of `experts` normal variables.

    A pick count has mean T k/E and variance T k/E (1 - k/E); the counts sum to kT, which makes them correlated.
    """
    share = top_k / experts
    deviation = math.sqrt((1 - share) / (tokens * share) * experts / (experts - 1)) if experts > 1 else 0.0
    return deviation * _expected_maximum(experts)


def edges(steps: Floats) -> Floats:
    """Borders of the cells around `steps`: half-way between neighbours."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middle[0]], middle, [2 * steps[-1] - middle[-1]]])


def shares(load: Floats) -> Floats:
    """Counts over the last axis as shares; NaN where there are none."""
    total = load.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(load, total, out=np.full_like(load, np.nan), where=total > 0)
    return shares


def _expected_maximum(count: int) -> float:
    """The mean of the largest of `count` independent standard normal variables, by integration."""
    points = np.linspace(-8, 8, 1601)
    below = np.array([NormalDist().cdf(point) for point in points]) ** count
    return float(np.trapezoid(np.where(points > 0, 1 - below, -below), points))


def thinned(count: int) -> slice:
    """At most MOST_POINTS of `count` records, the last among them."""
    stride = max(1, math.ceil(count / MOST_POINTS))
    return slice((count - 1) % stride, None, stride)
