"""Two sides, one verdict: better, worse, equivalent or undecided, and the cheapest next runs that would decide it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.records.code_record import disagree
from moe_sweeps.records.numbers import Metric
from moe_sweeps.records.words import BETTER, EQUIVALENT, UNDECIDED, WORSE
from moe_sweeps.results.compare import Comparison, Sample, build_fit, compare_all
from moe_sweeps.results.equivalence import p_within
from moe_sweeps.results.looks import level_of_look
from moe_sweeps.results.nested import is_forked, start_of, unit_values, units
from moe_sweeps.results.noise import Alike, Noise, code_of, versions_of
from moe_sweeps.results.power import Shape, seeds_to_decide
from moe_sweeps.results.runs import Row
from moe_sweeps.results.shapes import pair
from moe_sweeps.results.timing import unlike

Margin = tuple[float, float]  # lower and upper, on the metric's scale


@dataclass(frozen=True, slots=True)
class Next:
    """The fewest further runs that decide with a chance of 80% if the difference is what it looks like: that it is
    there, or that it is within the margin.

    `a` and `b` are runs of each side, `core_hours` what they cost at the pace of those that there are; None where even
    power.MOST_SEEDS seeds do not. They are judged at the look `look`, whose level is what they were planned for.
    """

    a: int
    b: int
    core_hours: float | None
    look: int = 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """A minus B on the metric's scale. From `margin[0]` to `margin[1]` a difference counts as none; `rests_on` says
    what the verdict rests on, in words."""

    verdict: str
    comparison: Comparison
    p_equivalent: float | None
    margin: Margin | None
    sd: float | None
    rests_on: tuple[str, ...]
    next: Next | None


def judge_sides(
    a: Sequence[Row], b: Sequence[Row], metric: Metric, noise: Noise, *, within: Margin | None = None, look: int = 1,
    plan: bool = True,
) -> Judgement:  # fmt: skip
    """The verdict on the runs `a` against the runs `b`.

    `within`: what counts as no difference on the metric's scale; by default the spread of one run over seeds. A side
    that lost seeds has no verdict: those that are left flatter it.
    `plan`: whether the next runs are wanted, which take seconds to find beside many alike arms.

    Raises:
        MoeSweepsError: a side has no finished run, a run is on both sides, code or data are mixed, or the metric is a
            time and the machines differ.
    """
    _require_comparable(a, b)
    every = [*a, *b]
    if metric.timed and (why := unlike(every)):
        raise MoeSweepsError(f"{metric.column} cannot be compared: {why}")
    data = sorted({v for row in every for v in versions_of(row, "data_fingerprint")})
    code = [record for row in every for record in code_of(row)]
    alike, there = noise.like(sorted({row["size"] for row in every}), data, code), noise.of_versions(data, code)
    samples = {"b": _sample(b, metric), "a": _sample(a, metric)}
    lent = alike.lent(metric, {row["arm"] for row in every})
    found = compare_all(samples, "b", metric, lent=lent, look=look).get("a")
    if found is None:
        raise MoeSweepsError(f"{metric.column} is not there on both sides, or has no place on its scale")
    found = replace(found, lost=sum(there.lost(arm) for arm in {row["arm"] for row in every}))
    sd = _sd(samples, metric, lent)
    margin = within if within is not None else None if sd is None else (-sd, sd)
    fit = build_fit([samples["b"], samples["a"]], metric, lent)
    p_same = None
    if found.p is not None and margin is not None and fit is not None:
        p_same = float(p_within(fit, pair(2, 1, 0), *margin).max())
    verdict = _verdict(found, p_same, level_of_look(look))
    wanted = plan and verdict == UNDECIDED and not found.lost
    cheapest = _next(a, b, found, sd, margin, alike, look) if wanted and sd and margin else None
    return Judgement(verdict, found, p_same, margin, sd, _words(found, lent is not None), cheapest)


def _verdict(found: Comparison, p_same: float | None, level: float) -> str:
    if found.lost:
        return UNDECIDED
    if p_same is not None and p_same < level:  # also where a difference this small was found
        return EQUIVALENT
    if not found.decided:
        return UNDECIDED
    return BETTER if found.better else WORSE


def _require_comparable(a: Sequence[Row], b: Sequence[Row]) -> None:
    if not a or not b:
        raise MoeSweepsError(f"{'A' if not a else 'B'} has no finished run")
    if both := {row["run_id"] for row in a} & {row["run_id"] for row in b}:
        raise MoeSweepsError(f"{len(both)} runs are on both sides, such as {min(both)}")
    every = [*a, *b]
    if disagree([record for row in every for record in code_of(row)]):
        raise MoeSweepsError("the runs were trained by versions of the code that contradict each other")
    if len({v for row in every for v in versions_of(row, "data_fingerprint")}) > 1:
        raise MoeSweepsError("the runs saw different data")
    if len({(row.get("fork.step"), row.get("fork.arm"), row.get("fork.role")) for row in every}) > 1:
        raise MoeSweepsError("the runs were not forked from the same trunk, so they answer different questions")


def _sample(rows: Sequence[Row], metric: Metric) -> Sample:
    known = [row for row in rows if isinstance(row.get(metric.column), int | float)]
    if any(map(is_forked, known)):
        if len({row["arm"] for row in known}) > 1:
            raise MoeSweepsError("several arms of forks are no side of a comparison: name one arm")
        values = unit_values(known, lambda row: float(row[metric.column]))
        return Sample(values, {seeds: start_of(found, lambda row: None) for seeds, found in units(known).items()}, True)
    keys = [(row["seed"], row.get("data_seed")) for row in known]
    doubles = len(set(keys)) < len(keys)  # several arms as one side: every run is a seed of its own
    seeds: list[object] = [row["run_id"] for row in known] if doubles else [*keys]
    starts = [(row.get("pairing.initial_weights"), row.get("pairing.batches")) for row in known]
    values = {seed: float(row[metric.column]) for seed, row in zip(seeds, known, strict=True)}
    return Sample(values, {s: None if None in start else start for s, start in zip(seeds, starts, strict=True)})


def _sd(samples: dict[str, Sample], metric: Metric, lent: object) -> float | None:
    """The spread of one run that both sides and alike arms have in common."""
    groups = [[metric.on_scale(v) for v in sample.values.values()] for sample in samples.values()]
    squares = sum(float(np.var(g)) * len(g) for g in groups)
    freedom = float(sum(len(g) - 1 for g in groups))
    if isinstance(lent, tuple):
        squares, freedom = squares + float(lent[0].sum()), freedom + float(lent[1].sum())
    return math.sqrt(squares / freedom) if freedom and squares > 0 else None


def _next(
    a: Sequence[Row], b: Sequence[Row], found: Comparison, sd: float, margin: Margin, alike: Alike, look: int
) -> Next:
    """The fewest more seeds that decide at the level of the next look; None where no seeds or looks are left."""
    lent = alike.lent(found.metric, {row["arm"] for row in (*a, *b)})
    shape = Shape(2, 2, paired=False, lent=() if lent is None else tuple(map(int, lent[1])))
    level = level_of_look(look + 1)
    edge = margin[1] if found.difference > 0 else -margin[0]  # the one that it lies nearer to
    seeds = seeds_to_decide(shape, abs(found.difference) / sd, edge / sd, level=level) if level else None
    if seeds is None:
        return Next(0, 0, None, look + 1)
    more_a, more_b = max(0, seeds - found.n[0]), max(0, seeds - found.n[1])
    if not (more_a or more_b):  # planned on average: this table was less lucky
        more_a = more_b = 1
    return Next(more_a, more_b, more_a * _hours(a) + more_b * _hours(b), look + 1)


def _hours(rows: Sequence[Row]) -> float:
    """Core-hours of one run: wall time times threads."""
    times = [float(row.get("wall_seconds") or 0) * float(row.get("launch.threads") or 1) for row in rows]
    return sum(times) / len(times) / 3600


def _words(found: Comparison, lent: bool) -> tuple[str, ...]:
    words = [f"{found.n[0]} and {found.n[1]} finished runs, {found.kind}"]
    if lent:
        words.append("the spread of alike arms, of other sweeps, too")
    if found.kind == "one seed":
        words.append("a side with one run is taken to scatter like alike arms, which nothing here can check")
    if found.lost:
        words.append(f"seeds that are left: {found.lost} diverged or stopped, which flatters the rest; so no verdict")
    return tuple(words)


def on_scale_margin(within: float | None, b: Sequence[Row], metric: Metric) -> Margin | None:
    """A margin in the metric's unit, below and above, on its scale: of a logarithmic one at the level of B.

    None without one, and where B has no number on the scale, so that there is nothing to compare either.
    """
    if within is None or metric.scale == "linear":
        return None if within is None else (-within, within)
    numbers = [float(x) for row in b if isinstance(x := row.get(metric.column), int | float)]
    scaled = [metric.on_scale(x) for x in numbers]
    if not scaled or not np.isfinite(scaled).all():
        return None
    level = math.exp(sum(scaled) / len(scaled))
    return math.log(max(level - within, 1e-300) / level), math.log1p(within / level)
