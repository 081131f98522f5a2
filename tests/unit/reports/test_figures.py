"""Figures that are right: everything in its place, ends at the table's numbers, bars that are the table's intervals."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from unit.results.folders import make_manifest
from unit.results.suite import STEPS, Settings, make_suite_run, sweep_content

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.reports import charts
from moe_sweeps.reports.charts import CHARTS
from moe_sweeps.reports.charts.along import MAXVIO, MOST_ROWS, compared
from moe_sweeps.reports.charts.canvas import names_of
from moe_sweeps.reports.charts.difference import MOST_PANELS, paths
from moe_sweeps.reports.charts.spots import MOST_NAMED
from moe_sweeps.reports.drawing.files import cramped, draw_files
from moe_sweeps.reports.evidence import draw
from moe_sweeps.results.definition import FIGURES, GridLayout
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table

COEFS = ("0.05", "0.1", "0.2", "0.4")
WIDER = 4096  # tokens of the final evaluation, eight times those on the way


def final_evaluation(run: Path, loss: float) -> None:
    """Make the last evaluation one of more windows, which see a loss of their own."""
    path = run / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[-1] |= {"tokens": WIDER, "loss": loss}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def a_table(root: Path, arms: list[Settings], seeds: int, losses: list[float], baseline: int = 0) -> Table:
    rng = np.random.default_rng(3)
    for settings, loss in zip(arms, losses, strict=True):
        for seed in range(seeds):
            mine = loss + 0.02 * seed + float(rng.normal(0, 0.004))
            run = make_suite_run(root, settings, seed, loss=mine, maxvio=0.2 + 0.1 * loss + 0.01 * seed)
            final_evaluation(run.path, mine)
    make_manifest(root, sweep_content("demo", arms, seeds, baseline=baseline))
    return ablation_table(load_manifests(root)[0][0], read_runs(root))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    arms: list[Settings] = [{"aux.coef": c, "lr_split.expert": e} for c, e in zip(COEFS, "1234", strict=True)]
    found = a_table(tmp_path_factory.mktemp("four"), arms, 3, [4.50, 4.40, 4.49, 4.60], baseline=2)
    grid = GridLayout("aux.coef", "lr_split.expert", ("val_loss", "val_maxvio_global"))
    return replace(found, definition=replace(found.definition, axis="aux.coef", grid=grid))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Forty arms of six settings, four of which go together."""
    arms: list[Settings] = [
        {"lr_split.expert": f"{place}.125", **{f"lr_split.{role}": f"{place % 7}.5" for role in ("dense", "router",
         "embedding", "norm")}, "balancer": "lossfree"} for place in range(1, 41)
    ]  # fmt: skip
    found = a_table(tmp_path_factory.mktemp("crowd"), arms, 2, [4.4 + 0.01 * i for i in range(40)])
    grid = GridLayout("lr_split.dense", "lr_split.expert")
    return replace(found, definition=replace(found.definition, axis="lr_split.expert", grid=grid))


def numbers(data: object) -> list[float]:
    return [float(value) for value in np.asarray(data)]


def note(figure: Figure) -> str:
    return " ".join(figure._supxlabel.get_text().split())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("which", ["table", "crowd"])
def test_nothing_is_cropped_and_no_panel_collapses(name: str, which: str, request: pytest.FixtureRequest) -> None:
    made: list[Figure] = []

    def one() -> Figure:
        made.append(CHARTS[name].draw(request.getfixturevalue(which)))
        return made[-1]

    found = draw_files({name: one})
    assert found.faults == {}
    assert found.left_out == {}
    (figure,) = made
    inches = [axes.get_window_extent().height / figure.dpi for axes in figure.axes if axes.axison]
    assert min(inches) > 0.6
    assert figure.get_figheight() < 20
    whole = figure.bbox
    texts = [figure._suptitle, figure._supxlabel, *figure.legends]  # type: ignore[attr-defined]
    for box in (text.get_window_extent() for text in texts):
        assert (box.x0, box.y0) >= (whole.x0, whole.y0)
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1
    below = max(box.y1 for box in (text.get_window_extent() for text in texts[1:]))
    assert all(box.y0 >= below - 1 for axes in figure.axes if axes.axison and (box := axes.get_tightbbox()))
    sizes = [text.get_fontsize() for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels())]
    assert (
        min(
            float(size)
            for size in [*sizes, *(text.get_fontsize() for legend in figure.legends for text in legend.get_texts())]
        )
        >= 7
    )


