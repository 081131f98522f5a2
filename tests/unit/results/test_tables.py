"""The ablation table before rendering: which runs count, how the others are shown, what is mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.results.folders import DEMO_ARMS, NOW, make_manifest, make_messy_sweep, make_run, manifest_content, summary

from moe_sweeps.errors import ConfigError
from moe_sweeps.records.code_record import CodeRecord
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.numbers import METRICS as COLUMNS
from moe_sweeps.records.rundir import State
from moe_sweeps.reports.markdown import markdown
from moe_sweeps.reports.notes import warning
from moe_sweeps.reports.rows import cell
from moe_sweeps.results.definition import TableDefinition
from moe_sweeps.results.outcomes import OUTCOMES
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Arm, Table, ablation_table, marks, mixed


def build(root: Path, manifest: Manifest) -> Table:
    return ablation_table(manifest, read_runs(root), now=NOW)


def one_arm(root: Path, *runs: dict[str, Any]) -> tuple[Table, Arm]:
    """A sweep of one arm with three seeds, of which `runs` exist."""
    manifest = make_manifest(root, manifest_content(arms=(("aux", 0.1),)))
    for seed, run in enumerate(runs):
        make_run(root, "aux", 0.1, seed, **run)
    table = build(root, manifest)
    return table, table.arms[0]


def test_every_state_has_an_explanation() -> None:
    assert set(State) <= set(OUTCOMES)


def test_mean_and_interval_by_hand(tmp_path: Path) -> None:
    # losses 3.0, 3.1, 3.2: mean 3.1, sd 0.1; half-width 4.302653 * 0.1 / sqrt(3) = 0.2484138; accuracy is a tenth of it
    table, arm = one_arm(tmp_path, {}, {}, {})
    loss, accuracy = arm.cells["val_loss"], arm.cells["val_accuracy"]
    assert loss.n == 3
    assert loss.mean == pytest.approx(3.1)
    assert loss.sd == pytest.approx(0.1)
    assert loss.half_width == pytest.approx(0.2484138, abs=1e-7)
    assert accuracy.half_width == pytest.approx(0.02484138, abs=1e-8)
    assert table.clean
    assert marks(table, arm) == []


def test_rows_are_in_the_order_of_the_design(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, manifest_content(arms=DEMO_ARMS[::-1]))
    for balancer, coef in DEMO_ARMS:
        make_run(tmp_path, balancer, coef)
    labels = [arm.label for arm in build(tmp_path, manifest).arms]
    assert labels == ["balancer=lossfree", *(f"balancer=aux aux.coef={c}" for c in (0.6, 0.2, 0.1))]


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ((), ("balancer", "aux.coef")),
        (("aux.coef", "balancer"), ("aux.coef", "balancer")),
        (("balancer",), ("balancer", "aux.coef")),  # three arms would be called the same
    ],
)
def test_settings_have_the_columns_that_the_definition_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    definition = TableDefinition(columns=wanted)
    monkeypatch.setattr("moe_sweeps.results.tables.load_definition", lambda name: definition)
    assert build(tmp_path, make_manifest(tmp_path, manifest_content(arms=DEMO_ARMS))).axes == shown


def test_any_number_of_the_summary_may_be_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("extra.depth", "tokens_per_second", "word", "val_z_los")
    definition = TableDefinition(name="x", metrics=names)
    monkeypatch.setattr("moe_sweeps.results.tables.load_definition", lambda name: definition)
    more = [{"extra": {"depth": d}, "word": None, "val_z_loss": 1.0, "tokens_per_second": 7.0} for d in (1.0, 3, 2)]
    table, arm = one_arm(tmp_path, *({"numbers": summary(3.0) | numbers} for numbers in more))
    assert [metric.header for metric in table.metrics[5:]] == ["extra.depth", "tokens/s", "word", "val_z_los"]
    assert (arm.cells["extra.depth"].n, arm.cells["extra.depth"].mean) == (3, 2.0)
    assert arm.cells["tokens_per_second"].mean == 7.0
    assert [problem.reason for problem in table.problems] == [
        "metrics: no finished run has a number word",
        "metrics: no finished run has a number val_z_los; did you mean val_z_loss?",
    ]
    assert table.clean


def test_a_definition_that_cannot_be_used_is_that_tables_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> TableDefinition:
        raise ConfigError("tables/x.yaml", "titel", "it must be one of title", "Did you mean title?")

    monkeypatch.setattr("moe_sweeps.results.tables.load_definition", refuse)
    table, arm = one_arm(tmp_path, {}, {})
    assert arm.cells["val_loss"].n == 2
    [problem] = table.problems
    assert problem.reason.startswith("the table is laid out without it: tables/x.yaml=titel is refused")


@pytest.mark.parametrize("state", sorted(set(State) - {State.done}))
def test_a_run_that_is_not_done_is_marked_and_not_averaged(tmp_path: Path, state: str) -> None:
    table, arm = one_arm(tmp_path, {}, {}, {"state": state, "numbers": summary(99.0)})
    assert arm.cells["val_loss"].mean == pytest.approx(3.05)
    assert arm.cells["val_loss"].n == 2
    assert marks(table, arm) == [f"1 {state}"]
    assert table.clean == (state == "diverged")


def test_a_diverged_run_is_not_averaged_even_if_its_row_had_numbers(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, manifest_content(arms=(("aux", 0.1),)))
    for seed, state in enumerate(("done", "done", "diverged")):
        make_run(tmp_path, seed=seed, state=state)
    runs = read_runs(tmp_path)
    (diverged,) = (row for row in runs.rows.values() if row["state"] == "diverged")
    runs.rows[diverged["run_id"]] = {**diverged, "val_loss": 99.0}
    cell = ablation_table(manifest, runs, now=NOW).arms[0].cells["val_loss"]
    assert cell.n == 2
    assert cell.mean == pytest.approx(3.05)


def test_a_collapsed_run_is_marked_and_stays_in_the_mean(tmp_path: Path) -> None:
    healthy, collapsed = {"collapsed": False}, {"collapsed": True, "collapsed_at_step": 12}
    runs = [{"numbers": summary(3.0) | health} for health in (healthy, collapsed)]
    table, arm = one_arm(tmp_path, *runs, {})
    assert arm.cells["val_loss"].n == 3
    assert marks(table, arm) == ["1 collapsed"]
    assert table.clean
    assert "- collapsed: the router sent nearly everything" in markdown(table)


def test_a_run_that_was_stopped_early_is_an_outcome_and_in_no_mean(tmp_path: Path) -> None:
    stopped = summary(99.0, tokens=20, collapsed=True, collapsed_at_step=12, stopped_early=True)
    table, arm = one_arm(tmp_path, {}, {}, {"numbers": stopped})
    assert arm.cells["val_loss"].mean == pytest.approx(3.05)
    assert marks(table, arm) == ["1 stopped", "1 collapsed"]
    assert table.clean
    assert table.tokens == (40_960,)
    assert arm.runs[2].detail == "step 200 of 200, collapsed at step 12"


def test_an_arm_of_which_every_run_was_stopped_says_so(tmp_path: Path) -> None:
    stopped = summary(99.0, collapsed=True, collapsed_at_step=12, stopped_early=True)
    table, arm = one_arm(tmp_path, *[{"numbers": stopped}] * 3)
    assert cell(table, arm, COLUMNS[0]) == "stopped"


def test_a_diverged_run_that_had_collapsed_is_marked_as_both(tmp_path: Path) -> None:
    numbers = summary(99.0, diverged_at_step=37, collapsed=True, collapsed_at_step=12)
    table, arm = one_arm(tmp_path, {}, {}, {"state": "diverged", "numbers": numbers})
    assert marks(table, arm) == ["1 diverged", "1 collapsed"]


def test_a_run_without_a_folder_is_missing(tmp_path: Path) -> None:
    table, arm = one_arm(tmp_path, {})
    assert marks(table, arm) == ["2 missing"]
    assert not table.clean


@pytest.mark.parametrize(("age", "outcome"), [(0, "running"), (299, "running"), (301, "stale")])
def test_a_running_run_without_heartbeat_is_stale(tmp_path: Path, age: float, outcome: str) -> None:
    table, arm = one_arm(tmp_path, {}, {}, {"state": "running", "heartbeat": NOW - age})
    assert marks(table, arm) == [f"1 {outcome}"]


def test_a_queued_run_does_not_become_stale(tmp_path: Path) -> None:
    table, arm = one_arm(tmp_path, {}, {}, {"state": "queued", "heartbeat": 0.0})
    assert marks(table, arm) == ["1 queued"]


def test_an_arm_without_finished_runs_still_has_a_row(tmp_path: Path) -> None:
    table, arm = one_arm(tmp_path)
    assert arm.cells["val_loss"].n == 0
    assert marks(table, arm) == ["3 missing"]
    assert table.scales == ()
    assert table.tokens == ()


def test_a_damaged_run_is_unreadable_and_not_missing(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, manifest_content(seeds=1, arms=(("aux", 0.1),)))
    (make_run(tmp_path).path / "summary.json").write_text('{"val_loss": 3.')
    table = build(tmp_path, manifest)
    assert marks(table, table.arms[0]) == ["1 unreadable"]
    assert "summary.json is not complete JSON" in table.arms[0].runs[0].detail


def test_a_run_of_another_arm_is_not_believed(tmp_path: Path) -> None:
    content = manifest_content(seeds=1, arms=(("aux", 0.1),))
    run = make_run(tmp_path)
    content["runs"][run.run_id]["arm"] = "0" * 12
    table = build(tmp_path, make_manifest(tmp_path, content))
    assert marks(table, table.arms[0]) == ["1 unreadable"]


def test_a_renamed_folder_is_found_by_its_run_id(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, manifest_content(seeds=1, arms=(("aux", 0.1),)))
    run = make_run(tmp_path)
    run.path.rename(tmp_path / f"my-favourite-{run.run_id}")
    assert build(tmp_path, manifest).clean


@pytest.mark.parametrize("what", ["code", "data"])
def test_mixed_versions_are_marked_in_every_row(tmp_path: Path, what: str) -> None:
    first: dict[str, Any] = {what: "1111112222"}
    second: dict[str, Any] = {what: "3333334444"}
    manifest = make_manifest(tmp_path, manifest_content(seeds=2, arms=DEMO_ARMS[:2]))
    for balancer, coef in DEMO_ARMS[:2]:
        make_run(tmp_path, balancer, coef, 0, **first)
    make_run(tmp_path, "aux", 0.1, 1, **first)
    make_run(tmp_path, "aux", 0.2, 1, **second)
    table = build(tmp_path, manifest)
    assert [marks(table, arm) for arm in table.arms] == [[f"{what} 111111"], [f"{what} 111111+333333"]]
    assert not table.one_version
    assert not table.clean
    assert all(arm.complete for arm in table.arms)


@pytest.mark.parametrize("what", ["code", "data"])
def test_runs_that_changed_on_their_way_are_mixed_though_all_did(tmp_path: Path, what: str) -> None:
    table, arm = one_arm(tmp_path, *({what: "1111112222+3333334444"} for _ in range(3)))
    assert marks(table, arm) == [f"{what} 111111+333333"]
    assert not table.clean


def arms_by_files(root: Path, *files: dict[str, str]) -> Table:
    """The demo's first arms with one seed each, trained by code that is known by its files."""
    manifest = make_manifest(root, manifest_content(seeds=1, arms=DEMO_ARMS[: len(files)]))
    for (balancer, coef), known in zip(DEMO_ARMS, files, strict=False):
        make_run(root, balancer, coef, 0).update_provenance(**CodeRecord.of(known).entry())
    return build(root, manifest)


