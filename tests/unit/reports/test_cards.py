"""Cards: the answer first, from the numbers of the table and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unit.results.folders import make_manifest
from unit.results.suite import AUX, make_suite, make_suite_run, sweep_content

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.reports.cards import MOST_BARS, Card, by_answer, card, closest, next_runs
from moe_sweeps.reports.layout import interval_text
from moe_sweeps.reports.templating import environment
from moe_sweeps.results.claims import judge
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

Suite = tuple[dict[str, Table], Noise]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    root = tmp_path_factory.mktemp("cards")
    make_suite(root)
    runs, (manifests, _) = read_runs(root), load_manifests(root)
    noise = Noise.of(runs, manifests)
    return {m.name: ablation_table(m, runs, noise=noise) for m in manifests}, noise


def shown(found: Card) -> str:
    """The card on the page."""
    return str(environment().get_template("parts.html").module.card(found))  # type: ignore[attr-defined]


def of(table: Table, noise: Noise | None = None) -> Card:
    found = card(table, judge(table), next_runs(table, noise))
    assert found is not None
    return found


def test_the_answer_is_one_sentence_with_effect_interval_and_n(suite: Suite) -> None:
    table = suite[0]["aux_coef"]
    best = min((c for c in table.differences.values() if c.decided), key=lambda c: c.difference)
    found = of(table, suite[1])
    assert found.word == "better"
    assert PRIMARY.spell_effect(best.difference) in found.answer
    assert f"interval {interval_text(best)}" in found.answer
    assert "n = 3 and 3" in found.answer
    assert found.question == "What does aux_coef do?"
    assert "corrected for 5 comparisons" in found.sure
    assert "18 finished runs of 6 arms at scale proxy" in found.rests
    assert any(line.startswith("Statements about it: ") for line in found.also)


def test_the_small_forest_is_that_of_the_table(suite: Suite) -> None:
    table = suite[0]["aux_coef"]
    plot = of(table).forest
    assert plot is not None
    assert len(plot.bars) == 5
    assert [bar.tone in ("better", "worse") for bar in plot.bars] == [c.decided for c in table.differences.values()]
    for bar, c in zip(plot.bars, table.differences.values(), strict=True):
        assert bar.low <= bar.at <= bar.high
        assert c.low is not None
        assert c.high is not None
        assert (bar.high < plot.zero) == (c.high < 0)
        assert (bar.low > plot.zero) == (c.low > 0)


def test_the_edges_have_the_digits_of_the_table_and_a_bar_that_is_cut_is_said(suite: Suite) -> None:
    table = suite[0]["aux_coef"]
    small = {arm: replace(c, difference=0.001 * i, low=0.001 * i - 0.0005, high=0.001 * i + 0.0005)
             for i, (arm, c) in enumerate(table.differences.items())}  # fmt: skip
    plot = of(replace(table, differences=small)).forest
    assert plot is not None
    assert plot.ends == ("-0.0007", "+0.0047")  # 4% beyond -0.0005 and +0.0045
    assert not plot.cut
    first, *_ = small
    wild = small | {first: replace(small[first], low=-5.0, high=5.0)}
    plot = of(replace(table, differences=wild)).forest
    assert plot is not None
    assert plot.cut
    assert "Bars that reach beyond the edges are cut there." in shown(of(replace(table, differences=wild)))
    assert "Bars that reach beyond" not in shown(of(replace(table, differences=small)))


def test_of_many_arms_the_decided_ones_are_drawn_and_the_rest_is_counted(suite: Suite) -> None:
    table = suite[0]["lr_split"]
    plot = of(table).forest
    assert plot is not None
    known = [c for c in table.differences.values() if c.low is not None]
    assert len(plot.bars) == MOST_BARS
    assert plot.more == len(known) - MOST_BARS


def test_what_is_undecided_says_so_and_what_would_decide_it(suite: Suite) -> None:
    table = suite[0]["aux_coef"]
    grey = {arm: replace(c, p_family=0.4 + 0.01 * i) for i, (arm, c) in enumerate(table.differences.items())}
    found = of(replace(table, differences=grey), suite[1])
    assert found.word == "undecided"
    assert found.answer.startswith("No arm is shown to differ from balancer=aux aux.coef=0.1 in validation loss.")
    first = table.arm(next(iter(grey)))
    assert closest(grey) == first.arm
    assert f"Closest to a decision is {first.label}" in found.answer
    assert "As a question of its own" in found.next or "core-hours" in found.next


def test_that_two_arms_are_equivalent_is_no_matter_of_correction(tmp_path: Path) -> None:
    make_manifest(tmp_path, sweep_content("aux_coef", AUX[:2], 20))
    random = np.random.default_rng(3)
    for settings in AUX[:2]:
        for seed in range(20):
            make_suite_run(tmp_path, settings, seed, loss=4 + 0.01 * random.standard_normal(), maxvio=1.0, weights="w")
    runs, (manifests, _) = read_runs(tmp_path), load_manifests(tmp_path)
    noise = Noise.of(runs, manifests)
    found = next_runs(ablation_table(manifests[0], runs, noise=noise), noise)
    assert "is equivalent to the baseline, within -0.0" in found
    assert "only the correction" not in found


def test_decided_comes_first_then_what_is_close_then_what_has_no_result(suite: Suite) -> None:
    table = suite[0]["aux_coef"]
    open_ = replace(table, differences={a: replace(c, p_family=0.5) for a, c in table.differences.items()})
    closer = replace(table, differences={a: replace(c, p_family=0.06) for a, c in table.differences.items()})
    nothing = replace(table, differences={})
    cards = [of(each) for each in (nothing, open_, closer, table)]
    assert by_answer(cards) == cards[::-1]
    assert cards[0].word == "no result"


def test_lost_seeds_give_no_verdict_whatever_p_says(suite: Suite) -> None:
    table = suite[0]["aux_coef"]
    lost = {a: replace(c, lost=1) for a, c in table.differences.items()}
    found = of(replace(table, differences=lost))
    assert found.word == "no result"
    assert "no verdict: 1 diverged or stopped" in found.answer


def test_a_sweep_of_one_arm_tells_its_spread(suite: Suite) -> None:
    found = of(suite[0]["noise_floor"])
    assert found.answer.startswith("Validation loss 4.4976 (mean, n = 5)")
    assert "standard deviation over seeds 0.0" in found.answer
    assert found.answer.endswith("MaxVio on validation 0.300 (mean, n = 5); standard deviation over seeds 0.000.")
    assert found.sure == "A description; nothing is tested."
    assert found.forest is None


def test_where_statements_are_judged_the_card_does_not_say_that_nothing_is(suite: Suite) -> None:
    verdicts = judge(suite[0]["aux_coef"])
    found = card(suite[0]["noise_floor"], verdicts, "")
    assert found is not None
    assert found.sure == ""
    assert any(line.startswith("Statements about it") for line in found.also)
    assert "How sure" not in shown(found)
    assert "How sure" in shown(of(suite[0]["noise_floor"]))


def test_names_with_markup_stay_text(tmp_path: Path, suite: Suite) -> None:
    table = suite[0]["aux_coef"]
    arms = tuple(replace(arm, label=f"<b>{arm.label}</b>", settings={}) for arm in table.arms)
    assert "<b>" in of(replace(table, arms=arms)).answer  # escaped by the template, which test_hostile.py tries
