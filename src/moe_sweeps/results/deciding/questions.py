"""The questions of a table: its claims, and each arm against the baseline in validation loss and in MaxVio.

A question is answered by the judges of the table alone (results/claims.py, results/compare.py). What is read off here
serves to choose runs: which pairs of arms the answer still hangs on, and how far apart each pair is seen.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from moe_sweeps.records.claims import Statement
from moe_sweeps.records.numbers import PRIMARY, Metric, metric_of
from moe_sweeps.records.words import NOT_JUDGED, UNDECIDED
from moe_sweeps.results.claims import judge
from moe_sweeps.results.compare import SINGLE, Comparison, build_fit, has_spread
from moe_sweeps.results.deciding.chances import critical, equal_later, found_later, spread_found_later
from moe_sweeps.results.findings import Verdict
from moe_sweeps.results.shapes import TOLERANCE
from moe_sweeps.results.tables import Table

COMPARED = (PRIMARY.column, "val_maxvio_global")
Counts = Mapping[str, float]  # arm -> seeds


class Side(StrEnum):
    """Of a claim, showing it or contradicting it: the one that is nearer now, and the other one."""

    nearer = "nearer"
    farther = "farther"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms, and how far their difference is seen from the value that it is held against, in sd of one run.

    `spread`: of a claim about one arm's spread, that over its bound; then both arms are the same. `side`: of a
    claim that is shown by pairs of its own and contradicted by others, which of the two is nearer, and which is not;
    there only a difference above the value counts. `width`: of a claim that two arms differ by no more than a margin,
    from one margin to the other; `away` is then from the nearer one, negative outside.
    """

    a: str
    b: str
    away: float
    spread: float | None = None
    side: Side | None = None
    width: float | None = None

    def seeds(self, counts: Counts) -> float:
        """Seeds an arm that know the difference as well as these counts do."""
        a, b = counts.get(self.a, 0), counts.get(self.b, 0)
        return 2 / (1 / a + 1 / b) if a and b else 0.0

    def chance(self, now: Counts, later: Counts, family: int, level: float) -> float:
        """The chance that it is found with the counts `later`."""
        seen = self.seeds(now)
        if self.spread is not None:
            return spread_found_later(self.spread, int(later.get(self.a, 0)), level / family)
        if not seen:
            return 0.0
        then = self.seeds(later)
        if self.width is not None:
            return self._equal(seen, then, family, level)
        return found_later(self.away, seen, then, critical(then, family, level), one_sided=self.side is not None)

    def _equal(self, seen: float, then: float, family: int, level: float) -> float:
        """The chance that the difference is found within the margins, by two one-sided tests, or outside."""
        assert self.width is not None
        inside = critical(then, family, min(2 * level, 0.5))
        return equal_later(self.away, self.width, seen, then, inside, critical(then, family, level))


@dataclass(frozen=True, slots=True)
class Question:
    """One question and how it stands.

    `answer` is the verdict in the words of every output, "" while it is open; `p` is corrected. `pairs` are all to be
    shown; none of them where nothing is known yet, and then `arms` are those that it speaks of. `stuck`: why no further
    run can answer it. `family`: how many questions its p is corrected over. `mirror`: the key of the same question
    asked the other way round.
    """

    key: str
    text: str
    metric: str
    arms: tuple[str, ...]
    answer: str = ""
    p: float | None = None
    effect: str = ""
    pairs: tuple[Pair, ...] = ()
    family: int = 1
    stuck: str = ""
    mirror: str = ""

    @property
    def is_open(self) -> bool:
        """Whether further runs may answer it."""
        return not (self.answer or self.stuck)

    def needs(self, now: Counts, level: float) -> tuple[str, ...]:
        """The arms whose further runs help: pairs that are clearly apart need none."""
        if not self.pairs:
            return self.arms
        pairs = [pair for pair in self.pairs if pair.side is not Side.farther]
        sure = [pair for pair in pairs if pair.spread is None and _is_clear(pair, now, self.family, level)]
        rest = [pair for pair in pairs if pair not in sure] or pairs
        return tuple(dict.fromkeys(arm for pair in rest for arm in (pair.a, pair.b)))

    def chance(self, now: Counts, later: Counts, level: float) -> float:
        """The chance that the counts `later` answer it: that of its least likely pair, of either side."""
        sides: dict[Side | None, list[float]] = {}
        for pair in self.pairs:
            sides.setdefault(pair.side, []).append(pair.chance(now, later, self.family, level))
        return min(1.0, sum(map(min, sides.values())))


def questions(table: Table) -> list[Question]:
    """Every question of the table, as its judges see it now."""
    scales: dict[str, _Scale | None] = {}

    def scale(metric: Metric) -> _Scale | None:
        key = f"{metric.column} {metric.scale}"
        if key not in scales:
            scales[key] = _Scale.of(table, metric)
        return scales[key]

    return [*_claims(table, scale), *_comparisons(table, scale)]


_Scales = Callable[[Metric], "_Scale | None"]


