"""The family test of one table once more, in loops over plain floats, as docs/results.md writes it down."""

from __future__ import annotations

import math

from scipy.stats import t as student  # type: ignore[import-untyped]

from moe_sweeps.results.moderated import GRID, PRIOR, PRIOR_OF_SINGLE


def moderated(squares: list[float], freedom: list[float], single: bool = False) -> list[tuple[float, list[float]]]:
    """Weight and moderated variances at each d0."""
    found = []
    for d0, prior in zip(GRID, PRIOR_OF_SINGLE if single else PRIOR, strict=True):
        common = _common(d0, squares, freedom)
        density = float(prior)
        for s, f in zip(squares, freedom, strict=True):
            if f:
                density *= math.exp(
                    math.lgamma((d0 + f) / 2) - math.lgamma(d0 / 2) + d0 / 2 * math.log(d0 * common)
                    - (d0 + f) / 2 * math.log(d0 * common + s)
                )  # fmt: skip
        found.append((density, [(d0 * common + s) / (d0 + f) for s, f in zip(squares, freedom, strict=True)]))
    total = sum(weight for weight, _ in found)
    return [(weight / total, variances) for weight, variances in found]


def _common(d0: float, squares: list[float], freedom: list[float]) -> float:
    """The variance that is the harmonic mean of the moderated ones, by halving."""
    low, high = 1e-9 * max(squares), 1e3 * max(squares)
    for _ in range(100):
        common = math.sqrt(low * high)
        each = [(d0 * common + s) / (d0 + f) for s, f in zip(squares, freedom, strict=True) if f]
        low, high = (common, high) if len(each) / sum(1 / v for v in each) > common else (low, common)
    return common


def family(arms: list[list[float]]) -> list[float]:
    """The corrected p of every arm against the first; independent runs, two or more an arm, three arms or more."""
    first, guard = _tails(arms)
    return [max(a, min(1.0, b)) for a, b in zip(holm(first), guard, strict=True)]


def lower(arms: list[list[float]]) -> list[float]:
    """The probability of every arm that its mean is below that of the first: the tail of the side that it is on."""
    means = [math.fsum(a) / len(a) for a in arms]
    p = [max(both) for both in zip(*_tails(arms, plain=True), strict=True)]
    return [1 - q / 2 if mean < means[0] else q / 2 for q, mean in zip(p, means[1:], strict=True)]


def _tails(arms: list[list[float]], plain: bool = False) -> tuple[list[float], list[float]]:
    """Two-sided p of every arm against the first, on moderated variances and by own spreads."""
    n = [len(a) for a in arms]
    means = [math.fsum(a) / len(a) for a in arms]
    squares = [math.fsum((x - m) ** 2 for x in a) for a, m in zip(arms, means, strict=True)]
    freedom = [len(a) - 1.0 for a in arms]
    grid = moderated(squares, freedom)
    cap = sum(freedom)
    mean = [math.fsum(w * v[i] for w, v in grid) for i in range(len(arms))]
    spread = [
        math.fsum(w * min(d0 + freedom[i], cap) for (w, _), d0 in zip(grid, GRID, strict=True))
        for i in range(len(arms))
    ]
    first = []
    guard = []
    for i in range(1, len(arms)):
        away = abs(means[i] - means[0])
        p = 0.0
        for (w, v), d0 in zip(grid, GRID, strict=True):
            error = math.sqrt(v[i] / n[i] + v[0] / n[0])
            p += w * 2 * student.sf(away / error, min(d0 + freedom[i], d0 + freedom[0], cap))
        first.append(p)
        checks = []
        for mine, other, factor in ((i, 0, 2.0), (0, i, 2.0 * (len(arms) / 2) ** 0.25)):
            a, b = squares[mine] / freedom[mine] / n[mine], mean[other] / n[other]
            degrees = (a + b) ** 2 / (a**2 / freedom[mine] + b**2 / spread[other])
            if n[mine] < 3:
                degrees, factor = math.sqrt(degrees * min(freedom[mine], spread[0], spread[i])), factor * 1.25
            factor = 1.0 if plain else factor
            checks.append(factor * 2 * student.sf(away / math.sqrt(a + b), degrees))
        guard.append(max(checks))
    return first, guard


def holm(p: list[float]) -> list[float]:
    """Holm's correction, by its definition."""
    found, running = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - place) * p[i]))
        found[i] = running
    return found
