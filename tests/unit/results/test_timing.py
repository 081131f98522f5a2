"""Times of several machines are no evidence about settings (results/timing.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.numbers import metric_of
from moe_sweeps.records.words import NOT_JUDGED
from moe_sweeps.reports.charts import equal_time
from moe_sweeps.reports.layout import published_sheet
from moe_sweeps.results.claims import judge
from moe_sweeps.results.costs import cost_table
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.judging import judge_sides
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import Row, read_runs
from moe_sweeps.results.tables import ablation_table, compare_arms
from moe_sweeps.results.timing import unlike

SUITE = REPOSITORY / "results" / "suite" / "runs"
ROW: Row = {"host": "a", "launch.threads": 1, "arithmetic.kernels": "avx2", "arithmetic.products": "torch.mm"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"host": None}, ""),
        ({"host": "b"}, "timed on 2 hosts (a, b)"),
        ({"launch.threads": 2}, "trained with different numbers of threads (1, 2)"),
        ({"arithmetic.kernels": "avx512"}, "trained by 2 kinds of arithmetic, so on different machines"),
        ({"arithmetic.products": "oneDNN"}, "trained by 2 kinds of arithmetic, so on different machines"),
    ],
)
def test_what_speaks_against_comparing_times(changed: Row, why: str) -> None:
    assert unlike([ROW, {**ROW, **changed}]) == why


def test_a_claim_about_time_is_not_judged_by_runs_of_two_machines_of_one_name() -> None:
    """The committed runs of Shampoo: AdamW's were trained elsewhere, and a third of the time was another machine's."""
    runs, (manifests, _) = read_runs(SUITE), load_manifests(SUITE)
    manifest = next(m for m in manifests if m.name == "shampoo")
    found = {v.metric: v for v in judge(ablation_table(manifest, runs, noise=Noise.of(runs, manifests)))}
    assert found["train_seconds"].verdict == NOT_JUDGED
    assert "2 kinds of arithmetic" in found["train_seconds"].why
    assert found["val_loss"].verdict != NOT_JUDGED


def test_no_table_figure_or_published_hour_compares_times_of_two_machines() -> None:
    runs, (manifests, _) = read_runs(SUITE), load_manifests(SUITE)
    manifest = next(m for m in manifests if m.name == "shampoo")
    table = ablation_table(manifest, runs, noise=Noise.of(runs, manifests))
    costs = cost_table(table, runs)
    assert costs is not None
    assert costs.seconds is None
    assert all(found["relative"].n == found["loss_at_seconds"].n == 0 for found in costs.cells.values())
    with pytest.raises(NotRecorded, match="times cannot be compared: trained by 2 kinds of arithmetic"):
        equal_time(table)
    published = published_sheet(table)
    assert published is not None
    assert {row[2].text for row in published.rows if "wall_clock" in row[3].text} == {"–"}
    seconds = compare_arms(table.arms, table.baseline, metric_of("train_seconds"))
    assert {found.verdict.split(":")[0] for found in seconds.values()} == {"no verdict"}
    assert not any(found.decided or found.probability_better for found in seconds.values())


def test_one_arm_of_another_machine_leaves_the_times_of_the_others() -> None:
    """And so does a claim about two of them, which would else disagree with its table."""
    runs, (manifests, _) = read_runs(SUITE), load_manifests(SUITE)
    table = ablation_table(next(m for m in manifests if m.name == "shampoo"), runs)
    arms = tuple(replace(arm, elsewhere=(), runs=tuple(replace(run, row=None if run.row is None else {
        **run.row, "arithmetic.products": "oneDNN", "host": "a" if place < 3 else "b"}) for run in arm.runs))
        for place, arm in enumerate(table.arms))  # fmt: skip
    found = compare_arms(arms, arms[0].arm, metric_of("train_seconds"))
    assert [bool(c.barred) for c in found.values()] == [False, False, True]


def test_judge_refuses_times_of_two_machines() -> None:
    rows = [row for row in read_runs(SUITE).rows.values() if row["state"] == "done"]
    by_way: dict[str, list[Row]] = {}
    for row in rows:
        by_way.setdefault(str(row["arithmetic.products"]), []).append(row)
    a, b = (found[:3] for found in by_way.values())
    with pytest.raises(MoeSweepsError, match="train_seconds cannot be compared"):
        judge_sides(a, b, metric_of("train_seconds"), Noise((), ()))