@pytest.mark.parametrize("name", ["curves", "equal_time"])
def test_lines_over_training_end_at_the_numbers_of_the_table(table: Table, name: str) -> None:
    figure = CHARTS[name].draw(table)
    axes = figure.axes[0]
    ends = [line for line in axes.lines if line.get_markersize() == 9 and len(numbers(line.get_xdata()))]
    means = [arm.cells["val_loss"].mean for arm in table.arms]
    assert [numbers(line.get_ydata())[0] for line in ends] == pytest.approx(means)
    assert {numbers(line.get_xdata())[0] for line in ends} == {STEPS if name == "curves" else STEPS * 0.1}
    lines = [line for line in axes.lines if line.get_markersize() != 9]
    assert {max(numbers(line.get_xdata())) for line in lines} == {360.0 if name == "curves" else 36.0}  # not the last
    assert "final evaluation: the table's number" in axes.get_legend_handles_labels()[1]
    assert "on 4,096 tokens; lines: evaluations on 512 tokens" in note(figure)


def test_where_all_evaluations_are_alike_the_line_itself_ends_at_the_number(tmp_path: Path) -> None:
    arms: list[Settings] = [{"aux.coef": c} for c in COEFS[:2]]
    for settings in arms:
        make_suite_run(tmp_path, settings, 0, loss=4.5, maxvio=0.3)
    make_manifest(tmp_path, sweep_content("demo", arms, 1))
    figure = charts.curves(ablation_table(load_manifests(tmp_path)[0][0], read_runs(tmp_path)))
    assert {max(numbers(line.get_xdata())) for line in figure.axes[0].lines} == {STEPS}
    assert "final evaluation" not in note(figure)


def test_differences_over_training_end_at_the_interval_of_the_table(table: Table) -> None:
    figure = charts.difference(table)
    panels = [axes for axes in figure.axes if axes.axison]
    found = list(table.differences.values())
    assert len(panels) == len(found) == 3
    assert panels[0].get_ylabel() == "Δ validation loss\n(nats a token)"
    for axes, comparison in zip(panels, found, strict=True):
        (bars,) = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
        (segment,) = bars.lines[2][0].get_segments()
        assert segment[:, 1] == pytest.approx([comparison.low, comparison.high])
        assert segment[:, 0] == pytest.approx([STEPS, STEPS])
        assert (bars.lines[0].get_markerfacecolor() == "white") == comparison.grey


def test_each_step_is_compared_as_the_table_compares_its_end(table: Table) -> None:
    """Loss at step s is the final one plus a fall that all runs share, so every interval is that of the end."""
    for path in paths(table):
        assert path.steps == tuple(range(40, STEPS, 40))
        assert path.final is not None
        for found in path.found:
            assert found.difference == pytest.approx(path.final.difference)
            assert (found.low, found.high) == pytest.approx((path.final.low, path.final.high))
            assert (found.kind, found.n) == (path.final.kind, path.final.n)


def test_without_a_baseline_there_are_no_differences_to_draw(table: Table) -> None:
    with pytest.raises(NotRecorded, match="no arm has curves to compare"):
        charts.difference(replace(table, baseline=None, differences={}))


