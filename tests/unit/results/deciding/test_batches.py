"""Which seeds come next, for questions as they stand."""

from __future__ import annotations

import math
from collections.abc import Mapping

from moe_sweeps.results.deciding.batches import FIRST_SEEDS, STOP, Fate, Situation, next_batch
from moe_sweeps.results.deciding.questions import Pair, Question

LEVEL = 0.04


def question(arm: str, away: float | None, p: float | None = None, stuck: str = "") -> Question:
    pairs = () if away is None else (Pair(arm, "base", away),)
    return Question(arm, f"is {arm} better?", "val_loss", (arm, "base"), p=p, pairs=pairs, family=3, stuck=stuck)


def situation(questions: list[Question], counts: Mapping[str, int], **more: object) -> Situation:
    def cost(targets: Mapping[str, int]) -> float:
        return float(sum(max(0, seeds - counts.get(arm, 0)) for arm, seeds in targets.items()))

    return Situation(questions, counts, LEVEL, cost, **more)  # type: ignore[arg-type]


def test_at_first_every_arm_gets_the_fewest_seeds() -> None:
    batch = next_batch(situation([question("a", None), question("b", None)], {}), 100)
    assert batch
    assert batch.targets == dict.fromkeys(("a", "b", "base"), FIRST_SEEDS)
    assert batch.cost == 3 * FIRST_SEEDS
    assert math.isinf(batch.worth)


def test_a_budget_for_one_question_buys_that_one() -> None:
    batch = next_batch(situation([question("a", None), question("b", None)], {}), 2 * FIRST_SEEDS)
    assert batch
    assert batch.targets.keys() == {"a", "base"}
    assert next_batch(situation([question("a", None)], {}), 2 * FIRST_SEEDS - 1) is None


def test_what_is_as_good_as_decided_gets_no_more() -> None:
    counts = dict.fromkeys(("a", "b", "base"), 5)
    questions = [question("a", 6.0, p=0.9 * LEVEL / STOP), question("b", 1.2, p=0.2)]
    now = situation(questions, counts)
    assert [p.fate for p in now.prospects(1000)] == [Fate.waits, Fate.goes_on]
    batch = next_batch(now, 1000)
    assert batch
    assert batch.targets == {"b": 7, "base": 7}


def test_what_cannot_be_decided_is_dropped_and_revived_by_a_larger_budget() -> None:
    counts = dict.fromkeys(("a", "base"), 5)
    questions = [question("a", 1.0, p=0.3)]
    (small,), (large,) = (situation(questions, counts).prospects(left) for left in (4, 1000))
    assert (small.fate, large.fate) == (Fate.dropped, Fate.goes_on)
    assert small.chance < large.chance
    assert large.seeds > 10
    assert next_batch(situation(questions, counts), 4) is None
    (limited,) = situation(questions, counts, most=6).prospects(1000)
    assert limited.fate is Fate.dropped


def test_a_clearly_beaten_arm_gets_no_more_seeds_in_the_question_which_is_best() -> None:
    pairs = (Pair("best", "far", 20.0), Pair("best", "near", 1.0))
    found = Question("which", "which is best?", "val_loss", ("best", "far", "near"), p=0.3, pairs=pairs)
    counts = dict.fromkeys(("best", "far", "near"), 6)
    batch = next_batch(situation([found], counts), 1000)
    assert batch
    assert batch.targets.keys() == {"best", "near"}


def test_a_failing_arm_and_a_stuck_question_buy_nothing() -> None:
    counts = dict.fromkeys(("a", "b", "base"), 5)
    questions = [question("a", 1.2, p=0.2), question("b", 1.2, p=0.2, stuck="2 seeds of b diverged")]
    now = situation(questions, counts, failing={"a"})
    assert [p.fate for p in now.prospects(1000)] == [Fate.failing, Fate.stuck]
    assert next_batch(now, 1000) is None