def test_arms_that_execute_different_files_are_compared(tmp_path: Path) -> None:
    table = arms_by_files(tmp_path, {"trainer.py": "1", "balancing/a.py": "1"}, {"trainer.py": "1", "b.py": "1"})
    assert table.clean
    assert len(table.code) == 1
    assert not mixed(*table.arms)
    assert [marks(table, arm) for arm in table.arms] == [[], []]


def test_a_file_that_two_arms_executed_otherwise_is_named_and_refused(tmp_path: Path) -> None:
    """Of three arms the third, which executed neither version of the file, can be compared with both."""
    table = arms_by_files(
        tmp_path, {"trainer.py": "1", "a.py": "1"}, {"trainer.py": "1", "a.py": "2"}, {"trainer.py": "1"}
    )
    one, other, neither = table.arms
    assert not table.clean
    assert warning(table) == "NOT FINAL: 2 versions of the code are mixed (a.py)."
    assert [mixed(one, other), mixed(one, neither), mixed(other, neither)] == [True, False, False]


def test_a_result_of_an_earlier_release_is_a_version_of_its_own(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, manifest_content(seeds=1, arms=DEMO_ARMS[:2]))
    for number, (balancer, coef) in enumerate(DEMO_ARMS[:2]):
        run = make_run(tmp_path, balancer, coef, 0)
        if number:
            run.update_provenance(**CodeRecord.of({"trainer.py": "1"}).entry())
    assert mixed(*build(tmp_path, manifest).arms)


