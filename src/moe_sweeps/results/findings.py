"""What the test of a claim finds: the number with its interval, the p of both sides, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from moe_sweeps.records.words import CONTRADICTED, NOT_JUDGED, REPRODUCED, UNDECIDED
from moe_sweeps.results.moderated import Array

VERDICTS = (REPRODUCED, CONTRADICTED, UNDECIDED, NOT_JUDGED)


@dataclass(frozen=True, slots=True)
class Effect:
    """A number with its interval, in the metric's unit unless `what` says otherwise; what is not known is None.

    `basis` says what it rests on: how seeds are used, and whether the spread is that of alike runs. `borders` are the
    values at which the statement turns, and `side` is where it holds: 1 above, -1 below, 0 between two of them.
    """

    value: float
    low: float | None
    high: float | None
    what: str
    n: tuple[int, ...]
    basis: str
    borders: tuple[float, ...] = ()
    side: int = 0

    def turning_at(self, *borders: float, side: int = 0) -> Effect:
        """The same with its borders, which are given on the scale of the statistics."""
        return replace(self, borders=tuple(map(math.exp, borders)) if self.what == "ratio" else borders, side=side)


@dataclass(frozen=True, slots=True)
class Finding:
    """p that the claim holds, p that it does not, and the number behind; `why` for each outcome.

    Each p is a pair: by moderated variances, which is corrected over the claims, and by own spreads, which is not.
    """

    p_for: Array
    p_against: Array
    effect: Effect
    why_for: str
    why_against: str
    why_open: str

    def holds(self) -> bool:
        """Whether more speaks for the claim than against it."""
        return float(self.p_for.max()) <= float(self.p_against.max())

    def smaller(self) -> Array:
        """The p of the side that more speaks for."""
        return self.p_for if self.holds() else self.p_against


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim and what became of it. `runs` are the ids behind it; `p` is corrected over the claims of the sweep."""

    claim: str
    metric: str
    source: str
    verdict: str
    why: str
    effect: Effect | None = None
    runs: tuple[str, ...] = ()
    p: float | None = None