def test_no_worker_is_idle_where_one_arm_alone_grows() -> None:
    """The baseline has more seeds, from another question."""
    found, counts = [question("a", 1.2, p=0.2)], {"a": 4, "base": 20}
    steps = [next_batch(situation(found, counts, width=width), 1000) for width in (1, 2, 3, 4, 64)]
    assert [step.targets for step in steps if step] == [{"a": 6}, {"a": 6}, {"a": 8}, {"a": 8}, {"a": 8}]
    (one,) = [next_batch(situation(found, {"a": 3, "base": 20}, width=2), 1000)]
    assert one
    assert one.targets == {"a": 6}
    limited = next_batch(situation([question("a", 3.0, p=0.2)], {"a": 4, "base": 4}, width=64, most=5), 1000)
    assert limited
    assert limited.targets == {"a": 5, "base": 5}


def test_a_budget_that_pays_no_further_step_pays_the_first() -> None:
    found, counts = [question("a", 3.0, p=0.02)], {"a": 3, "base": 20}
    batches = [next_batch(situation(found, counts, width=width), 2.5) for width in (1, 2, 8)]
    assert [batch.targets for batch in batches if batch] == [{"a": 4}] * 3


def test_a_batch_that_fills_the_workers_does_not_grow() -> None:
    """Two questions, three seeds more each."""
    found, counts = [question("a", 1.2, p=0.2), question("b", 1.2, p=0.2)], {"a": 8, "b": 8, "base": 40}
    batches = [next_batch(situation(found, counts, width=width), 1000) for width in (1, 4, 6, 7)]
    assert [batch.targets for batch in batches if batch] == [{"a": 11, "b": 11}] * 3 + [{"a": 15, "b": 11}]


def test_seeds_grow_by_steps_up_to_the_most() -> None:
    now = situation([question("a", 0.9, p=0.3)], dict.fromkeys(("a", "base"), 3), most=40)
    seen, counts = [], {"a": 3, "base": 3}
    while (batch := next_batch(situation([question("a", 0.9, p=0.3)], counts, most=40), 10_000)) is not None:
        counts |= batch.targets
        seen.append(counts["a"])
    assert seen[:4] == [4, 6, 8, 11]
    assert seen[-1] <= 40
    assert now.counts["a"] == 3


def test_a_question_without_numbers_is_stuck_after_the_first_seeds_and_outbids_nothing() -> None:
    counts = dict.fromkeys(("a", "b", "c", "base"), FIRST_SEEDS)
    questions = [question("a", None), question("b", 1.5, p=0.2), question("c", 0.2, p=0.9)]
    now = situation(questions, counts)
    fates = [p.fate for p in now.prospects(1000)]
    assert fates[:2] == [Fate.stuck, Fate.goes_on]
    assert "no such number" in now.prospects(1000)[0].question.stuck
    batch = next_batch(now, 1000)
    assert batch
    assert math.isfinite(batch.worth)
    assert "a" not in batch.targets
    (few,) = situation([question("a", None)], {"a": 2, "base": 3}).prospects(1000)
    assert few.fate is Fate.unseen


def test_an_unseen_question_buys_no_place_for_hopeless_ones() -> None:
    counts = {**dict.fromkeys(("b", "c", "base"), FIRST_SEEDS), "a": 0}
    seen = [question("b", 1.5, p=0.2), question("c", 0.9, p=0.5)]
    alone = next_batch(situation(seen, counts), 1000)
    beside = next_batch(situation([question("a", None), *seen], counts), 1000)
    assert alone
    assert beside
    assert beside.targets.keys() == {"a", *alone.targets}


def test_a_question_with_an_arm_of_few_seeds_waits_for_no_look() -> None:
    """Its p was small by the spread of others: two cheap seeds of its own come first."""
    sure = question("a", 9.0, p=1e-6)
    now = situation([sure], {"a": 1, "base": 8})
    (prospect,) = now.prospects(100.0)
    assert prospect.fate is Fate.unseen
    batch = next_batch(now, 100.0)
    assert batch is not None
    assert batch.targets == {"a": 3}
    (prospect,) = situation([sure], {"a": 3, "base": 8}).prospects(100.0)
    assert prospect.fate is Fate.waits
