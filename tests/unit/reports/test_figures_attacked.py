"""Figures of tables whose runs recorded something odd: drawn from what is there, or left out with a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from unit.results.folders import make_manifest
from unit.results.suite import Settings, make_suite_run, sweep_content

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.reports import charts
from moe_sweeps.reports.charts.along import MAXVIO
from moe_sweeps.reports.charts.difference import paths
from moe_sweeps.reports.charts.over import course
from moe_sweeps.reports.evidence import draw
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

Record = dict[str, Any]
ARMS: list[Settings] = [{"aux.coef": c} for c in ("0.1", "0.2", "0.4")]


def table_of(
    root: Path,
    change: Callable[[int, int, list[Record]], list[Record]] = lambda arm, seed, records: records,
    maxvio: Callable[[int], float] = lambda arm: 0.3,
) -> Table:
    """Three arms of two seeds; `change` gets arm, seed and the records of a run."""
    for place, settings in enumerate(ARMS):
        for seed in range(2):
            run = make_suite_run(root, settings, seed, loss=4.4 + 0.05 * place + 0.01 * seed, maxvio=maxvio(place))
            path = run.path / "metrics.jsonl"
            records = change(place, seed, [json.loads(line) for line in path.read_text().splitlines()])
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
    make_manifest(root, sweep_content("demo", ARMS, 2))
    found = ablation_table(load_manifests(root)[0][0], read_runs(root))
    return replace(found, definition=replace(found.definition, axis="aux.coef"))


def numbers(data: object) -> list[float]:
    return [float(value) for value in np.asarray(data)]


def note(figure: Figure) -> str:
    return " ".join(figure._supxlabel.get_text().split())  # type: ignore[attr-defined]


def val(records: list[Record]) -> list[Record]:
    return [record for record in records if record["split"] == "val"]


def only_last(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [r for r in records if r["split"] == "train"] + val(records)[-1:]


def other_steps(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [r | {"step": r["step"] + 3 * arm} for r in records]


def not_a_number(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [r | ({"loss": None} if r["split"] == "val" and arm == 1 and seed == 0 else {}) for r in records]


def resumed_with_more_windows(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [r | ({"tokens": 1024} if r["split"] == "val" and r["step"] > 200 else {}) for r in records]


def without_tokens(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [{k: v for k, v in r.items() if k != "tokens"} for r in records]


def baseline_without_curves(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [] if arm == 0 else records


@pytest.mark.parametrize(
    "change",
    [only_last, other_steps, not_a_number, resumed_with_more_windows, without_tokens, baseline_without_curves],
)
def test_odd_records_cost_no_other_figure(tmp_path: Path, change: Callable[..., list[Record]]) -> None:
    table = table_of(tmp_path, change)
    found = draw(table, ("curves", "difference", "equal_time", "turning_point"))
    assert found.faults == {}
    assert {"curves", "turning_point"} <= found.files.keys()
    assert "unexpected content" not in " ".join(found.left_out.values())
    if change in (other_steps, baseline_without_curves):
        why = (
            ""
            if change is baseline_without_curves
            else (": at no step all runs of an arm and of the baseline were evaluated")
        )
        assert found.left_out["difference"] == f"no arm has curves to compare with those of a baseline{why}"


def every_other(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [r for r in records if r["split"] == "train" or seed == 0 or r["step"] % 80 == 0]


def test_a_step_that_some_seeds_were_not_evaluated_at_is_in_no_mean(tmp_path: Path) -> None:
    table = table_of(tmp_path, every_other)
    figure = charts.curves(table)
    line = figure.axes[0].lines[0]
    assert numbers(line.get_xdata()) == [80, 160, 240, 320, 400]
    falls = [3 * math.exp(-step / 80) for step in (80, 160, 240, 320, 400)]
    assert numbers(line.get_ydata()) == pytest.approx([4.405 + fall for fall in falls])
    assert "Lines have the steps alone that all runs of their arm recorded" in note(figure)
    for path in paths(table):
        assert path.steps == (80, 160, 240, 320, 400)
        assert {found.n for found in path.found} == {(2, 2)}
    assert "Steps are those at which all runs of an arm and of the baseline were evaluated" in note(
        charts.difference(table)
    )


def seeds_apart(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [r | {"step": r["step"] + seed} for r in records]


def test_seeds_without_a_common_step_have_a_line_between_records_and_no_difference(tmp_path: Path) -> None:
    table = table_of(tmp_path, seeds_apart)
    figure = charts.curves(table)
    assert numbers(figure.axes[0].lines[0].get_xdata())[:4] == [41, 80, 81, 120]
    assert "No step was recorded by all runs of 3 arms, whose lines are linear between records" in note(figure)
    assert "at no step all runs" in draw(table, ("difference",)).left_out["difference"]


def one_arm_apart(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [r | {"step": r["step"] + (arm == 1)} for r in records]


def test_an_arm_that_shares_no_step_with_the_baseline_is_counted(tmp_path: Path) -> None:
    table = table_of(tmp_path, one_arm_apart)
    assert [path.arm for path in paths(table)] == [table.arms[2]]
    assert "Not drawn: 1 arms that have no such step" in note(charts.difference(table))


def one_on_the_way(arm: int, seed: int, records: list[Record]) -> list[Record]:
    return [val(records)[4] | {"tokens": 32_768}, val(records)[-1] | {"tokens": 190_848}]


def test_of_one_evaluation_on_the_way_and_one_at_the_end_the_last_is_the_final_one(tmp_path: Path) -> None:
    found = course(table_of(tmp_path, one_on_the_way).arms[0].rows, "val", "loss", "step")
    assert found.line["x"].tolist() == [200, 200]
    assert found.final["x"].tolist() == [400, 400]
    assert found.tokens == (32_768, 190_848)


def test_a_step_counts_the_runs_that_were_evaluated_at_it(tmp_path: Path) -> None:
    first, *_ = paths(table_of(tmp_path, not_a_number))
    assert {found.n for found in first.found} == {(1, 2)}


def test_an_arm_without_a_place_on_the_logarithmic_scale_costs_no_figure(tmp_path: Path) -> None:
    table = table_of(tmp_path, maxvio=lambda arm: 0.0 if arm == 1 else 0.3)
    assert table.others[MAXVIO.column] == {}
    found = draw(table, ("turning_point", "forest", "tradeoff", "maxvio"))
    assert set(found.files) == {"turning_point", "forest", "tradeoff", "maxvio"}
    assert found.faults == {}


def test_runs_that_all_agree_have_no_intervals_and_still_a_line(tmp_path: Path) -> None:
    for settings in ARMS:
        for seed in range(2):
            make_suite_run(tmp_path, settings, seed, loss=4.5, maxvio=0.3)
    make_manifest(tmp_path, sweep_content("demo", ARMS, 2))
    table = ablation_table(load_manifests(tmp_path)[0][0], read_runs(tmp_path))
    found = draw(table, ("curves", "difference", "forest"))
    assert set(found.files) == {"curves", "difference"}
    assert found.left_out == {"forest": "no arm has a difference with an interval"}
    assert found.faults == {}
