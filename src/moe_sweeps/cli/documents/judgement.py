"""`moe-sweeps judge --json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.cli.documents.document import Document, Part, told
from moe_sweeps.results.judging import Judgement
from moe_sweeps.results.runs import Row


@dataclass(frozen=True, slots=True)
class Sides(Part):
    """A number of each side."""

    a: int = told("of A")
    b: int = told("of B")


@dataclass(frozen=True, slots=True)
class SideRuns(Part):
    """The runs of each side."""

    a: list[str] = told("run ids of A")
    b: list[str] = told("run ids of B")


@dataclass(frozen=True, slots=True)
class NextData(Part):
    """The fewest further runs that decide with a chance of 80%, if the difference is what it looks like."""

    a: int = told("more runs of A")
    b: int = told("more runs of B")
    core_hours: float | None = told("what they cost; null: no affordable number of seeds decides it")
    look: int = told("what to say with --look when they are there: the level that they were planned for")


@dataclass(frozen=True, slots=True)
class JudgementDocument(Document):
    """Is A better than B? Exit code 0: better, 10: worse, 11: equivalent, 12: undecided."""

    SCHEMA: ClassVar[str] = "moe-sweeps/judge"

    verdict: str = told("better, worse, equivalent or undecided")
    metric: str = told("a key of summary.json")
    scale: str = told("linear, or log: then difference, low, high, margins and sd are of natural logarithms")
    difference: float = told("A minus B")
    low: float | None = told("lower end of its interval; null where nothing can be tested")
    high: float | None = told("its upper end")
    level: float = told("what p is held against, at this look")
    p: float | None = told("of a difference, two-sided")
    probability_better: float | None = told(
        "that A is better than B, by the same test; null where nothing can be tested"
    )
    p_equivalent: float | None = told("of one outside the margins: two one-sided tests")
    margin: float | None = told("a difference up to here counts as none")
    margin_low: float | None = told("and down to here")
    sd: float | None = told("of one run over seeds")
    seeds: str = told("paired by seed, independent, or one seed")
    n: Sides = told("finished runs")
    rests_on: list[str] = told("in words")
    runs: SideRuns = told("finished runs")
    next: NextData | None = told("if undecided")


def judgement_document(found: Judgement, a: Sequence[Row], b: Sequence[Row]) -> JudgementDocument:
    """The document of a judgement on the runs `a` and `b`."""
    c, further = found.comparison, found.next
    below, above = found.margin or (None, None)
    runs = SideRuns([row["run_id"] for row in a], [row["run_id"] for row in b])
    return JudgementDocument(
        found.verdict, c.metric.column, c.metric.scale, c.difference, c.low, c.high, c.level, c.p_family,
        c.probability_better, found.p_equivalent, above, below, found.sd, c.kind, Sides(*c.n), list(found.rests_on),
        runs,
        None if further is None else NextData(further.a, further.b, further.core_hours, further.look),
    )  # fmt: skip
