"""The next runs of a sweep: seeds for the arms that open questions hang on, and for no others.

Between looks the results steer who gets seeds, and nothing is said of them: most of the error budget belongs to the
first look (looks.py), so that one is taken when the seeds are there. A question whose p is below the level of the
coming look divided by STOP gets no more seeds and waits for the look. One that the rest of the budget is unlikely to
answer gets none either, which can lose an answer and never makes one. Stopping at a small p can: benchmarks/decide.py
has the rate of false answers of the whole procedure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from moe_sweeps.results.deciding.questions import Question

FIRST_SEEDS = 3  # the fewest that say anything (docs/results.md)
GROWTH = 1.3  # of the seeds of an arm from one batch to the next: 3, 4, 6, 8, 11, 15, 20, 26, 34, 40
STOP = 10  # of the level of the coming look
FUTILE = 0.4  # a chance of an answer below this is not bought
TOGETHER = 0.8  # questions are bought together that promise this share of the best one's answers a core-second
MOST_SEEDS = 40
NOTHING_TO_COMPARE = "no further seed can decide it: an arm has no such number, or none scatters"

Targets = Mapping[str, int]  # arm -> seeds


class Fate(StrEnum):
    """What becomes of a question until the next look."""

    waits = "waits"  # as good as decided: no more seeds
    goes_on = "goes on"
    dropped = "dropped"  # unlikely to be decided within what is left
    stuck = "stuck"  # no run can decide it
    failing = "failing"  # runs of an arm that it needs fail
    unseen = "unseen"  # too little is known yet: an arm has fewer than FIRST_SEEDS seeds


@dataclass(frozen=True, slots=True)
class Prospect:
    """A question, what becomes of it, and the chance that its best affordable number of seeds decides it.

    `seeds` is that number an arm, `cost` its core-seconds, for `arms`.
    """

    question: Question
    fate: Fate
    chance: float = 0.0
    seeds: int = 0
    cost: float = 0.0
    arms: tuple[str, ...] = ()

    @property
    def worth(self) -> float:
        """Decisions a core-second."""
        return self.chance / self.cost if self.cost else 0.0


@dataclass(frozen=True)
class Situation:
    """A sweep between two looks.

    `counts`: seeds of each arm that have ended; `cost` gives the core-seconds that raise arms to such counts; `most`
    seeds an arm; `failing`: arms of which a run failed, which get no more; `width`: runs that train side by side.
    """

    questions: Sequence[Question]
    counts: Mapping[str, int]
    level: float
    cost: Callable[[Targets], float]
    most: int = MOST_SEEDS
    failing: Collection[str] = ()
    width: int = 1

    def prospects(self, left: float) -> list[Prospect]:
        """Every question, with `left` core-seconds to spend."""
        return [self._prospect(question, left) for question in self.questions]

    def _prospect(self, question: Question, left: float) -> Prospect:
        if question.stuck:
            return Prospect(question, Fate.stuck)
        too_few = self._too_few(question)
        if question.p is not None and question.p < self.level / STOP and not too_few:
            return Prospect(question, Fate.waits)
        arms = question.needs(self.counts, self.level)
        if {*arms, *too_few} & set(self.failing):
            return Prospect(question, Fate.failing)
        if too_few and question.pairs:
            return Prospect(question, Fate.unseen, arms=question.arms)
        if not question.pairs:
            return self._without_pairs(question, arms)
        best = max(self._offers(question, arms, left), key=lambda found: found.chance, default=None)
        return best or Prospect(question, Fate.dropped, arms=arms)

    def _without_pairs(self, question: Question, arms: tuple[str, ...]) -> Prospect:
        """Unseen while an arm has too few seeds; after that its numbers are missing, or no two of them differ."""
        if self._too_few(question):
            return Prospect(question, Fate.unseen, arms=arms)
        return Prospect(replace(question, stuck=NOTHING_TO_COMPARE), Fate.stuck, arms=arms)

    def _too_few(self, question: Question) -> list[str]:
        """Arms whose own spread is not known: an answer that rests on them would come too early."""
        return [arm for arm in question.arms if self.counts.get(arm, 0) < min(FIRST_SEEDS, self.most)]

    def _offers(self, question: Question, arms: tuple[str, ...], left: float) -> Iterator[Prospect]:
        for seeds in _ladder(min(self.counts.get(arm, 0) for arm in arms), self.most):
            targets = self._raised(arms, seeds)
            cost = self.cost(targets)
            if cost > left:
                return
            chance = question.chance(self.counts, {**self.counts, **targets}, self.level)
            fate = Fate.goes_on if chance >= FUTILE else Fate.dropped
            yield Prospect(question, fate, chance, seeds, cost, arms)

    def _raised(self, arms: Collection[str], seeds: int) -> dict[str, int]:
        return {arm: seeds for arm in arms if seeds > self.counts.get(arm, 0)}

    def steps(self, prospect: Prospect) -> list[dict[str, int]]:
        """The seeds that a question may be given next, the fewest first.

        At most twice as many as its arms have, since the next batch knows more.
        """
        if prospect.fate is Fate.unseen:
            return [self._raised(prospect.arms, min(FIRST_SEEDS, self.most))]
        low = min(self.counts.get(arm, 0) for arm in prospect.arms)
        most = min(self.most, max(2 * low, FIRST_SEEDS))
        return [self._raised(prospect.arms, seeds) for seeds in _ladder(low, most)]

    def units(self, targets: Targets) -> int:
        """How many (arm, seed) are missing to these numbers of seeds."""
        return sum(max(0, seeds - self.counts.get(arm, 0)) for arm, seeds in targets.items())


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs to train next: seeds of arms to reach, for these questions."""

    targets: dict[str, int]
    cost: float
    serves: tuple[Prospect, ...]

    @property
    def worth(self) -> float:
        """Decisions a core-second that its questions promise; infinite where nothing is known yet."""
        if any(found.fate is Fate.unseen for found in self.serves):
            return math.inf
        return max((found.worth for found in self.serves), default=0.0)


def next_batch(now: Situation, left: float) -> Batch | None:
    """The next step of every question that goes on, the best bought first, as far as `left` core-seconds reach.

    Where workers would be idle, the best questions get further steps.

    None: no question goes on, or the smallest step costs more than is left.
    """
    found = [p for p in now.prospects(left) if p.fate in (Fate.goes_on, Fate.unseen)]
    found.sort(key=lambda p: (p.fate is not Fate.unseen, -p.worth))
    best = max((p.worth for p in found), default=0.0)
    found = [p for p in found if p.fate is Fate.unseen or p.worth >= TOGETHER * best]
    targets: dict[str, int] = {}
    serves: list[Prospect] = []
    for prospect in found:
        more = _united(targets, now.steps(prospect)[0])
        if now.cost(more) <= left:
            targets = more
            serves.append(prospect)
    for step in (step for prospect in serves for step in now.steps(prospect)[1:]):
        more = _united(targets, step)
        if now.units(targets) < now.width and now.cost(more) <= left:
            targets = more
    return Batch(targets, now.cost(targets), tuple(serves)) if targets else None


def _united(targets: Targets, more: Targets) -> dict[str, int]:
    return {arm: max(targets.get(arm, 0), more.get(arm, 0)) for arm in (*targets, *more)}


def _ladder(seeds: int, most: int) -> Iterator[int]:
    """The numbers of seeds after `seeds`, each GROWTH times the one before."""
    while seeds < most:
        seeds = min(max(seeds + 1, math.ceil(GROWTH * seeds)), most) if seeds else min(FIRST_SEEDS, most)
        yield seeds
