"""The pictures of tables: what they draw, from the numbers, and why they are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from unit.results.folders import NOW, make_manifest, make_messy_sweep
from unit.results.suite import AUX, GRID, make_suite, sweep_content

from moe_sweeps.results import charts, load_runs
from moe_sweeps.results.charts import CHARTS
from moe_sweeps.results.definition import FIGURES
from moe_sweeps.results.evidence import draw
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.manifest import load_manifests
from moe_sweeps.results.tables import Table, ablation_table

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    root = tmp_path_factory.mktemp("suite")
    make_suite(root)
    runs, (manifests, _) = load_runs(root), load_manifests(root)
    return {m.name: ablation_table(m, runs) for m in manifests}


def numbers(data: object) -> list[float]:
    return [float(value) for value in np.asarray(data)]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_every_figure_that_a_definition_may_name_is_drawn(tables: dict[str, Table]) -> None:
    assert set(CHARTS) == set(FIGURES)
    drawn = [draw(tables[name], FIGURES) for name in ("aux_coef", "lr_split")]
    assert set(drawn[0][0]) | set(drawn[1][0]) == set(FIGURES)
    assert set(drawn[0][1]) == {"heat"}
    for figures, _ in drawn:
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
    assert line.get_label() == "balancer=aux\naux.coef=0.01 (n=3)"


def test_lines_can_be_told_apart_without_colour(tables: dict[str, Table]) -> None:
    lines = charts.maxvio(tables["aux_coef"]).axes[0].lines
    assert len({line.get_marker() for line in lines}) == len(AUX)


def test_a_heat_map_has_every_number_and_says_why_one_is_missing(tables: dict[str, Table], tmp_path: Path) -> None:
    axes = charts.heat(tables["lr_split"]).axes[0]
    mean = tables["lr_split"].arms[4].cells["val_loss"].mean
    assert f"{mean:.4f}\n(n=3)" in texts(axes)
    assert len(axes.texts) == len(GRID)
    make_manifest(tmp_path, sweep_content("lr_split", [*GRID[:2], GRID[4]], 1))
    empty = ablation_table(load_manifests(tmp_path)[0][0], load_runs(tmp_path))
    with pytest.raises(NotRecorded, match="no run of the grid is done"):
        charts.heat(empty)


def test_the_turning_point_has_means_intervals_and_the_other_arm_as_a_level(tables: dict[str, Table]) -> None:
    table = tables["aux_coef"]
    loss, balance = charts.turning_point(table).axes
    (bars,) = loss.containers
    line = bars[0]
    assert numbers(line.get_xdata()) == [0.01, 0.1, 0.2, 0.4, 0.6]
    assert numbers(line.get_ydata()) == [arm.cells["val_loss"].mean for arm in table.arms[:5]]
    lossfree = table.arms[5].cells["val_loss"].mean
    assert any(numbers(level.get_ydata()) == [lossfree, lossfree] for level in loss.lines)
    assert [tick.get_text() for tick in balance.get_xticklabels()] == ["0.01", "0.1", "0.2", "0.4", "0.6"]


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
    table = ablation_table(make_messy_sweep(tmp_path), load_runs(tmp_path), now=NOW)
    figures, not_drawn = draw(table, ("curves", "maxvio", "turning_point", "equal_time"))
    assert figures == {}
    assert not_drawn["curves"] == "no finished run has recorded loss over step"
    assert "fewer than two finished arms" in not_drawn["turning_point"]
