"""The statements of a sweep file put to the test: reproduced, contradicted or inconclusive.

The manifest carries each statement with the arms that it speaks of. A statement is judged by intervals alone: it is
reproduced where the whole interval agrees with it, contradicted where the whole interval disagrees, and inconclusive in
between. Intervals of one sweep cover all its statements together at CONFIDENCE (Bonferroni). With one seed an arm the
interval is that of the noise floor, or of all arms with several seeds where those spread more, and the scorecard says
which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scipy.stats import chi2  # type: ignore[import-untyped]

from moe_sweeps.results.compare import SINGLE, Sample, compare
from moe_sweeps.results.noise import Floor, Noise
from moe_sweeps.results.stats import CONFIDENCE, estimate, t_quantile
from moe_sweeps.results.tables import Table, mixed

REPRODUCED, CONTRADICTED, INCONCLUSIVE = "reproduced", "contradicted", "inconclusive"


@dataclass(frozen=True, slots=True)
class Effect:
    """A number with its interval, in the metric's unit unless `what` says otherwise; what is not known is None."""

    value: float
    low: float | None
    high: float | None
    what: str
    n: tuple[int, ...]
    basis: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One statement and what became of it. `runs` are the ids behind it."""

    claim: str
    metric: str
    source: str
    verdict: str
    why: str
    effect: Effect | None = None
    runs: tuple[str, ...] = ()


class _NoValue(Exception):
    """An arm that the statement speaks of has no value; the message says which."""


def judge(table: Table, noise: Noise | None = None) -> list[Verdict]:
    """Every statement that the sweep behind `table` made."""
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(table.manifest.expect))
    return [_Judge(table, noise, statement, confidence).verdict() for statement in table.manifest.expect]


class _Judge:
    """One statement at the table's arms."""

    def __init__(self, table: Table, noise: Noise | None, statement: dict[str, Any], confidence: float) -> None:
        self.table, self.noise, self.statement, self.confidence = table, noise, statement, confidence
        self.metric = str(statement["metric"])
        self.better_is_lower = statement.get("better") != "higher"

    def verdict(self) -> Verdict:
        """What became of it."""
        outcome, why, effect = INCONCLUSIVE, str(self.statement.get("cannot") or ""), None
        if not why:
            try:
                outcome, why, effect = _KINDS[self.statement["kind"]](self)
            except _NoValue as reason:
                why = str(reason)
            except KeyError as missing:
                why = f"the statement has no {missing} that this version can judge"
        ids = tuple(run.run_id for arm in self.arms() for run in arm.runs)
        source = str(self.statement.get("source") or self.table.manifest.file.get("source", ""))
        return Verdict(str(self.statement["claim"]), self.metric, source, outcome, why, effect, ids)

    def arms(self) -> list[Any]:
        """The arms that it speaks of."""
        named = [self.statement.get("arm"), self.statement.get("than"), *(a for _, a in self.points())]
        return [arm for arm in self.table.arms if arm.arm in named]

    def points(self) -> list[tuple[str, str]]:
        """Values of the axis with their arms, in order."""
        return [(str(value), str(arm)) for value, arm in self.statement.get("points") or ()]

    # --- two arms -----------------------------------------------------------------------------------------------------

    def directed(self) -> tuple[str, str, Effect]:
        """better, worse: the whole interval of the gain lies above `by`, or below it."""
        effect = self.difference(self.statement["arm"], self.statement["than"])
        sign = -1 if (self.statement["kind"] == "better") == self.better_is_lower else 1
        by = float(self.statement.get("by") or 0)
        return (*_above(effect, sign, by), effect)

    def no_difference(self) -> tuple[str, str, Effect]:
        """The whole interval lies within the bounds, or outside them."""
        effect, within = self.difference(self.statement["arm"], self.statement["than"]), float(self.statement["within"])
        if effect.low is None or effect.high is None:
            return INCONCLUSIVE, "one seed, and the noise floor is not known", effect
        if -within <= effect.low and effect.high <= within:
            return REPRODUCED, f"the interval lies within ±{within:g}", effect
        if effect.low > within or effect.high < -within:
            return CONTRADICTED, f"the interval lies outside ±{within:g}", effect
        return INCONCLUSIVE, f"the interval reaches beyond ±{within:g}, and into it", effect

    def not_worse(self) -> tuple[str, str, Effect]:
        """The whole interval of the loss of quality lies below `within`, or above it; a gain of any size agrees."""
        effect, within = self.difference(self.statement["arm"], self.statement["than"]), float(self.statement["within"])
        sign = 1 if self.better_is_lower else -1
        return (*_above(effect, -sign, -within), effect)

    def ratio(self) -> tuple[str, str, Effect]:
        """The interval of arm - bound * other, which has the sign of ratio - bound for positive numbers."""
        bound, (arm, than) = float(self.statement["bound"]), (self.statement["arm"], self.statement["than"])
        test = self.difference(arm, than, factor=bound)
        sign = 1 if self.statement["kind"] == "ratio_at_least" else -1
        outcome, _ = _above(test, sign, 0.0)
        low, base = self.sample(arm), self.sample(than)
        ratio = estimate(list(low.values.values())).mean, estimate(list(base.values.values())).mean
        if not ratio[1] or ratio[0] is None:
            raise _NoValue("the number that is divided by is 0")
        what = f"ratio; interval of arm - {bound:g} × other"
        effect = Effect(ratio[0] / ratio[1], test.low, test.high, what, test.n, test.basis)
        return outcome, f"ratio {effect.value:.3g}, claimed {'≥' if sign > 0 else '≤'} {bound:g}", effect

    def spread(self) -> tuple[str, str, Effect]:
        """The chi-squared interval of the standard deviation against the bound."""
        bound = float(self.statement["bound"])
        values = list(self.sample(self.statement["arm"]).values.values())
        found = estimate(values)
        if found.sd is None:
            raise _NoValue("one seed has no spread")
        tail, freedom = (1 - self.confidence) / 2, found.n - 1
        low, high = (found.sd * math.sqrt(freedom / float(chi2.ppf(q, freedom))) for q in (1 - tail, tail))
        effect = Effect(found.sd, low, high, "standard deviation over seeds", (found.n,), "chi-squared")
        return (*_above(effect, -1, -bound), effect)

    # --- arms along an axis -------------------------------------------------------------------------------------------

    def monotone(self) -> tuple[str, str, Effect]:
        """Last minus first exceeds `by`, and no step goes clearly the other way."""
        sign = 1 if self.statement["kind"] == "rises" else -1
        points, by = self.points(), float(self.statement.get("by") or 0)
        total = self.difference(points[-1][1], points[0][1])
        outcome, why = _above(total, sign, by)
        for (before, one), (after, other) in itertools.pairwise(points):
            step = self.difference(other, one, of=len(points))
            if _above(step, sign, 0.0)[0] == CONTRADICTED:
                return CONTRADICTED, f"it goes the other way from {before} to {after}", total
        return outcome, f"from {points[0][0]} to {points[-1][0]}: {why}", total

    def best_at(self) -> tuple[str, str, Effect]:
        """The best of the claimed points beats every other; an other point that beats all claimed ones contradicts."""
        claimed = {str(value) for value in self.statement["at"]}
        arms = dict(self.points())
        inside = {v: a for v, a in arms.items() if v in claimed}
        ends = {self.points()[0][0], self.points()[-1][0]} if self.statement["kind"] == "turning_point" else set()
        best = min(inside, key=lambda v: self.badness(inside[v]))
        rivals = {v: a for v, a in arms.items() if v != best and (v not in claimed or v in ends)}
        beaten = {v: self.difference(inside[best], a, of=len(arms)) for v, a in rivals.items()}
        gain = -1 if self.better_is_lower else 1
        nearest = min(beaten.values(), key=lambda e: gain * e.value) if beaten else None
        if nearest is None:
            raise _NoValue("there is no other point to compare with")
        for value in rivals.keys() - claimed:
            others = [self.difference(a, arms[value], of=len(arms)) for a in inside.values()]
            if all(_above(e, gain, 0.0)[0] == CONTRADICTED for e in others):
                return CONTRADICTED, f"{value} is better than every claimed point", nearest
        if best in ends:
            return INCONCLUSIVE, f"the best point is {best}, an end of the axis: nothing turns", nearest
        if all(_above(e, gain, 0.0)[0] == REPRODUCED for e in beaten.values()):
            return REPRODUCED, f"{best} is better than {', '.join(beaten)}", nearest
        close = ", ".join(v for v, e in beaten.items() if _above(e, gain, 0.0)[0] != REPRODUCED)
        return INCONCLUSIVE, f"best of the claimed points is {best}; not told from {close}", nearest

    # --- numbers ------------------------------------------------------------------------------------------------------

    def sample(self, arm: str) -> Sample:
        """The values of an arm by seed."""
        found = next((a for a in self.table.arms if a.arm == arm), None)
        sample = found.sample(self.metric) if found else None
        if found is None or sample is None or not sample.values:
            raise _NoValue(f"no value for {found.label if found else arm}")
        if gone := found.counts["diverged"] + found.counts["stopped"]:
            raise _NoValue(
                f"{gone} of {len(found.runs)} seeds of {found.label} diverged or stopped: the rest flatters it"
            )
        return Sample({seed: float(value) for seed, value in sample.values.items()}, sample.pairing)

    def badness(self, arm: str) -> float:
        """The mean, so that lower is better."""
        mean = estimate(list(self.sample(arm).values.values())).mean or 0.0
        return mean if self.better_is_lower else -mean

    def difference(self, arm: str, than: str, *, factor: float = 1.0, of: int = 1) -> Effect:
        """arm - factor * than, with an interval that holds for `of` comparisons at once."""
        one, other = self.sample(arm), self.sample(than)
        sides = [a for a in self.table.arms if a.arm in (arm, than)]
        if mixed(sides[0], sides[-1]):
            raise _NoValue("its runs mix versions of code or data")
        scaled = Sample({seed: factor * value for seed, value in other.values.items()}, other.pairing)
        confidence = 1 - (1 - self.confidence) / of
        found = compare(one, scaled, confidence=confidence)
        assert found is not None  # both samples have values
        low, high, basis = found.low, found.high, found.kind
        if found.kind == SINGLE and (noise := self._noise()) is not None:
            floor, source = noise
            reach = t_quantile(0.5 + confidence / 2, floor.freedom) * math.sqrt(1 + factor**2) * floor.sd
            low, high, basis = found.difference - reach, found.difference + reach, f"one seed; interval of {source}"
        elif found.low is None and found.kind != SINGLE:
            basis = f"{found.kind}, no spread"
        return Effect(found.difference, low, high, "difference", found.n, basis)

    def _noise(self) -> tuple[Floor, str] | None:
        """What single runs spread by, and where that is from; None if the noise floor was not measured."""
        like = (self.metric, self.table.scales, self.table.tokens)
        if self.noise is None or (floor := self.noise.floor(*like)) is None:
            return None
        wider = self.noise.wider(*like)
        return (floor, "the noise floor") if wider is None else (wider, f"the {wider.runs} runs of arms with seeds")


def _above(effect: Effect, sign: int, bound: float) -> tuple[str, str]:
    """Whether sign * effect is above `bound`, as far as its interval tells."""
    if effect.low is None or effect.high is None:
        return INCONCLUSIVE, "no interval: " + effect.basis
    low, high = sorted((sign * effect.low, sign * effect.high))
    if low > bound:
        return REPRODUCED, "the whole interval agrees"
    if high < bound:
        return CONTRADICTED, "the whole interval disagrees"
    return INCONCLUSIVE, "the interval holds both answers"


_KINDS: dict[str, Callable[[_Judge], tuple[str, str, Effect]]] = {
    "better": _Judge.directed,
    "worse": _Judge.directed,
    "not_worse": _Judge.not_worse,
    "no_difference": _Judge.no_difference,
    "ratio_at_most": _Judge.ratio,
    "ratio_at_least": _Judge.ratio,
    "rises": _Judge.monotone,
    "falls": _Judge.monotone,
    "best_at": _Judge.best_at,
    "turning_point": _Judge.best_at,
    "spread_at_most": _Judge.spread,
}