@pytest.mark.parametrize("panel", [0, 1])
def test_the_bars_along_a_setting_are_the_differences_that_the_table_tests(table: Table, panel: int) -> None:
    metric = (PRIMARY, MAXVIO)[panel]
    figure = charts.turning_point(table)
    (bars,) = figure.axes[panel].containers
    segments = bars.lines[2][0].get_segments()  # type: ignore[attr-defined]
    base = float(
        np.mean([metric.on_scale(v) for v in table.arm(table.baseline or "").sample(metric.column).values.values()])
    )
    shown: Callable[[float], float] = math.exp if metric.scale == "log" else float
    for arm, segment in zip(table.arms, segments, strict=True):
        if arm.arm == table.baseline:
            assert segment[0, 1] == segment[1, 1]
        else:
            found = compared(table, metric)[arm.arm]
            assert found.low is not None
            assert found.high is not None
            assert segment[:, 1] == pytest.approx([shown(base + found.low), shown(base + found.high)])
    assert "filled points are findings" in note(figure)


def lines_along(figure: Figure, panel: int) -> list[list[float]]:
    return [numbers(bars[0].get_xdata()) for bars in figure.axes[panel].containers]


def test_each_combination_of_other_settings_has_a_line_of_its_own(tmp_path: Path) -> None:
    arms: list[Settings] = [
        {"aux.coef": coef, "optimizer": kind} for coef in ("0.1", "0.2", "0.4") for kind in ("adamw", "shampoo")
    ]
    table = a_table(tmp_path, arms, 2, [4.5, 4.4, 4.48, 4.41, 4.52, 4.39])
    figure = charts.turning_point(replace(table, definition=replace(table.definition, axis="aux.coef")))
    for panel in (0, 1):
        assert lines_along(figure, panel) == [[0.1, 0.2, 0.4], [0.1, 0.2, 0.4]]
    labels = figure.axes[0].get_legend_handles_labels()[1]
    what = "baseline's level + difference over aux.coef"
    assert {f"optimizer=adamw: {what}", f"optimizer=shampoo: {what}"} <= set(labels)
    looks = {(bars[0].get_color(), bars[0].get_marker(), str(bars[0].get_linestyle()))
             for bars in figure.axes[0].containers}  # fmt: skip
    assert len(looks) == 2


def test_at_most_eight_lines_and_levels_are_drawn_and_the_rest_is_counted(tmp_path: Path) -> None:
    arms: list[Settings] = [{"aux.coef": c, "lr_split.expert": f"{e}"} for e in range(1, 8) for c in ("0.1", "0.2")]
    arms += [{"lr_split.dense": f"{d}.5"} for d in range(1, 5)]
    table = a_table(tmp_path, arms, 1, [4.4 + 0.01 * i for i in range(len(arms))])
    table = replace(table, definition=replace(table.definition, axis="aux.coef"))
    figure = charts.turning_point(table)
    assert len(figure.axes[0].containers) == 7
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert [label for label in labels if label.startswith("lr_split.dense")] == ["lr_split.dense=1.5"]
    assert "Not shown: 3 arms without aux.coef" in note(figure)
    more: list[Settings] = [{"aux.coef": c, "lr_split.expert": f"{e}"} for e in range(1, 11) for c in ("0.1", "0.2")]
    table = a_table(tmp_path / "more", more, 1, [4.4 + 0.01 * i for i in range(len(more))])
    figure = charts.turning_point(replace(table, definition=replace(table.definition, axis="aux.coef")))
    assert len(figure.axes[0].containers) == 8
    assert "Not shown: 2 lines of other settings" in note(figure)


@pytest.mark.parametrize("panel", [0, 1])
def test_seeds_are_below_the_means_and_beside_them(table: Table, panel: int) -> None:
    figure = charts.turning_point(table)
    figure.canvas.draw()
    axes = figure.axes[panel]
    (bars,) = axes.containers
    means = axes.transData.transform(bars[0].get_xydata())
    seeds = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert len(seeds) == 4
    for mean, found in zip(means, seeds, strict=True):
        assert found.get_zorder() < bars[0].get_zorder()
        places = found.get_offset_transform().transform(np.asarray(found.get_offsets()))
        assert all(axes.get_ylim()[0] < y < axes.get_ylim()[1] for y in np.asarray(found.get_offsets())[:, 1])
        assert list(places[:, 0]) == pytest.approx([mean[0] + 7 / 72 * figure.dpi] * 3)


