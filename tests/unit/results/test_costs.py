"""Costs of arms, from run folders made by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from unit.results.folders import make_manifest, make_run, manifest_content, run_hash, summary

from moe_sweeps.cli.tables import main
from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports.evidence import gather
from moe_sweeps.reports.render_costs import csv_text, markdown, notes_of, terminal
from moe_sweeps.results.costs import (
    CostTable,
    Point,
    common_seconds,
    common_step,
    cost_table,
    evaluations,
    loss_at_seconds,
    loss_at_step,
    ratio,
)
from moe_sweeps.results.curves import load_curves
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.stats import Estimate, estimate
from moe_sweeps.results.tables import ablation_table

ARMS: tuple[tuple[str, float | None], ...] = (("aux", 0.1), ("lossfree", None))


def costly(root: Path, balancer: str, coef: float | None, seed: int, *, step_seconds: float, fall: float) -> None:
    """200 steps of `step_seconds`; the loss falls from 7 by `fall` every 50 steps. The end sees more windows."""
    parts = {"seconds_forward": 0.4, "seconds_backward": 0.5, "seconds_optimizer": 0.05}
    costs: dict[str, Any] = {name: share * step_seconds for name, share in parts.items()}
    costs |= {"seconds_per_step": step_seconds, "optimizer_state_bytes": 8_000_000}
    run = make_run(root, balancer, coef, seed, numbers=summary(3.0, **costs))
    lines = [
        {"step": s, "split": "val", "tokens": 512, "loss": 7 - fall * s / 50, "train_seconds": s * step_seconds}
        for s in (50, 100, 150)
    ]
    lines.append({"step": 200, "split": "val", "tokens": 4096, "loss": 1.0, "train_seconds": 200 * step_seconds})
    lines.append({"step": 200, "split": "train", "loss": 1.0})
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def made(root: Path) -> CostTable:
    for seed in range(2):
        costly(root, "aux", 0.1, seed, step_seconds=0.1, fall=1.0 + seed / 10)
        costly(root, "lossfree", None, seed, step_seconds=0.15 + seed / 100, fall=1.2)
    manifest = make_manifest(root, manifest_content(2, ARMS))
    runs = read_runs(root)
    found = cost_table(ablation_table(manifest, runs), runs)
    assert found is not None
    return found


POINTS = [Point(50, 5.0, 6.0), Point(100, 10.0, 5.0), Point(150, 20.0, 4.0)]


def test_loss_at_equal_time_lies_on_a_line_between_evaluations() -> None:
    expected = {5.0: 6.0, 7.5: 5.5, 10.0: 5.0, 12.5: 4.75, 20.0: 4.0}
    assert {t: loss_at_seconds(POINTS, t) for t in expected} == expected
    assert loss_at_seconds(POINTS, 4.9) is None  # before the first evaluation nothing is known
    assert loss_at_seconds(POINTS, 20.1) is None
    assert loss_at_seconds(POINTS[:1], 5.0) == 6.0


def test_loss_at_equal_steps_was_evaluated_there() -> None:
    assert loss_at_step(POINTS, 100) == 5.0
    assert loss_at_step(POINTS, 99) is None


def test_where_losses_are_compared() -> None:
    points = {"a": POINTS, "b": [Point(50, 9.0, 6.0), Point(100, 18.0, 5.0)]}
    assert common_step(points) == 100
    assert common_seconds(points) == 18.0
    assert common_step({}) is None
    assert common_seconds({}) is None
    assert common_step({"a": POINTS, "b": [Point(60, 9.0, 6.0)]}) is None


def test_the_final_evaluation_is_left_out_for_its_other_windows(tmp_path: Path) -> None:
    costly(tmp_path, "aux", 0.1, 0, step_seconds=0.1, fall=1.0)
    run_id = run_hash("aux", 0.1, 0)
    found = evaluations(load_curves([str(tmp_path / f"smoke-aux-{run_id}")]).frame)
    assert found == {run_id: [Point(50, 5.0, 6.0), Point(100, 10.0, 5.0), Point(150, 15.0, 4.0)]}


def test_of_one_evaluation_on_the_way_and_one_at_the_end_the_first_is_a_point(tmp_path: Path) -> None:
    run = make_run(tmp_path, "aux", 0.1, 0, numbers=summary(3.0))
    lines = [{"step": s, "split": "val", "tokens": t, "loss": 4.0, "train_seconds": 1.0 * s}
             for s, t in ((200, 32_768), (400, 190_848))]  # fmt: skip
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert evaluations(load_curves([run.path]).frame) == {run.run_id: [Point(200, 200.0, 4.0)]}


def test_a_run_whose_log_is_damaged_is_named(tmp_path: Path) -> None:
    """Its arm has no loss at equal steps, and the reader is told why, whatever figures the table has."""
    made(tmp_path)
    broken = tmp_path / f"smoke-aux-{run_hash('aux', 0.1, 0)}"
    (broken / "metrics.jsonl").write_text('{"step": 1\n{"step"\n')
    [manifest], _ = load_manifests(tmp_path)
    runs = read_runs(tmp_path)
    found = cost_table(ablation_table(manifest, runs), runs)
    assert found is not None
    assert [problem.path for problem in found.damaged] == [broken]
    assert any(broken.name in line for line in notes_of(found))
    evidence = gather(manifest, runs, None)
    assert [problem.path for problem in evidence.problems].count(broken) == 1


def test_costs_by_hand(tmp_path: Path) -> None:
    found = made(tmp_path)
    aux, lossfree = (found.cells[arm.arm] for arm in found.table.arms)
    assert aux["seconds_per_step"].mean == pytest.approx(0.1)
    assert aux["relative"].mean == pytest.approx(1.0)
    assert lossfree["relative"].mean == pytest.approx(1.55)
    assert lossfree["relative"].n == 2
    assert lossfree["seconds_optimizer"].mean == pytest.approx(0.05 * 0.155)
    assert lossfree["hours"].mean == pytest.approx(0.155 * 50_000 / 3600)
    assert lossfree["optimizer_state_bytes"].mean == 8_000_000
    assert found.steps == 150
    assert aux["loss_at_steps"].mean == pytest.approx(7 - 3 * 1.05)
    assert lossfree["loss_at_steps"].mean == pytest.approx(7 - 3 * 1.2)
    # aux is at step 150 after 15 s; lossfree at 100 with 0.15 s a step, at 93.75 with 0.16.
    assert found.seconds == pytest.approx(15.0)
    assert aux["loss_at_seconds"].mean == pytest.approx(aux["loss_at_steps"].mean)
    assert lossfree["loss_at_seconds"].mean == pytest.approx(7 - 1.2 * (100 + 93.75) / 2 / 50)


def test_an_arm_of_which_a_run_never_got_there_has_no_loss_there(tmp_path: Path) -> None:
    """The slow ones are missing: a mean over the others would flatter it."""
    costly(tmp_path, "aux", 0.1, 0, step_seconds=0.1, fall=1.0)
    costly(tmp_path, "aux", 0.1, 1, step_seconds=9.0, fall=1.0)  # its first evaluation comes after the others' last
    costly(tmp_path, "lossfree", None, 0, step_seconds=0.1, fall=1.0)
    runs = read_runs(tmp_path)
    found = cost_table(ablation_table(make_manifest(tmp_path, manifest_content(2, ARMS)), runs), runs)
    assert found is not None
    slow, fast = (found.cells[arm.arm]["loss_at_seconds"] for arm in found.table.arms)
    assert (slow.mean, slow.n) == (None, 0)
    assert fast.n == 1
    text = markdown(found)
    assert "| aux | 0.1 | 2/2 |" in text
    assert "| lossfree | – | 1/2 |" in text
    assert "NOT FINAL: 1 of 4 runs have no result" in text


def test_only_done_runs_count(tmp_path: Path) -> None:
    costly(tmp_path, "aux", 0.1, 0, step_seconds=0.1, fall=1.0)
    make_run(tmp_path, "lossfree", None, 0, state="diverged", numbers=summary(9.0, seconds_per_step=9.0))
    runs = read_runs(tmp_path)
    found = cost_table(ablation_table(make_manifest(tmp_path, manifest_content(1, ARMS)), runs), runs)
    assert found is not None
    assert [found.cells[arm.arm]["seconds_per_step"].n for arm in found.table.arms] == [1, 0]


def test_runs_without_costs_have_no_table(tmp_path: Path) -> None:
    make_run(tmp_path)
    runs = read_runs(tmp_path)
    manifest = make_manifest(tmp_path, manifest_content(1, ARMS))
    assert cost_table(ablation_table(manifest, runs), runs) is None


def test_how_it_looks(tmp_path: Path) -> None:
    found = made(tmp_path)
    text = markdown(found)
    assert "| lossfree | – | 2/2 | 155.0 | 62.0 | 77.5 | 7.8 | 1.55 ± 0.64 | 2.15 | 8.0 | 3.4000 ± 0.0000 |" in text
    assert "relative time: to balancer=aux" in text
    assert "equal steps: after 150 steps" in text
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal(found))
    assert all(len(line) <= 100 for line in console.export_text().splitlines())
    (first, second) = csv.DictReader(io.StringIO(csv_text(found)))
    assert float(second["relative_mean"]) == pytest.approx(1.55)
    assert first["equal_steps"] == "150"
    assert float(first["equal_seconds"]) == pytest.approx(15.0)


def relative(root: Path) -> list[Estimate]:
    [manifest], _ = load_manifests(root)
    runs = read_runs(root)
    found = cost_table(ablation_table(manifest, runs), runs)
    assert found is not None
    return [found.cells[arm.arm]["relative"] for arm in found.table.arms]


def test_on_several_hosts_nothing_is_said_of_relative_times(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert not any("NOT COMPARABLE" in line for line in notes_of(found))
    for number, run in enumerate(RunDir.all(tmp_path)):
        status = run.status()
        status.host = "ab"[number % 2]
        run.write_status(status)
    assert relative(tmp_path) == [Estimate(0), Estimate(0)]
    [manifest], _ = load_manifests(tmp_path)
    runs = read_runs(tmp_path)
    mixed = cost_table(ablation_table(manifest, runs), runs)
    assert mixed is not None
    note = "NOT COMPARABLE: timed on 2 hosts (a, b), so no arm has a relative time or a loss at equal time"
    assert notes_of(mixed)[-1] == note
    assert "1.55" not in markdown(mixed)


def test_one_run_a_side_has_no_relative_time(tmp_path: Path) -> None:
    costly(tmp_path, "aux", 0.1, 0, step_seconds=0.1, fall=1.0)
    costly(tmp_path, "lossfree", None, 0, step_seconds=0.2, fall=1.0)
    make_manifest(tmp_path, manifest_content(1, ARMS))
    assert relative(tmp_path) == [Estimate(1, 1.0), Estimate(0)]


def test_the_interval_of_a_ratio_covers_as_often_as_it_says() -> None:
    """Against a simulation: two sides of three runs each, whose times scatter by a tenth."""
    random = np.random.default_rng(0)
    hits, rounds = 0, 4000
    for a, b in zip(random.normal(1.5, 0.15, (rounds, 3)), random.normal(1.0, 0.1, (rounds, 3)), strict=True):
        found = ratio(estimate(list(a)), estimate(list(b)))
        assert found.mean is not None
        assert found.half_width is not None
        hits += abs(found.mean - 1.5) <= found.half_width
    assert 0.94 <= hits / rounds <= 0.99


def test_the_same_computation_is_not_called_faster() -> None:
    """What stood there as 0.57 +- 0.29: the interval holds 1 when the spread of both sides is in it."""
    found = ratio(estimate([0.30, 0.62, 0.41]), estimate([0.55, 1.10, 0.66]))
    assert found.mean is not None
    assert found.half_width is not None
    assert found.mean - found.half_width < 1 < found.mean + found.half_width


def test_tables_show_costs_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "runs")
    line = ["--runs", str(tmp_path / "runs"), "--reports", str(tmp_path / "reports")]
    assert main(line) == 0
    assert "Costs of" not in capsys.readouterr().out
    assert main([*line, "--costs"]) == 0
    assert "Costs of demo" in capsys.readouterr().out
    assert (tmp_path / "reports" / "demo-5eed5eed" / "costs.csv").exists()
