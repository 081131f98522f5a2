"""The claims of a sweep file put to the test: reproduced, contradicted or undecided.

The manifest carries each claim with the arms that it speaks of. Every claim gives two p-values, that it holds and that
it does not, by the tests of the tables on the metric's scale. The smaller of the two is corrected over the claims of
the sweep (Holm), and decides if it is below the level of the look. Intervals are shown beside it, at the level divided
by the number of claims. An arm with one run is judged by the spread of alike runs, and the scorecard says so.

Each kind of records/claims.py has its judge here. A claim that this version cannot judge, whatever the numbers, is
not judged (records/words.py); a bug in a judge is an error and no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import chi2  # type: ignore[import-untyped]

from moe_sweeps.records.claims import KINDS, Statement
from moe_sweeps.records.numbers import Metric, metric_of, spell_ratio
from moe_sweeps.records.words import CONTRADICTED, NOT_JUDGED, REPRODUCED, UNDECIDED
from moe_sweeps.results.compare import INDEPENDENT, PAIRED, SINGLE, build_fit, has_spread
from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.equivalence import p_above, p_outside, p_within
from moe_sweeps.results.findings import Effect, Finding, Verdict
from moe_sweeps.results.looks import level_of_look
from moe_sweeps.results.shapes import Shown, lowest_at, pair, rises
from moe_sweeps.results.stats import estimate
from moe_sweeps.results.tables import Arm, Table, mixed
from moe_sweeps.results.timing import unlike
from moe_sweeps.results.verdicts import holm

Judge = Callable[["_Case"], "Finding"]
JUDGES: dict[str, Judge] = {}


def judges(*kinds: str) -> Callable[[Judge], Judge]:
    """Register a function as the judge of these kinds.

    Raises:
        ValueError: records/claims.py has no such kind, or it has a judge already.
    """

    def register(judge: Judge) -> Judge:
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(f"{kind} is no kind of claim. Add it to KINDS in records/claims.py.")
            if kind in JUDGES:
                raise ValueError(f"claims of kind {kind} have two judges: {JUDGES[kind]} and {judge}")
            JUDGES[kind] = judge
        return judge

    return register


def require_judges() -> None:
    """Raise ValueError if a kind of claim has no judge."""
    if missing := sorted(KINDS.keys() - JUDGES.keys()):
        raise ValueError(f"no judge for claims of kind {', '.join(missing)}. Register one in results/claims.py.")


class _NoValue(Exception):
    """An arm that the claim speaks of has no value to judge by; the message says which."""


def judge(table: Table) -> list[Verdict]:
    """The verdict on every claim of the sweep behind `table`."""
    fits = _Fits(table)
    cases = [_Case(table, statement, fits) for statement in table.manifest.expect]
    findings = [case.finding() for case in cases]
    smaller = [f.smaller() if isinstance(f, Finding) else np.array([math.nan] * 2) for f in findings]
    moderated, own = np.array(smaller).reshape(-1, 2).T
    corrected = np.maximum(holm(moderated), own)
    level = level_of_look(table.looks)
    return [_verdict(*each, level) for each in zip(cases, findings, map(float, corrected), strict=True)]


def _verdict(case: _Case, found: Finding | tuple[str, str], p: float, level: float) -> Verdict:
    ids = tuple(run.run_id for arm in case.arms() for run in arm.runs)
    source = case.statement.source or case.table.manifest.file.source
    verdict = Verdict(case.statement.claim, case.metric.column, source, UNDECIDED, "", None, ids)
    if not isinstance(found, Finding):
        return replace(verdict, verdict=found[0], why=found[1])
    if not p < level:
        outcome, why = UNDECIDED, found.why_open
    elif found.holds():
        outcome, why = REPRODUCED, found.why_for
    else:
        outcome, why = CONTRADICTED, found.why_against
    return replace(verdict, verdict=outcome, why=why, effect=found.effect, p=p)


class _Case:
    """One claim and the table's arms."""

    def __init__(self, table: Table, statement: Statement, fits: _Fits) -> None:
        self.table, self.statement, self.fits = table, statement, fits
        self.metric: Metric = metric_of(statement.metric)
        self.better_is_lower = statement.better != "higher"
        self.level = level_of_look(table.looks) / max(1, len(table.manifest.expect))

    def finding(self) -> Finding | tuple[str, str]:
        """What the numbers say, or the outcome and what keeps them from saying anything."""
        if self.statement.cannot:
            return UNDECIDED, self.statement.cannot
        if fault := self.statement.fault():
            return NOT_JUDGED, fault
        if self.metric.timed and (why := unlike([row for arm in self.arms() for row in arm.every_row])):
            return NOT_JUDGED, f"its times cannot be compared: {why}"
        try:
            return JUDGES[self.statement.kind](self)
        except _NoValue as reason:
            return UNDECIDED, str(reason)

    def arms(self) -> list[Arm]:
        """The arms that the claim speaks of."""
        named = [self.statement.arm, self.statement.than, *(a for _, a in self.points())]
        return [arm for arm in self.table.arms if arm.arm in named]

    def points(self) -> tuple[tuple[str, str], ...]:
        """Values of the axis with their arms, in order."""
        return self.statement.points

    def arm(self) -> str:
        """The id of `arm`, which the kinds that ask for it have: see Statement.fault."""
        assert self.statement.arm is not None
        return self.statement.arm

    def pair(self) -> tuple[str, str]:
        """The ids of `arm` and `than`."""
        assert self.statement.than is not None
        return self.arm(), self.statement.than

    def within(self) -> float:
        """The field `within`."""
        assert self.statement.within is not None
        return self.statement.within

    def bound(self) -> float:
        """The field `bound`."""
        assert self.statement.bound is not None
        return self.statement.bound

    # --- two arms -----------------------------------------------------------------------------------------------------

    @judges("better", "worse")
    def directed(self) -> Finding:
        """The gain is above `by`, or below it."""
        lower = (self.statement.kind == "better") == self.better_is_lower
        bound = self.shift(self.statement.by or 0.0, down=lower)
        return self.one_sided(-1 if lower else 1, bound, self.difference())

    @judges("not_worse")
    def not_worse(self) -> Finding:
        """The loss of quality is below `within`, or above it; a gain of any size agrees."""
        up = self.better_is_lower
        return self.one_sided(-1 if up else 1, self.shift(self.within(), down=not up), self.difference())

    @judges("no_difference")
    def no_difference(self) -> Finding:
        """Two one-sided tests: the difference lies within the margins, or outside them."""
        low, high = self.shift(self.within(), down=True), self.shift(self.within(), down=False)
        fit, contrast = self.fit_of(self.pair()), pair(2, 0, 1)
        margin = f"±{self.within():g}"
        return Finding(
            p_within(fit, contrast, low, high)[:, 0], p_outside(fit, contrast, low, high)[:, 0],
            self.difference().turning_at(low, high), f"two one-sided tests find it within {margin}",
            f"it lies outside {margin}", f"it is shown neither within {margin} nor outside",
        )  # fmt: skip

    @judges("ratio_at_most", "ratio_at_least")
    def ratio(self) -> Finding:
        """The logarithm of the ratio against that of the bound."""
        log = replace(self.metric, scale="log")
        effect = self.difference(log)
        sign = 1 if self.statement.kind == "ratio_at_least" else -1
        found = self.one_sided(sign, math.log(self.bound()) if self.bound() > 0 else -math.inf, effect, log)
        claimed = f"ratio {spell_ratio(math.log(effect.value))}, claimed {'≥' if sign > 0 else '≤'} {self.bound():g}"
        return replace(found, why_for=claimed, why_against=claimed, why_open=claimed)

    @judges("spread_at_most")
    def spread(self) -> Finding:
        """The chi-squared test of the standard deviation against the bound, in the metric's own unit."""
        bound = self.bound()
        self.require_value(self.arm(), self.metric)
        self.require_one_version([self.arm()])
        values = list(self.the_arm(self.arm()).sample(self.metric.column).values.values())
        found = estimate(values)
        if found.sd is None:
            raise _NoValue("one seed has no spread")
        freedom = found.n - 1
        low, high = (found.sd * math.sqrt(freedom / float(chi2.ppf(q, freedom))) for q in _tails(self.level))
        effect = Effect(found.sd, low, high, "standard deviation over seeds", (found.n,), "chi-squared", (bound,), -1)
        ratio = freedom * (found.sd / bound) ** 2 if bound else math.inf
        below, above = (np.array([2 * float(p), 0.0]) for p in (chi2.cdf(ratio, freedom), chi2.sf(ratio, freedom)))
        return Finding(np.minimum(1, below), np.minimum(1, above), effect, *_AGREES)

    # --- arms along an axis -------------------------------------------------------------------------------------------

    @judges("rises", "falls")
    def monotone(self) -> Finding:
        """The ends are apart by `by`, and it turns back nowhere (shapes.py)."""
        values, arms = zip(*self.points(), strict=True)
        fit = self.fit_of(arms)
        by = self.statement.by or 0.0
        sign = 1 if self.statement.kind == "rises" else -1
        fit = fit if sign > 0 else fit.mirrored()
        border = self.shift(by, down=sign < 0, than=arms[0])
        shown = rises(fit, abs(border))
        effect = self.between(fit if sign > 0 else fit.mirrored(), len(arms) - 1, 0)
        weak, back = (" and ".join(values[i] for i in pair) for pair in (shown.weakest, shown.opposed))
        return Finding(
            shown.p_for, shown.p_against, effect.turning_at(border, side=sign),
            f"all the way from {values[0]} to {values[-1]}", f"it goes the other way between {back}",
            f"not shown between {weak}",
        )  # fmt: skip

    @judges("best_at", "turning_point")
    def best_at(self) -> Finding:
        """One of the claimed points beats every other; another point that beats all claimed ones contradicts."""
        values, arms = zip(*self.points(), strict=True)
        claimed = [i for i, value in enumerate(values) if value in self.statement.at]
        ends = (0, len(values) - 1) if self.statement.kind == "turning_point" else ()
        if len(claimed) == len(values) and not ends:
            raise _NoValue("there is no other point to compare with")
        if len(claimed) == len(values) == len(ends):
            raise _NoValue("all its points are ends of the axis, so nothing can turn")
        fit = self.fit_of(arms)
        shown = lowest_at(fit if self.better_is_lower else fit.mirrored(), claimed, ends)
        one, other = shown.weakest
        if one == other:  # nothing turns: what is shown is the point that beats all
            effect = self.between(fit, *shown.opposed)
        else:
            effect = self.between(fit, one, other).turning_at(0.0, side=-1 if self.better_is_lower else 1)
        return Finding(shown.p_for, shown.p_against, effect, *self._best_words(values, shown))

    def _best_words(self, values: Sequence[str], shown: Shown) -> tuple[str, str, str]:
        best, rival = (values[i] for i in shown.weakest)
        other = values[shown.opposed[0]]
        return (
            f"{best} is better than every other point",
            f"{other} is better than every claimed point",
            f"best of the claimed points is {best}; not told from {rival}" if best != rival
            else f"the best point is {best}, an end of the axis: nothing turns",
        )  # fmt: skip

    # --- numbers ------------------------------------------------------------------------------------------------------

    def one_sided(self, sign: int, bound: float, effect: Effect, metric: Metric | None = None) -> Finding:
        """Whether sign * difference is above sign * bound; both directions are tested, so each p counts twice."""
        fit, contrast = self.fit_of(self.pair(), metric), sign * pair(2, 0, 1)
        above, below = p_above(fit, contrast, sign * bound), p_above(fit, -contrast, -sign * bound)
        p_for, p_against = (np.minimum(1, 2 * p[:, 0]) for p in (above, below))
        effect, shown = effect.turning_at(bound, side=sign), metric or self.metric
        words = _AGREES
        if bound:
            claimed = f"{shown.spell_effect(bound)}, seen {shown.spell_effect(float(fit.difference(pair(2, 0, 1))[0]))}"
            words = (f"claimed {'above' if sign > 0 else 'below'} {claimed}",) * 3
        return Finding(p_for, p_against, effect, *words)

    def shift(self, by: float, *, down: bool, than: str | None = None) -> float:
        """`by` in the metric's unit, as a difference on its scale at the level of the other arm."""
        if self.metric.scale == "linear" or not by:
            return -by if down else by
        arm = than or self.pair()[1]
        level = math.exp(float(self.fit_of((arm,)).layout.means[0]))
        return math.log(max(level + (-by if down else by), 1e-300) / level)

    def difference(self, metric: Metric | None = None) -> Effect:
        """arm - than with its interval; on a log scale the ratio."""
        return self.between(self.fit_of(self.pair(), metric), 0, 1, metric)

    def between(self, fit: Fit, one: int, other: int, metric: Metric | None = None) -> Effect:
        """The arm at place `one` minus that at `other`."""
        contrast = pair(fit.arms, one, other)
        value, n = float(fit.difference(contrast)[0]), tuple(int(fit.layout.counts[i]) for i in (one, other))
        half = float(fit.half_width(contrast, self.level, level_of_look(self.table.looks))[0])
        known = math.isfinite(half) and half < 1e6 * (1 + abs(value))
        low, high = (value - half, value + half) if known else (None, None)
        kind = SINGLE if min(n) == 1 else PAIRED if bool(fit.layout.blocked) else INDEPENDENT
        basis = f"{kind}; spread of {self.lenders()} alike arms" if kind == SINGLE else kind
        if (metric or self.metric).scale == "linear":
            return Effect(value, low, high, "difference", n, basis)
        low, high = (None if edge is None else math.exp(edge) for edge in (low, high))
        return Effect(math.exp(value), low, high, "ratio", n, basis)

    def lenders(self) -> int:
        """How many arms lend their spread."""
        lent = self.table.alike.lent(self.metric)
        return 0 if lent is None else len(lent[0])

    def fit_of(self, arms: Sequence[str], metric: Metric | None = None) -> Fit:
        """These arms in the layout of all arms of the table."""
        for arm in arms:
            self.require_value(arm, metric or self.metric)
        self.require_one_version(arms)
        fit, places = self.fits.of(metric or self.metric)
        if fit is None:
            raise _NoValue("nothing to test by: no arm and no alike run shows a spread on the metric's scale")
        return fit.select([places[arm] for arm in arms])

    def the_arm(self, arm: str) -> Arm:
        """The arm with this id."""
        found = next((a for a in self.table.arms if a.arm == arm), None)
        if found is None:
            raise _NoValue(f"no value for {arm}")
        return found

    def require_value(self, arm: str, metric: Metric) -> None:
        """Raise unless the arm has a value that seeds which were lost do not flatter."""
        found = self.the_arm(arm)
        if not found.sample(metric.column).values:
            raise _NoValue(f"no value for {found.label}")
        if found.lost:
            raise _NoValue(
                f"{found.lost} of {len(found.runs) + found.lost_elsewhere} seeds of {found.label} diverged or stopped: "
                "the rest flatters it"
            )

    def require_one_version(self, arms: Sequence[str]) -> None:
        """Raise unless all runs of these arms are of one version of code and data."""
        sides = [self.the_arm(arm) for arm in arms]
        if any(mixed(a, sides[0]) for a in sides):
            raise _NoValue("its runs mix versions of code or data")


_AGREES = ("the interval agrees", "the interval disagrees", "the interval holds both answers")


class _Fits:
    """All arms of a table that have a value, a fit a metric."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.made: dict[Metric, tuple[Fit | None, dict[str, int]]] = {}

    def of(self, metric: Metric) -> tuple[Fit | None, dict[str, int]]:
        """The fit and the places of the arms in it; None where nothing can be tested."""
        if metric not in self.made:
            self.made[metric] = self._fit(metric)
        return self.made[metric]

    def _fit(self, metric: Metric) -> tuple[Fit | None, dict[str, int]]:
        samples = {arm.arm: arm.sample(metric.column) for arm in self.table.arms}
        samples = {arm: sample for arm, sample in samples.items() if sample.values}
        fit = build_fit([*samples.values()], metric, self.table.alike.lent(metric, samples)) if samples else None
        testable = fit is not None and has_spread(fit)
        return fit if testable else None, {arm: place for place, arm in enumerate(samples)}


def _tails(level: float) -> tuple[float, float]:
    return 1 - level / 2, level / 2


require_judges()
