"""The tables of docs/results.md are the committed output of benchmarks/evidence.py, which is what the code counts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from proposals import PROPOSALS, SEEDS, counted
from simulated import calibration, looking, page, promises, resampled, scorecards, store
from simulated.cases import CASES
from simulated.promises import PLANS, Plan
from simulated.rates import upper
from simulated.rivals import ours

from moe_sweeps.results.power import power


def test_the_page_is_the_rendering_of_the_committed_rows() -> None:
    text = page.PAGE.read_text()
    assert text == page.rendered(text), "python benchmarks/evidence.py --page"


def test_a_page_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="0 blocks of calibration"):
        page.rendered("no block")


@pytest.mark.parametrize(("arms", "seeds"), [(2, 2), (3, 3), (6, 3)])
def test_a_committed_cell_is_what_the_code_counts(arms: int, seeds: int) -> None:
    cells = store.load("calibration")
    case = next(c for c in CASES if (c.name, c.correlation) == ("1x to 27x", 0.0))
    [cell] = [c for c in cells if (c["case"], c["correlation"], c["arms"], c["seeds"]) == (case.name, 0.0, arms, seeds)]
    found = calibration.family_wise(case, ours, arms, seeds, cell["tables"])
    assert found == (cell["hits"], cell["of"])


def test_every_cell_is_there_and_none_errs_too_often() -> None:
    cells = store.load("calibration")
    assert len(cells) == len(CASES) * len(calibration.ARMS) * len(calibration.SEEDS)
    assert max(upper(c["hits"], c["of"]) for c in cells) <= 0.07


def test_ten_looks_err_within_the_bound() -> None:
    rows = [row for row in store.load("looks") if "hits" in row]
    assert len(rows) == len(looking.TABLES) * len(looking.STEPS)
    assert max(upper(row["hits"], row["of"]) for row in rows) <= 0.07


def test_scorecards_err_within_the_bound() -> None:
    rows = store.load("scorecards")
    assert [row["spreads"] for row in rows] == [*scorecards.LAWS]
    assert max(row["hits"] / row["of"] for row in rows) <= 0.05
    assert max(upper(row["hits"], row["of"]) for row in rows) <= 0.07


@pytest.mark.parametrize("plan", [p for p in PLANS if p.shape.counts or p.shape.seeds == 1], ids=lambda p: str(p.what))
def test_unequal_seeds_missing_runs_and_lent_spreads_find_what_was_promised(plan: Plan) -> None:
    reached = promises.by_test(plan.shape, plan.effect, 1000)
    assert reached == pytest.approx(power(plan.shape, plan.effect), abs=0.05)


def test_promises_are_kept_within_five_points() -> None:
    rows = store.load("promises")
    assert len(rows) == len(PLANS)
    assert max(abs(row["promised"] - row["reached"]) for row in rows) <= 0.05


def test_programs_that_keep_what_they_accept_take_few_proposals_that_change_nothing() -> None:
    """200 proposals, 40 programs: the lower mean takes what is lucky, again and again, and thinks to have gained."""
    kept = resampled.kept(40)
    accepted = kept["judge"] / (40 * PROPOSALS)
    assert accepted <= 0.05
    assert kept["greedy"] > 2 * kept["judge"]
    assert kept["greedy_gain"] > kept["judge_gain"] + 0.005


def rows_of(losses: list[list[float]]) -> list[list[dict[str, Any]]]:
    """Rows as run folders give them, one side a list of losses."""
    common = {"size": "s", "data_fingerprint": "d", "source_hash": "c", "sources": "", "state": "done"}
    return [
        [
            {**common, "arm": f"arm{side}", "run_id": f"{side}-{place}", "seed": SEEDS * side + place, "val_loss": loss}
            for place, loss in enumerate(values)
        ]
        for side, values in enumerate(losses)
    ]


def test_the_real_proposals_are_what_their_losses_say() -> None:
    found, content = store.load("proposals")
    losses = content["losses"]
    assert found["proposals"] == len(losses) - 1 == PROPOSALS
    assert all(len(side) == SEEDS for side in losses)
    assert len({loss for side in losses for loss in side}) == SEEDS * len(losses)  # no two runs are one
    assert found["judge"] <= 0.05 * PROPOSALS
    assert found["judge_fresh"] <= 0.05 * PROPOSALS
    few = counted(rows_of(losses[:31]))
    means = [sum(side) / SEEDS for side in losses]
    assert few["greedy_fresh"] == sum(b < a for a, b in itertools.pairwise(means[:31]))
    assert few["judge"] <= few["greedy"]
    assert found["greedy_fresh"] == sum(b < a for a, b in itertools.pairwise(means))


def test_a_real_gain_is_accepted() -> None:
    """The same judge takes a proposal that gains, so it does not refuse everything."""
    losses = [[4.00, 4.02, 4.01], [4.01, 4.00, 4.02], [3.80, 3.81, 3.82]]
    assert counted(rows_of(losses))["judge"] == 1