# --- claims -----------------------------------------------------------------------------------------------------------


def _claims(table: Table, scale: _Scales) -> Iterator[Question]:
    statements = table.manifest.expect
    family = sum(not (statement.cannot or statement.fault()) for statement in statements)
    for statement, verdict in zip(statements, judge(table), strict=True):
        arms = tuple(dict.fromkeys(a for a in (statement.arm, statement.than, *(a for _, a in statement.points)) if a))
        question = Question(
            _key("claim", statement.asked()), statement.claim, statement.metric, arms,
            p=verdict.p, effect=_effect(verdict), family=max(family, 1),
            stuck=_stuck_claim(table, statement, verdict, arms),
        )  # fmt: skip
        if verdict.verdict not in (UNDECIDED, NOT_JUDGED):
            question = replace(question, answer=verdict.verdict)
        yield question if question.stuck else replace(question, pairs=tuple(_pairs(statement, scale)))


def _stuck_claim(table: Table, statement: Statement, verdict: Verdict, arms: Sequence[str]) -> str:
    if statement.cannot:
        return statement.cannot
    if verdict.verdict == NOT_JUDGED:
        return verdict.why
    return _stuck_arms(table, arms)


def _stuck_arms(table: Table, arms: Sequence[str]) -> str:
    """Why no further seed of these arms can change that there is no verdict."""
    mine = [arm for arm in table.arms if arm.arm in arms]
    for arm in mine:
        if arm.lost:
            return f"{arm.lost} seeds of {arm.label} diverged or stopped: the rest flatters it"
    if len({code for arm in mine for code in arm.code}) > 1 or len({one for arm in mine for one in arm.data}) > 1:
        return "its runs mix versions of code or data"
    return ""


def _effect(verdict: Verdict) -> str:
    found = verdict.effect
    if found is None:
        return ""
    interval = "" if found.low is None or found.high is None else f" ({found.low:.3g} to {found.high:.3g})"
    return f"{found.what} {found.value:.3g}{interval}"


def _pairs(statement: Statement, scale: _Scales) -> Iterator[Pair]:
    """The pairs of arms that the statement hangs on; nothing while an arm has no value."""
    metric = metric_of(statement.metric)
    if statement.kind.startswith("ratio_"):
        metric = replace(metric, scale="log")
    known = scale(metric)
    if known is None:
        return
    try:
        if statement.points:
            yield from _along(statement, known)
        elif statement.kind == "spread_at_most":
            yield from _spread(statement, known)
        else:
            yield _two(statement, known)
    except (KeyError, ValueError, ZeroDivisionError):  # an arm without a value on the scale
        return


def _two(statement: Statement, known: _Scale) -> Pair:
    assert statement.arm is not None
    assert statement.than is not None
    a, b = statement.arm, statement.than
    found, lower = known.means[a] - known.means[b], statement.better != "higher"
    if statement.kind in ("better", "worse"):
        down = (statement.kind == "better") == lower
        return Pair(a, b, (found - known.shift(b, statement.by or 0.0, down=down)) / known.sd)
    if statement.kind == "not_worse":
        return Pair(a, b, (found - known.shift(b, statement.within or 0.0, down=not lower)) / known.sd)
    if statement.kind == "no_difference":
        low, high = (known.shift(b, statement.within or 0.0, down=down) for down in (True, False))
        return Pair(a, b, min(found - low, high - found) / known.sd, width=(high - low) / known.sd)
    return Pair(a, b, (found - math.log(statement.bound or 0.0)) / known.sd)


def _spread(statement: Statement, known: _Scale) -> Iterator[Pair]:
    assert statement.arm is not None
    if (own := known.raw_sds.get(statement.arm)) is not None and statement.bound:
        yield Pair(statement.arm, statement.arm, 0.0, own / statement.bound)


def _along(statement: Statement, known: _Scale) -> Iterator[Pair]:
    arms = [arm for _, arm in statement.points]
    rising = statement.kind in ("rises", "falls")
    downward = statement.kind == "falls" if rising else statement.better == "higher"
    means = {arm: known.means[arm] * (-1 if downward else 1) for arm in arms}
    if rising:
        yield from _monotone(arms, means, known.shift(arms[0], statement.by or 0.0, down=downward), known.sd)
    else:
        yield from lowest(statement, arms, means, known.sd)


def _monotone(arms: Sequence[str], means: Mapping[str, float], by: float, sd: float) -> Iterator[Pair]:
    """The ends, and every pair that must not turn back; if one does, that one alone, since it contradicts."""
    whole = means[arms[-1]] - means[arms[0]]
    steps = [(means[b] - means[a], a, b) for a, b in itertools.combinations(arms, 2)]
    back, a, b = min(steps)
    if whole <= abs(by):
        yield Pair(arms[-1], arms[0], (whole - abs(by)) / sd)
    elif back + TOLERANCE * whole < 0:
        yield Pair(b, a, back / sd)
    else:
        yield Pair(arms[-1], arms[0], (whole - abs(by)) / sd)
        yield from (Pair(b, a, (step + TOLERANCE * whole) / sd) for step, a, b in steps)


