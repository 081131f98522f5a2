"""`moe-sweeps decide --json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.cli.decide_view import reason
from moe_sweeps.cli.documents.document import Document, Part, Trouble, told, troubles
from moe_sweeps.results.deciding.batches import Batch, Prospect
from moe_sweeps.sweep.decide.decision import Decision
from moe_sweeps.sweep.decide.record import Answer


@dataclass(frozen=True, slots=True)
class AnsweredData(Part):
    """A question that a look answered."""

    sweep: str = told("name of the sweep")
    question: str = told("in words")
    answer: str = told("reproduced, contradicted, better, or worse")
    effect: str = told("with its interval, as it is printed")
    p: float | None = told("corrected, as the look judged it")


@dataclass(frozen=True, slots=True)
class WithdrawnData(Part):
    """An answer of a look that does not count any more."""

    sweep: str = told("name of the sweep")
    question: str = told("in words")
    answer: str = told("as the look gave it")
    why: str = told("in words: it is not asked any more, or cannot be judged now")


@dataclass(frozen=True, slots=True)
class OpenData(Part):
    """A question that no look has answered."""

    sweep: str = told("name of the sweep")
    question: str = told("in words")
    effect: str = told("as the last look showed it, or as it is seen now if runs have ended since; no verdict")
    fate: str = told("goes on, waits (for the look), dropped, stuck, failing, or unseen")
    why: str = told("in words")
    chance: float = told("of an answer with the best number of seeds that fits into the rest of the budget")
    seeds: int = told("that number, an arm; 0: none fits")
    core_seconds: float = told("what they cost")


@dataclass(frozen=True, slots=True)
class LookData(Part):
    """A look that was taken."""

    sweep: str = told("name of the sweep")
    look: int = told("its number among all looks at these arms, from 1")
    sweep_id: str = told("the sweep that was judged")


@dataclass(frozen=True, slots=True)
class BatchData(Part):
    """The runs that would be trained next."""

    sweep: str = told("name of the sweep")
    runs: list[str] = told("run ids")
    core_seconds: float = told("what they cost")
    questions: list[str] = told("which they are for")


@dataclass(frozen=True, slots=True)
class DecideDocument(Document):
    """What was decided. Exit code 0: everything, 12: something is not decided, 1: not, and a run failed."""

    SCHEMA: ClassVar[str] = "moe-sweeps/decide"

    budget: float = told("core-seconds")
    spent: float = told("core-seconds that the decisions have paid for, in all calls together")
    looks: list[LookData] = told("in the order in which they were taken")
    answered: list[AnsweredData] = told("questions with an answer that stands")
    withdrawn: list[WithdrawnData] = told("answers that do not count any more")
    open: list[OpenData] = told("questions without one")
    next: BatchData | None = told("with --dry-run, the first batch; else null")
    problems: list[Trouble] = told("what could not be read")


def decide_document(
    decisions: Sequence[Decision], budget: float, first: tuple[Decision, Batch] | None = None
) -> DecideDocument:
    """The document of these decisions; `first`: the batch that would come first."""
    spent = sum(decision.spent() for decision in decisions)
    problems = {(p.path, p.reason): p for d in decisions for p in (*d.problems, *d.runs.problems)}
    return DecideDocument(
        budget,
        spent,
        [LookData(d.pool.name, look.look, look.sweep_id) for d in decisions for look in d.record.closed],
        [_answered(d.pool.name, one.answer) for d in decisions for one in d.standing() if not one.withdrawn],
        [
            WithdrawnData(d.pool.name, one.answer.text, one.answer.answer, one.withdrawn)
            for d in decisions
            for one in d.standing()
            if one.withdrawn
        ],
        [_open(d, p) for d in decisions for p in d.prospects(budget - spent)],
        None if first is None else _batch(*first),
        troubles(list(problems)),
    )  # fmt: skip


def _answered(sweep: str, found: Answer) -> AnsweredData:
    return AnsweredData(sweep, found.text, found.answer, found.effect, found.p)


def _open(decision: Decision, found: Prospect) -> OpenData:
    q = found.question
    return OpenData(
        decision.pool.name,
        q.text,
        decision.effect_of(q),
        found.fate.value,
        reason(found),
        found.chance,
        found.seeds,
        found.cost,
    )


def _batch(decision: Decision, batch: Batch) -> BatchData:
    runs = [planned.run_id for planned in decision.runs_of(batch.targets)]
    return BatchData(decision.pool.name, runs, batch.cost, [found.question.text for found in batch.serves])