def test_the_forest_has_a_panel_for_balance_in_ratios(table: Table) -> None:
    loss, balance = charts.forest(table).axes
    assert loss.get_xlabel() == "difference in validation loss (nats a token)"
    assert balance.get_xlabel() == "ratio of MaxVio on validation"
    shown = [float(bars.lines[0].get_xdata()[0]) for bars in balance.containers]  # type: ignore[attr-defined]
    wanted = [math.exp(c.difference) for c in compared(table, MAXVIO).values()]
    assert shown == pytest.approx(wanted)


def test_one_wild_interval_does_not_press_the_others_into_a_line(table: Table) -> None:
    wild, *_ = table.differences
    differences = dict(table.differences)
    differences[wild] = replace(differences[wild], low=-50.0, high=50.0, p_family=0.9)
    figure = charts.forest(replace(table, differences=differences))
    low, high = figure.axes[0].get_xlim()
    assert high - low < 2
    assert "Bars that leave the panel are cut at its edge" in note(figure)


def test_many_arms_are_cut_down_and_the_caption_says_what_is_not_shown(crowd: Table) -> None:
    assert len(crowd.differences) == 39
    forest = charts.forest(crowd)
    assert len(forest.axes[0].containers) == MOST_ROWS
    assert f"Not shown: {39 - MOST_ROWS} undecided arms" in note(forest) or "Not shown: 3 arms" in note(forest)
    tradeoff = charts.tradeoff(crowd)
    assert f"Grey: {40 - MOST_NAMED} arms with a higher loss" in note(tradeoff)
    assert sum(axes.axison for axes in charts.difference(crowd).axes) == MOST_PANELS
    assert "16 of 40 arms: the baseline and the best" in note(charts.difference(crowd))


def test_settings_that_go_together_are_one_in_a_name(crowd: Table) -> None:
    names = names_of(crowd.arms)
    assert names[crowd.arms[2].arm] == "lr_split.expert=3.125 lr_split.{dense, router, embedding, norm}=3.5"
    assert len(set(names.values())) == 40


def test_a_warning_of_the_plotting_library_is_an_error_here_and_a_fault_of_one_figure_elsewhere() -> None:
    def warns() -> Figure:
        warnings.warn("axes sizes collapsed to zero", UserWarning, stacklevel=1)
        return Figure(figsize=(3, 3))

    with pytest.raises(UserWarning, match="collapsed"):
        draw_files({"bad": warns})
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        found = draw_files({"bad": warns, "good": lambda: Figure(figsize=(3, 3))})
    assert set(found.files) == {"bad", "good"}
    assert found.faults == {"bad": "axes sizes collapsed to zero"}


def test_a_picture_that_cannot_be_rendered_loses_no_other() -> None:
    def too_large() -> Figure:
        return Figure(figsize=(1e6, 1e6))

    found = draw_files({"bad": too_large, "good": lambda: Figure(figsize=(3, 3))})
    assert set(found.files) == {"good"}
    assert "unexpected content" in found.left_out["bad"]


def test_a_panel_without_room_and_a_legend_beyond_the_edge_are_found() -> None:
    figure = Figure(figsize=(4, 2))
    axes = figure.add_axes((0.1, 0.5, 0.8, 0.05))
    axes.plot([0], [0], label="x")
    axes.legend(loc="upper left", bbox_to_anchor=(1.2, 1.0))
    assert cramped(figure) == ["a panel has no room", "a legend reaches beyond the edge"]


def test_the_caption_counts_runs_of_other_sweeps(table: Table) -> None:
    more = replace(table.arms[0], elsewhere=tuple(table.arms[0].rows))
    figure = charts.forest(replace(table, arms=(more, *table.arms[1:])))
    assert "Differences count 3 runs of these arms that other sweeps asked for, too." in note(figure)


def test_figures_say_nothing_about_arms_that_are_all_there(table: Table) -> None:
    figures = draw(table, ("forest",))
    assert figures.faults == {}
    assert "Not shown" not in note(charts.forest(table))