@pytest.mark.parametrize("what", ["code", "data"])
def test_an_unknown_version_is_not_clean(tmp_path: Path, what: str) -> None:
    table, arm = one_arm(tmp_path, *({what: None} for _ in range(3)))
    assert marks(table, arm) == [f"{what} unknown"]
    assert not table.clean


def test_versions_of_runs_without_a_result_do_not_matter(tmp_path: Path) -> None:
    table, arm = one_arm(tmp_path, {}, {}, {"state": "queued", "data": None, "code": "other"})
    assert marks(table, arm) == ["1 queued"]


def test_a_metric_that_only_some_runs_have_is_a_gap(tmp_path: Path) -> None:
    table, arm = one_arm(tmp_path, {}, {}, {"numbers": summary(3.2, val_maxvio_global=None)})
    assert arm.cells["val_maxvio_global"].n == 2
    assert arm.cells["val_loss"].n == 3
    assert marks(table, arm) == ["missing values"]
    assert not table.clean


def test_a_metric_that_no_run_has_is_no_gap(tmp_path: Path) -> None:
    dense = {"numbers": summary(3.2, val_maxvio_global=None, train_maxvio_batch=None)}
    table, arm = one_arm(tmp_path, dense, dense, dense)
    assert arm.cells["val_maxvio_global"].n == 0
    assert table.clean


