"""What is reported of a search: its trials, best first, why each stopped, and the figures."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
from unit.cli.test_hostile import limit
from unit.sweep.search.test_drive import HALVING, RUNGS, STEPS, FakeWorker, new_search, run

from moe_sweeps.launch.follow import PAUSED, PRUNED, read_row
from moe_sweeps.records.manifest import Manifest, SearchRecord, TrialRecord, load_manifests
from moe_sweeps.records.numbers import PRIMARY, metric_of
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports.charts import OF_SEARCHES
from moe_sweeps.reports.charts.search import LEAST_DONE, optuna_importances
from moe_sweeps.reports.evidence import draw, gather
from moe_sweeps.reports.trial_sheet import trial_sheet
from moe_sweeps.reports.write import write_tables
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table
from moe_sweeps.results.trials import REPEATED, TrialRow, trials_of
from moe_sweeps.sweep.search.drive import Search
from moe_sweeps.sweep.search.trials import Outcome


def table_of(root: Path) -> Table:
    [manifest] = load_manifests(root)[0]
    return ablation_table(manifest, read_runs(root))


@pytest.fixture
def halved(folders: Path) -> Search:
    return run(new_search("search.trials=9", *HALVING, kind="random"), FakeWorker())


def test_the_trials_are_those_of_the_search_in_its_order(halved: Search, folders: Path) -> None:
    rows = trials_of(table_of(folders))
    ranked = halved.ranked()
    own = [row for row in rows if row.state != REPEATED]
    assert [row.number for row in own] == [trial.number for trial, _ in ranked]
    assert len(rows) == len(halved.trials)
    for row, (trial, stand) in zip(own, ranked, strict=True):
        assert row.value == pytest.approx(stand.best_known)
        assert row.final is (stand.outcome is Outcome.done)
        assert (row.step, row.total) == (stand.step, STEPS)
        assert row.settings == trial.shown
        assert row.rung == (None if row.final else max(stand.rung_values))


def test_why_a_trial_stopped_names_its_place_and_the_rule(halved: Search, folders: Path) -> None:
    rows = trials_of(table_of(folders))
    stopped = [row for row in rows if row.state == "pruned"]
    assert stopped
    at_rung: dict[int, list[float]] = {}
    for _, stand in halved.ranked():
        for rung, value in stand.rung_values.items():
            at_rung.setdefault(rung, []).append(value)
    for row in stopped:
        assert row.rung is not None
        values = sorted(at_rung[row.rung])
        place = 1 + values.index(row.value or math.nan)
        assert re.fullmatch(rf"{place}(st|nd|rd|th) of {len(values)} at step {row.rung}, where 1 in 2 goes on", row.why)
        assert place > 1
    assert {row.why for row in rows if row.state == "done"} == {"trained to its end"}


def test_one_state_has_one_name_everywhere(folders: Path) -> None:
    """A run that stopped at a rung is paused while its search goes on, and pruned afterwards: in status and tables."""
    search = run(new_search("search.trials=9", *HALVING, kind="random"), FakeWorker(), most=4)
    search.save()
    before = table_of(folders)
    states = {r.run_id: r.outcome for arm in before.arms for r in arm.runs}
    stopped = [id_ for id_, folder in search.folders.items() if folder.status().is_paused]
    assert stopped
    assert {states[id_] for id_ in stopped} == {PAUSED}
    assert {read_row("", search.folders[id_]).state for id_ in stopped} == {PAUSED}
    assert {read_runs(folders).rows[id_]["state"] for id_ in stopped} == {PAUSED}
    assert {row.state for row in trials_of(before)} <= {PAUSED, "done", "missing", "planned", REPEATED}
    again = run(search, FakeWorker())
    after = table_of(folders)
    left = [id_ for id_, folder in again.folders.items() if folder.status().is_paused]
    assert {r.outcome for arm in after.arms for r in arm.runs if r.run_id in left} == {PRUNED}
    assert "preempted" not in str(trial_sheet(after))


def test_the_sheet_says_step_rung_and_reason(halved: Search, folders: Path) -> None:
    sheet = trial_sheet(table_of(folders))
    assert sheet is not None
    assert sheet.columns == ("trial", *halved.plan.space.axes, "steps", PRIMARY.header, "at", "seeds", "outcome",
                             "why it stopped")  # fmt: skip
    first = [cell.text for cell in sheet.rows[0]]
    assert first[-1] == "trained to its end"
    assert f"{STEPS}/{STEPS}" in first
    assert "the end" in first
    assert any(f"rung {RUNGS[0]}" in [cell.text for cell in row] for row in sheet.rows)


def test_figures_and_sheet_are_on_the_page_and_in_files(halved: Search, folders: Path, tmp_path: Path) -> None:
    written = write_tables(folders, tmp_path / "reports")
    assert [p for p in written.problems if "figure" in str(p)] == []
    [found] = written.evidence
    assert {*found.figures, *found.not_drawn} >= set(OF_SEARCHES)
    assert {"search_history", "search_slices", "search_parallel"} <= found.figures.keys()
    assert "importances need" in found.not_drawn["search_importances"]
    page = (tmp_path / "reports" / "index.html").read_text()
    assert "why it stopped" in page
    assert "History of the search" in page
    markdown = next((tmp_path / "reports").rglob("table.md")).read_text()
    assert "search_history.png" in markdown


def test_a_grid_has_neither(folders: Path, tmp_path: Path) -> None:
    from unit.results.folders import make_manifest, make_run

    make_run(folders)
    manifest = make_manifest(folders)
    found = gather(manifest, read_runs(folders), None)
    assert trial_sheet(found.table) is None
    assert trials_of(found.table) == []
    drawn = draw(found.table, OF_SEARCHES)
    assert drawn.files == {}
    assert set(drawn.left_out.values()) == {"this is the table of a grid, and not of a search"}


# --- importances ------------------------------------------------------------------------------------------------------


def row(number: int, value: float, **params: float | int | str) -> TrialRow:
    return TrialRow(number, {k: str(v) for k, v in params.items()}, params, "done", value=value, final=True)


SPACE = {"a": "0 to 1", "b": "0.001 to 1, log scale", "c": "x, y", "d": "1 to 9, whole numbers"}
RECORD = SearchRecord("tpe", "val_loss", SPACE, ("0",), (), 3)


def many(count: int = 64) -> list[TrialRow]:
    """The value depends on a alone."""
    spread = [((n * 29) % 64) / 64 for n in range(count)]
    return [
        row(n, (0.1 + 0.8 * at) ** 2, a=0.1 + 0.8 * at, b=10 ** (-3 * ((n * 13) % 64) / 64), c="xy"[n % 2], d=1 + n % 9)
        for n, at in enumerate(spread)
    ]


def test_importances_are_optunas_and_find_what_matters() -> None:
    found = optuna_importances(RECORD, PRIMARY, many())
    assert next(iter(found)) == "a"
    assert found["a"] > 2 * max(found[key] for key in "bcd")
    assert sum(found.values()) == pytest.approx(1.0)


def test_an_axis_that_some_trials_do_not_read_has_no_importance() -> None:
    rows = many()
    settings = {key: value for key, value in rows[0].settings.items() if key != "b"}
    rows[0] = dataclasses.replace(rows[0], settings=settings)
    assert optuna_importances(RECORD, PRIMARY, rows).keys() == {"a", "c", "d"}


def test_a_metric_that_is_to_be_high_is_maximised() -> None:
    flipped = [dataclasses.replace(one, value=-(one.value or 0.0)) for one in many()]
    low, high = (
        optuna_importances(RECORD, PRIMARY, many()),
        optuna_importances(RECORD, metric_of("val_accuracy"), flipped),
    )
    assert low == pytest.approx(high)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (many(LEAST_DONE - 1), f"importances need {LEAST_DONE}"),
        ([row(n, 1.0, a=n / 10, d=n) for n in range(10)], "results .* do not differ"),
        ([row(n, n / 10, a=n / 10, d=1) for n in range(10)], "fewer than two settings differ"),
        ([], "importances need"),
    ],
)
def test_importances_of_too_little_are_not_made_up(rows: list[TrialRow], said: str) -> None:
    with pytest.raises(NotRecorded, match=said):
        optuna_importances(RECORD, PRIMARY, rows)


# --- manifests that nobody wrote --------------------------------------------------------------------------------------

HOSTILE = {
    "a metric that is none": {"metric": "\x1b[31mx"},
    "no space": {"space": {}},
    "a space of texts": {"space": {"optimizer.base_lr": "<script>", "balancer": "log scale"}},
    "no seeds": {"seeds": ()},
    "many seeds": {"seeds": tuple("0123456789")},
    "rungs beyond all": {"rungs": (-1, 0, 10**9)},
    "no trials": {"trials": ()},
    "more trials": {"trials": tuple(TrialRecord({"a": "x"}, same_as=10**6) for _ in range(40))},
    "refused trials": {"trials": (TrialRecord({"a": 1.0}, refused="<b>\x1b[2J" * 50),)},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_manifest_that_contradicts_itself_loses_no_page(
    halved: Search, folders: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    path = halved.plan.folder / "manifest.json"
    manifest = Manifest.load(path)
    assert manifest.search is not None
    dataclasses.replace(manifest, search=dataclasses.replace(manifest.search, **changes)).write(folders)  # type: ignore[arg-type]
    with limit(60, "the page"):
        write_tables(folders, tmp_path / "reports")
    page = (tmp_path / "reports" / "index.html").read_text()
    assert "\x1b" not in page
    assert "<b>" not in page


def test_a_log_that_is_damaged_costs_the_value_at_the_rung_alone(halved: Search, folders: Path) -> None:
    stopped = next(row for row in trials_of(table_of(folders)) if row.state == "pruned")
    folder = RunDir.find(folders, stopped.runs[0].run_id)
    assert folder is not None
    (folder.path / "metrics.jsonl").write_text("{\n{}\n")
    found = next(row for row in trials_of(table_of(folders)) if row.number == stopped.number)
    assert (found.value, found.rung, found.state) == (None, None, "pruned")
