"""The figures of tables: what they draw, from the numbers, and why they are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from unit.results.folders import NOW, make_manifest, make_messy_sweep
from unit.results.suite import AUX, GRID, make_suite, make_suite_run, sweep_content

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.numbers import spell_probability
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports import charts
from moe_sweeps.reports.charts import CHARTS, OF_SEARCHES
from moe_sweeps.reports.evidence import draw
from moe_sweeps.results.definition import FIGURES
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.noise import Floor
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    root = tmp_path_factory.mktemp("suite")
    make_suite(root)
    runs, (manifests, _) = read_runs(root), load_manifests(root)
    return {m.name: ablation_table(m, runs) for m in manifests}


def numbers(data: object) -> list[float]:
    return [float(value) for value in np.asarray(data)]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_every_figure_that_a_definition_may_name_is_drawn(tables: dict[str, Table]) -> None:
    assert set(CHARTS) == {*FIGURES, *OF_SEARCHES}
    drawn = [draw(tables[name], FIGURES) for name in ("aux_coef", "lr_split")]
    assert set(drawn[0][0]) | set(drawn[1][0]) == set(FIGURES)
    assert set(drawn[0].left_out) == {"heat"}
    assert drawn[0].faults == drawn[1].faults == {}
    for figures, _, _ in drawn:
        for both in figures.values():
            assert both["png"].startswith(PNG)
            assert b"<svg" in both["svg"]


def test_equal_data_give_equal_files(tables: dict[str, Table]) -> None:
    assert draw(tables["aux_coef"], ["tradeoff"]) == draw(tables["aux_coef"], ["tradeoff"])


def test_a_line_is_the_mean_over_seeds_and_its_band_their_range(tables: dict[str, Table]) -> None:
    axes = charts.curves(tables["aux_coef"]).axes[0]
    finals = [row["val_loss"] + 3 * np.exp(-400 / 80) for row in tables["aux_coef"].arms[0].rows]
    line = axes.lines[0]
    assert numbers(line.get_xdata()) == list(range(40, 401, 40))
    assert numbers(line.get_ydata())[-1] == pytest.approx(np.mean(finals))
    band = axes.collections[0].get_paths()[0].vertices
    at_end = [y for x, y in np.asarray(band) if x == 400]
    assert (min(at_end), max(at_end)) == (pytest.approx(min(finals)), pytest.approx(max(finals)))
    assert line.get_label() == "balancer=aux aux.coef=0.01 (n=3)"


def test_lines_can_be_told_apart_without_colour(tables: dict[str, Table]) -> None:
    lines = charts.maxvio(tables["aux_coef"]).axes[0].lines
    assert len({line.get_marker() for line in lines}) == len(AUX)


def test_a_heat_map_has_every_number_and_says_why_one_is_missing(tables: dict[str, Table], tmp_path: Path) -> None:
    axes = charts.heat(tables["lr_split"]).axes[0]
    mean = tables["lr_split"].arms[4].cells["val_loss"].mean
    assert f"{mean:.4f}\n(n=3)\nworse" in texts(axes)
    assert sum(text.endswith("\nbaseline") for text in texts(axes)) == 1
    assert len(axes.texts) == len(GRID)
    make_manifest(tmp_path, sweep_content("lr_split", [*GRID[:2], GRID[4]], 1))
    empty = ablation_table(load_manifests(tmp_path)[0][0], read_runs(tmp_path))
    with pytest.raises(NotRecorded, match="no run of the grid is done"):
        charts.heat(empty)


def test_the_turning_point_has_means_intervals_and_the_other_arm_as_a_level(tables: dict[str, Table]) -> None:
    table = tables["aux_coef"]
    loss, balance = charts.turning_point(table).axes
    (bars,) = loss.containers
    line = bars[0]
    assert numbers(line.get_xdata()) == [0.01, 0.1, 0.2, 0.4, 0.6]
    assert numbers(line.get_ydata()) == pytest.approx([arm.cells["val_loss"].mean for arm in table.arms[:5]], rel=1e-12)
    lossfree = table.arms[5].cells["val_loss"].mean
    assert any(numbers(level.get_ydata()) == pytest.approx([lossfree, lossfree], rel=1e-12) for level in loss.lines)
    assert [tick.get_text() for tick in balance.get_xticklabels()] == ["0.01", "0.1", "0.2", "0.4", "0.6"]


def test_the_forest_has_the_differences_of_the_table_over_the_band_of_noise(tables: dict[str, Table]) -> None:
    table = replace(tables["aux_coef"], floor=Floor(0.01, 4, 5, 0.03))
    axes = charts.forest(table).axes[0]
    shown = [numbers(bars[0].get_xdata())[0] for bars in axes.containers]
    assert shown == pytest.approx([c.difference for c in table.differences.values()])
    filled = [bars[0].get_markerfacecolor() != "white" for bars in axes.containers]
    assert filled == [c.decided for c in table.differences.values()]
    said = [text.get_text() for text in axes.texts]
    assert said == [*(spell_probability(c.probability_better or 0.0) for c in table.differences.values()), "P(better)"]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-0.03, 0.03))


def test_the_tradeoff_has_a_point_for_each_seed(tables: dict[str, Table]) -> None:
    axes = charts.tradeoff(tables["aux_coef"]).axes[0]
    points = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert sum(len(np.asarray(c.get_offsets())) for c in points) == 18 + 6
    assert axes.get_ylabel() == "validation loss (nats a token)"


def test_equal_time_stretches_the_slower_arm(tables: dict[str, Table]) -> None:
    lines = charts.equal_time(tables["aux_coef"]).axes[0].lines
    ends = [numbers(line.get_xdata())[-1] for line in lines]
    assert ends == pytest.approx([40.0] * 5 + [48.0])


def test_captions_say_n_and_what_is_missing(tables: dict[str, Table]) -> None:
    table = tables["lr_split"]
    assert charts.caption(table, table.arms) == (
        f"{table.title}, scale proxy; n = 2 to 3 seeds an arm. 4 of 36 runs have no number and are not drawn."
    )
    shown = charts.curves(table)._supxlabel.get_text()  # type: ignore[attr-defined]
    assert "8 of 12 arms: the baseline and the best" in " ".join(shown.split())


def test_runs_without_curves_are_left_out_with_the_reason(tmp_path: Path) -> None:
    table = ablation_table(make_messy_sweep(tmp_path), read_runs(tmp_path), now=NOW)
    figures, not_drawn, _ = draw(table, ("curves", "maxvio", "turning_point", "equal_time"))
    assert figures == {}
    assert not_drawn["curves"] == "no finished run has recorded loss over step"
    assert "fewer than two finished arms" in not_drawn["turning_point"]


def one_damaged(root: Path, line: str) -> tuple[Table, RunDir]:
    """Two seeds of one arm, of which the first has `line` in the middle of its metrics.jsonl."""
    settings = {"balancer": "aux", "aux.coef": "0.1"}
    made = [make_suite_run(root, settings, seed, loss=3.0 + seed, maxvio=0.1) for seed in range(2)]
    make_manifest(root, sweep_content("aux_coef", [settings], 2))
    path = made[0].path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], line + "\n", *lines[3:]]))
    return ablation_table(load_manifests(root)[0][0], read_runs(root)), made[0]


def note(figure: Figure) -> str:
    return " ".join(figure._supxlabel.get_text().split())  # type: ignore[attr-defined]


def test_a_run_whose_curve_is_damaged_is_said_in_the_note_and_is_in_no_line(tmp_path: Path) -> None:
    table, run = one_damaged(tmp_path, '{"step": 7, "spl')
    figure = charts.curves(table)
    assert note(figure).endswith("1 finished run is left out because metrics.jsonl cannot be read.")
    assert [line.get_label() for line in figure.axes[0].lines] == ["balancer=aux aux.coef=0.1 (n=1)"]
    assert numbers(figure.axes[0].lines[0].get_ydata())[-1] == pytest.approx(4.0, abs=0.1)
    (problem,) = charts.unreadable_curves(table)
    assert problem.path == run.path
    assert "a line that is not JSON" in problem.reason


def test_where_no_curve_is_left_the_reason_is_that_they_are_damaged(tmp_path: Path) -> None:
    table, run = one_damaged(tmp_path, "x")
    for other in tmp_path.glob("proxy-*"):
        (other / "metrics.jsonl").write_bytes((run.path / "metrics.jsonl").read_bytes())
    figures, not_drawn, _ = draw(table, ("curves",))
    assert figures == {}
    assert not_drawn["curves"] == (
        "no finished run has recorded loss over step; 2 finished runs are left out because metrics.jsonl cannot be read"
    )


def test_sound_curves_have_no_such_note(tables: dict[str, Table]) -> None:
    assert charts.unreadable_curves(tables["aux_coef"]) == []
    assert "cannot be read" not in note(charts.curves(tables["aux_coef"]))


def test_a_value_of_another_type_is_a_reason_and_no_traceback(tmp_path: Path) -> None:
    table, _ = one_damaged(tmp_path, '{"step": 7, "split": "train", "maxvio_batch": [1, "x"]}')
    figures, not_drawn, _ = draw(table, ("curves", "maxvio"))
    assert set(figures) == {"curves"}
    assert not_drawn["maxvio"].startswith("what is recorded has unexpected content (")
