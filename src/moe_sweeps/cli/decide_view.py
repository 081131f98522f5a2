"""What a decision looks like in the terminal, at 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moe_sweeps.launch.follow import duration
from moe_sweeps.records.words import UNDECIDED
from moe_sweeps.results.deciding.batches import FIRST_SEEDS, FUTILE, Batch, Fate, Prospect

if TYPE_CHECKING:
    from moe_sweeps.sweep.decide.decision import Decision

HOUR = 3600.0
MOST_OFFERS = 3
NO_ROOM = "no further seed fits into the budget, or --max-seeds is reached"


def print_dry_run(
    console: Console, decisions: Sequence[Decision], found: tuple[Decision, Batch] | None, left: float
) -> None:
    """What the command would do first, with `left` core-seconds of its budget."""
    for decision in decisions:
        if pending := decision.pending():
            _say(console, f"{decision.pool.name}: {len(pending)} runs that were begun would be resumed first")
    if found is not None:
        print_batch(console, found)
        return
    _say(console, f"nothing to train: no open question has a chance of {FUTILE:.0%} within {_left(left)} of core time")
    for decision in decisions:
        if decision.has_news:
            waiting = sum(p.fate is Fate.waits for p in decision.prospects(left))
            _say(console, f"{decision.pool.name}: look {decision.look} would be taken; {waiting} questions wait for it")


def _left(seconds: float) -> str:
    return f"the {duration(seconds)} that are left" if seconds > 0 else "a budget that is used up"


def print_batch(console: Console, found: tuple[Decision, Batch]) -> None:
    """The next batch and why it is that one."""
    decision, batch = found
    labels = {p.arm: p.label for p in decision.pool.whole.runs.values()}
    runs = decision.runs_of(batch.targets)
    _say(console, f"{decision.pool.name}: {len(runs)} runs next, {duration(batch.cost)} of core time, for")
    for prospect in batch.serves:
        _say(console, f"  {prospect.question.text}: {reason(prospect)}")
    for arm, seeds in batch.targets.items():
        _say(console, f"    {labels[arm]}: to {seeds} seeds")


def reason(found: Prospect) -> str:
    """Why a question gets runs, or none, in words."""
    seeds = f"{found.seeds} seeds an arm, {duration(found.cost)} of core time"
    return {
        Fate.unseen: f"too little is known: an arm has fewer than {FIRST_SEEDS} seeds",
        Fate.waits: "as good as decided; it waits for the look",
        Fate.goes_on: f"{found.chance:.0%} chance with {seeds}",
        Fate.dropped: NO_ROOM if not found.seeds else f"only {found.chance:.0%} chance with {seeds}",
        Fate.stuck: found.question.stuck,
        Fate.failing: "runs of an arm that it needs failed, and are tried again when the line is typed again; or were "
        "cancelled: moe-sweeps retry --cancelled takes that back",
    }[found.fate]


def print_decisions(console: Console, decisions: Sequence[Decision], budget: float, *, submitted: bool) -> None:
    """What was decided, what not and why, and what the next core-hour would buy."""
    used = sum(decision.spent() for decision in decisions)
    for decision in decisions:
        _print_one(console, decision, budget - used)
    _say(console, f"core time: {duration(used)} of {duration(budget)} used")
    if submitted:
        _say(console, "jobs are submitted; type the same line again when they are over")
        return
    for line in offers(decisions):
        _say(console, line)


def _print_one(console: Console, decision: Decision, left: float) -> None:
    every, still = decision.standing(), decision.prospects(left)
    answers = [one.answer for one in every if not one.withdrawn]
    looks = decision.record.closed
    taken = f"look {looks[-1].look} was taken" if looks else "no look was taken yet"
    console.print(Text(f"\n{decision.pool.name}: {len(answers)} decided, {len(still)} not; {taken}", "bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, width=min(console.width, 120))
    table.add_column(overflow="fold", width=12)
    table.add_column(overflow="fold", ratio=1)
    for answer in answers:
        p = "" if answer.p is None else f", p {answer.p:.2g}"
        table.add_row(Text(answer.answer, "green"), Text(f"{answer.text}\n  {answer.effect}{p}"))
    for found in still:
        seen = decision.effect_of(found.question)
        effect = f"{seen}; " if seen else ""
        table.add_row(Text(UNDECIDED, "yellow"), Text(f"{found.question.text}\n  {effect}{reason(found)}"))
    console.print(table)
    for one in every:
        if one.withdrawn:
            _say(console, f"no longer counted: {one.answer.text} ({one.answer.answer}): {one.withdrawn}")


def offers(decisions: Sequence[Decision]) -> Iterator[str]:
    """What another core-hour would buy, as sentences."""
    if not any(decision.open for decision in decisions):
        yield "every question is decided"
        return
    found = sorted(_offered(decisions, HOUR), key=lambda p: -p.chance)
    likely = [prospect for prospect in found if prospect.chance >= FUTILE]
    if any(p.fate is Fate.unseen for decision in decisions if decision.level > 0 for p in decision.prospects(HOUR)):
        yield "the next core-hour would buy first seeds of arms of which too little is known"
    elif likely:
        yield "the next core-hour would buy, one of these:"
    elif found:
        best = found[0]
        yield f"the next core-hour would most likely decide nothing: {best.chance:.0%} for {best.question.text}"
    else:
        yield "the next core-hour would buy nothing: no open question has seeds left that fit into it"
    for prospect in likely[:MOST_OFFERS]:
        yield f"  {prospect.question.text}: {reason(prospect)}"


def _offered(decisions: Sequence[Decision], left: float) -> list[Prospect]:
    every = [p for decision in decisions if decision.level > 0 for p in decision.prospects(left)]
    return [p for p in every if p.fate in (Fate.goes_on, Fate.dropped) and p.seeds]


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=False)