def test_collapsed_combinations_say_why(tmp_path: Path) -> None:
    table = build(tmp_path, make_manifest(tmp_path))
    (sentence,) = table.collapsed
    assert sentence.startswith("balancer=lossfree: 3 combinations (aux.coef=0.1,0.2,0.6) are one arm")
    assert sentence.endswith("because aux.coef is read by balancer=aux")


def test_combinations_of_one_meaning_are_listed(tmp_path: Path) -> None:
    content = manifest_content(seeds=2, arms=(("aux", 0.1),))
    again = [r | {"overrides": r["overrides"] | {"aux.coef": "1e-1"}} for r in content["requested"]]
    content["requested"] += again
    table = build(tmp_path, make_manifest(tmp_path, content))
    reason = "2 combinations have the same meaning and are one arm (aux.coef=0.1; aux.coef=1e-1)"
    assert table.collapsed == (f"balancer=aux aux.coef=0.1: {reason}",)


def test_the_messy_sweep_shows_everything_as_what_it_is(tmp_path: Path) -> None:
    table = build(tmp_path, make_messy_sweep(tmp_path))
    assert [marks(table, arm) for arm in table.arms] == [
        ["1 failed", "data da7ada+feedfe"],
        ["3 diverged", "data da7ada"],
        ["1 stale", "1 running", "1 missing"],
        ["1 preempted", "1 unreadable", "1 collapsed", "data da7ada"],
    ]
    assert [(arm.done, len(arm.runs)) for arm in table.arms] == [(2, 3), (0, 3), (0, 3), (1, 3)]