def lowest(statement: Statement, arms: Sequence[str], means: Mapping[str, float], sd: float) -> Iterator[Pair]:
    """The best claimed point against every rival shows it, the best other one against every claimed point contradicts
    it. Nothing where neither can be."""
    claimed = [arm for value, arm in statement.points if value in statement.at]
    ends = {arms[0], arms[-1]} if statement.kind == "turning_point" else set()
    inside = [arm for arm in claimed if arm not in ends]
    others = [arm for arm in arms if arm not in claimed]
    rivals = [arm for arm in arms if arm in others or arm in ends]
    found = [_below_all(inside, rivals, means, sd), _below_all(others, claimed, means, sd)]
    found.sort(key=lambda pairs: min((pair.away for pair in pairs), default=-math.inf), reverse=True)
    for side, pairs in zip(Side, found, strict=True):
        yield from (replace(pair, side=side) for pair in pairs)


def _below_all(arms: Sequence[str], rivals: Sequence[str], means: Mapping[str, float], sd: float) -> list[Pair]:
    """The lowest of `arms` against each of the rivals; none where there are no arms or no rivals."""
    best = min(arms, key=lambda arm: means[arm], default=None)
    return [] if best is None else [Pair(best, r, (means[r] - means[best]) / sd) for r in rivals]


# --- comparisons ------------------------------------------------------------------------------------------------------


def _comparisons(table: Table, scale: _Scales) -> Iterator[Question]:
    if table.baseline is None:
        return
    base = table.arm(table.baseline)
    for metric in map(metric_of, COMPARED):
        found = table.differences if metric is PRIMARY else table.others.get(metric.column, {})
        known = scale(metric)
        for arm in table.arms:
            if arm.arm == base.arm:
                continue
            comparison = found.get(arm.arm)
            pairs = () if known is None else tuple(known.apart(arm.arm, base.arm))
            yield Question(
                _key(metric.column, [arm.arm, base.arm]), f"{metric.header}: {arm.label} against {base.label}",
                metric.column, (arm.arm, base.arm), _answer(comparison), comparison.p_family if comparison else None,
                _difference(comparison), pairs, max(len(found), len(table.arms) - 1),
                _stuck_arms(table, (arm.arm, base.arm)), _key(metric.column, [base.arm, arm.arm]),
            )  # fmt: skip


def _answer(found: Comparison | None) -> str:
    """Its verdict. One that rests on a single seed is none: two more seeds are cheap, and check its spread."""
    return found.verdict if found is not None and found.decided and found.kind != SINGLE else ""


def _difference(found: Comparison | None) -> str:
    if found is None:
        return ""
    ends = (found.low, found.high)
    interval = "" if None in ends else " (" + " to ".join(found.metric.spell_effect(e or 0.0) for e in ends) + ")"
    return found.metric.spell_effect(found.difference) + interval


# --- numbers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    """Means of the arms on a metric's scale, the spread of one run that they have in common, and each arm's own in the
    metric's unit."""

    metric: Metric
    means: dict[str, float]
    raw_sds: dict[str, float]
    sd: float

    @classmethod
    def of(cls, table: Table, metric: Metric) -> _Scale | None:
        """None where no arm shows a spread."""
        samples = {arm.arm: arm.sample(metric.column) for arm in table.arms}
        samples = {arm: sample for arm, sample in samples.items() if sample.values}
        fit = build_fit([*samples.values()], metric, table.alike.lent(metric, samples)) if samples else None
        if fit is None or not has_spread(fit):
            return None
        raw = {arm: list(sample.values.values()) for arm, sample in samples.items()}
        own = {arm: statistics.stdev(values) for arm, values in raw.items() if len(values) > 1}
        means = {arm: float(fit.layout.means[i]) for i, arm in enumerate(samples)}
        return cls(metric, means, own, math.sqrt(float(fit.squares.sum() / fit.freedom.sum())))

    def apart(self, a: str, b: str) -> Iterator[Pair]:
        """The pair and its difference, where both are known."""
        if a in self.means and b in self.means:
            yield Pair(a, b, (self.means[a] - self.means[b]) / self.sd)

    def shift(self, than: str, by: float, *, down: bool) -> float:
        """`by` in the metric's unit, as a difference on the scale at the level of the arm `than`."""
        by = -by if down else by
        if self.metric.scale == "linear" or not by:
            return by
        level = math.exp(self.means[than])
        return math.log(max(level + by, 1e-300) / level)


def _is_clear(pair: Pair, now: Counts, family: int, level: float) -> bool:
    """Whether a pair is so far apart that the seeds there are show it, with a quarter to spare."""
    away = abs(pair.away) if pair.side is None else pair.away
    return away > 1.25 * critical(pair.seeds(now), family, level)


def _key(kind: str, content: object) -> str:
    return hashlib.sha256(json.dumps([kind, content], sort_keys=True).encode()).hexdigest()[:16]
