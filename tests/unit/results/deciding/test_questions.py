"""The questions of the committed tables: their answers are those of the judges, and pairs say what they hang on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.claims import Statement
from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.words import CONTRADICTED, REPRODUCED
from moe_sweeps.results.claims import judge
from moe_sweeps.results.deciding.questions import Pair, Question, Side, lowest, questions
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

ARCHIVE = REPOSITORY / "results" / "proxy" / "runs"


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    runs, (manifests, _) = read_runs(ARCHIVE), load_manifests(ARCHIVE)
    noise = Noise.of(runs, manifests)
    names = ("aux_coef", "noise_floor", "shampoo")
    return {m.name: ablation_table(m, runs, noise=noise) for m in manifests if m.name in names}


@pytest.mark.parametrize("name", ["aux_coef", "noise_floor", "shampoo"])
def test_answers_are_those_of_the_judges(tables: dict[str, Table], name: str) -> None:
    table = tables[name]
    found, verdicts = questions(table), judge(table)
    for question, verdict in zip(found, verdicts, strict=False):
        assert question.text == verdict.claim
        assert question.answer == (verdict.verdict if verdict.verdict in (REPRODUCED, CONTRADICTED) else "")
        assert question.p == verdict.p
        assert question.pairs or question.stuck
    compared = [q for q in found[len(verdicts) :] if q.metric == "val_loss"]
    comparisons = [table.differences[a.arm] for a in table.arms if a.arm in table.differences]
    assert [bool(q.answer) for q in compared] == [c.decided and c.kind != "one seed" for c in comparisons]
    assert name != "shampoo" or any(c.decided and c.kind == "one seed" for c in comparisons)
    assert len({q.key for q in found}) == len(found)


def test_a_pair_is_apart_by_its_difference_over_the_pooled_spread(tables: dict[str, Table]) -> None:
    table = tables["noise_floor"]
    assert [pair.a == pair.b for q in questions(table) for pair in q.pairs] == [True, True]  # spreads of the one arm
    table = tables["aux_coef"]
    values = [[row["val_loss"] for row in arm.every_row] for arm in table.arms]
    sd = math.sqrt(np.mean([np.var(own, ddof=1) for own in values]))
    question = next(q for q in questions(table) if q.metric == "val_loss" and "against" in q.text)
    (pair,) = question.pairs
    arms = {arm.arm: float(np.mean(own)) for arm, own in zip(table.arms, values, strict=True)}
    assert pair.away == pytest.approx((arms[pair.a] - arms[pair.b]) / sd, rel=0.35)  # the table takes seeds for blocks


def test_a_beaten_rival_needs_no_seeds_and_one_sided_gaps_are_signed(tables: dict[str, Table]) -> None:
    found: list[Question] = questions(tables["aux_coef"])
    falls = next(q for q in found if q.text.startswith("MaxVio falls"))
    assert all(pair.away > 0 for pair in falls.pairs)  # it was reproduced
    counts = {arm.arm: 3 for arm in tables["aux_coef"].arms}
    best = found[0]
    assert set(best.needs(counts, 0.04)) <= {arm for pair in best.pairs for arm in (pair.a, pair.b)}
    more = dict.fromkeys(counts, 12)
    chances = [min(p.chance(counts, more, best.family, 0.04) for p in best.pairs if p.side is side) for side in Side]
    assert best.chance(counts, more, 0.04) == pytest.approx(sum(chances))


MEANS = {"0.1": 3.0, "0.2": 2.9, "0.4": 2.8, "0.6": 2.7}


def turning_at(*at: str, kind: str = "turning_point", arms: tuple[str, ...] = tuple(MEANS)) -> Question:
    statement = Statement("c", kind, "val_loss", axis="aux.coef", points=tuple((a, a) for a in arms), at=at)
    pairs = tuple(lowest(statement, arms, MEANS, 0.1))
    return Question("k", "c", "val_loss", arms, pairs=pairs)


def nearer(question: Question) -> list[tuple[str, str, float]]:
    return [(p.a, p.b, round(p.away, 6)) for p in question.pairs if p.side is Side.nearer]


def test_either_answer_to_which_is_best_counts() -> None:
    """Of two arms that look alike, one will be shown to be better with the same chance as a difference is found."""
    means = {"a": 3.0, "b": 3.01}
    points = (("a", "a"), ("b", "b"))
    claims = (Statement("c", "best_at", "val_loss", axis="x", points=points, at=(at,)) for at in "ab")
    now, later = {"a": 3, "b": 3}, {"a": 40, "b": 40}
    chances = [
        Question("k", "c", "val_loss", ("a", "b"), pairs=tuple(lowest(claim, "ab", means, 0.1))).chance(
            now, later, 0.035
        )
        for claim in claims
    ]
    difference = Question("k", "c", "val_loss", ("a", "b"), pairs=(Pair("a", "b", -0.1),))
    assert chances == pytest.approx([difference.chance(now, later, 0.035)] * 2)


def test_what_leads_decides_which_side_is_looked_at() -> None:
    against = turning_at("0.2")  # 0.6, an end, leads: it must beat 0.2
    assert nearer(against) == [("0.6", "0.2", 2.0)]
    for_it = turning_at("0.6", kind="best_at")
    assert nearer(for_it) == [("0.6", "0.1", 3.0), ("0.6", "0.2", 2.0), ("0.6", "0.4", 1.0)]


@pytest.mark.parametrize(
    ("at", "arms"), [(("0.6",), tuple(MEANS)), (("0.4", "0.6"), tuple(MEANS)), (("0.2",), ("0.1", "0.2"))]
)
def test_a_claimed_end_that_leads_can_be_neither_shown_nor_contradicted(
    at: tuple[str, ...], arms: tuple[str, ...]
) -> None:
    question = turning_at(*at, arms=arms)
    now, later = dict.fromkeys(arms, 6), dict.fromkeys(arms, 40)
    assert question.chance(now, later, 0.035) < 0.01
    assert set(question.needs(now, 0.035)) <= set(arms)


def test_where_nothing_is_left_to_compare_there_are_no_pairs() -> None:
    assert turning_at(*MEANS, kind="best_at").pairs == ()
    assert turning_at("0.1", "0.2", arms=("0.1", "0.2")).pairs == ()


def test_the_spread_of_a_claim_is_in_the_unit_of_its_bound(tables: dict[str, Table]) -> None:
    """MaxVio is compared by logarithms, and its spread is not."""
    table = tables["noise_floor"]
    question = next(q for q in questions(table) if q.metric == "val_maxvio_global" and q.pairs[0].spread)
    (statement,) = (s for s in table.manifest.expect if s.kind == "spread_at_most" and s.metric == question.metric)
    values = [row["val_maxvio_global"] for row in table.arms[0].every_row]
    assert question.pairs[0].spread == pytest.approx(np.std(values, ddof=1) / (statement.bound or 0))
