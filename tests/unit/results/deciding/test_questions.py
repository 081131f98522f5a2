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
from moe_sweeps.results.deciding.questions import Question, lowest, questions
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
    assert [bool(q.answer) for q in compared] == [
        table.differences[a.arm].decided for a in table.arms if a.arm in table.differences
    ]
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
    assert best.chance(counts, more, 0.04) <= max(p.chance(counts, more, best.family, 0.04) for p in best.pairs)
    assert best.chance(counts, more, 0.04) == min(p.chance(counts, more, best.family, 0.04) for p in best.pairs)


MEANS = {"0.1": 3.0, "0.2": 2.9, "0.4": 2.8, "0.6": 2.7}


def turning_at(*at: str, kind: str = "turning_point", arms: tuple[str, ...] = tuple(MEANS)) -> Question:
    statement = Statement("c", kind, "val_loss", axis="aux.coef", points=tuple((a, a) for a in arms), at=at)
    pairs = tuple(lowest(statement, arms, MEANS, 0.1))
    return Question("k", "c", "val_loss", arms, pairs=pairs)


def test_what_leads_decides_which_side_is_looked_at() -> None:
    against = turning_at("0.2")  # 0.6, an end, leads: it must beat 0.2
    assert [(p.a, p.b, round(p.away, 6)) for p in against.pairs] == [("0.6", "0.2", 2.0)]
    for_it = turning_at("0.6", kind="best_at")
    assert [(p.a, p.b, round(p.away, 6)) for p in for_it.pairs] == [
        ("0.6", "0.1", 3.0), ("0.6", "0.2", 2.0), ("0.6", "0.4", 1.0)
    ]  # fmt: skip


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
