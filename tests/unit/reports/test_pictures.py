"""Pictures of one run: they draw what was recorded, and name what is missing."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from unit.results.routing import DOMAINS, TOKENS, make_recorded_run, write_lines

from moe_sweeps.errors import MoeSweepsError, RunFolderError
from moe_sweeps.records.remarks import change_remarks
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports import drawing
from moe_sweeps.reports.drawing.numbers import MOST_COLUMNS, edges, load_shares, sampling_floor
from moe_sweeps.reports.drawing.panels import chosen_layers
from moe_sweeps.reports.drawing.style import SHARES
from moe_sweeps.reports.pictures import PICTURES, write_pictures
from moe_sweeps.results.history import History, NotRecorded


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_recorded_run(tmp_path / "runs", points=20)


def records(run: RunDir, split: str) -> list[dict[str, Any]]:
    lines = (run.path / "routing.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == split]


def edit(run: RunDir, **changes: Any) -> None:
    """Set fields of every train record; None takes the field away."""
    lines = [json.loads(line) for line in (run.path / "routing.jsonl").read_text().splitlines()]
    edited = [r | changes if r["split"] == "train" else r for r in lines]
    write_lines(run.path / "routing.jsonl", [{k: v for k, v in r.items() if v is not None} for r in edited])


def mesh(axes: Axes) -> Any:
    (found,) = (c for c in axes.collections if isinstance(c, QuadMesh))
    return np.asarray(found.get_array())


def line(axes: Axes, label: str) -> Any:
    (found,) = (each for each in axes.lines if str(each.get_label()).startswith(label))
    return np.asarray(found.get_data())


def footnote(figure: Figure) -> str:
    return str(figure.get_supxlabel())


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_the_load_map_is_the_recorded_share_in_multiples_of_the_equal_share(run: RunDir) -> None:
    figure = drawing.load(History.read(run))
    load_NLE = np.array([r["load_LE"] for r in records(run, "train")])
    for layer, axes in enumerate(figure.axes[:4]):
        np.testing.assert_allclose(mesh(axes), (load_NLE[:, layer] / (2 * TOKENS) * 8).T)
    (drawn,) = (c for c in figure.axes[0].collections if isinstance(c, QuadMesh))
    assert drawn.norm(np.array([1.0])) == 0.5  # the equal share is the middle of the colours


def test_many_records_are_added_up_and_none_is_lost(tmp_path: Path) -> None:
    run = make_recorded_run(tmp_path, layers=1, points=601)
    steps, shares_NLE = load_shares(History.read(run))
    assert len(steps) == len(shares_NLE) == MOST_COLUMNS
    np.testing.assert_allclose(shares_NLE.mean(axis=-1), 1.0)
    load_NLE = np.array([r["load_LE"] for r in records(run, "train")])
    first = load_NLE[:2].sum(axis=0)
    np.testing.assert_allclose(shares_NLE[0], first / first.sum() * 8)
    assert "Neighbours of 601 records are added up." in footnote(drawing.load(History.read(run)))
    figure = drawing.bias(History.read(run))
    assert "301 of 601 records" in footnote(figure)
    drawn = line(figure.axes[0], "expert 7")
    assert drawn[0][-1] == records(run, "train")[-1]["step"]
    np.testing.assert_allclose(drawn[1], [r["bias_LE"][0][7] for r in records(run, "train")[::2]])


def test_uneven_steps_get_cells_of_their_own_width() -> None:
    assert edges(np.array([10.0, 20.0, 40.0])).tolist() == [5, 15, 30, 50]
    assert edges(np.array([7.0])).tolist() == [6.5, 7.5]


def test_balance_draws_means_over_layers(run: RunDir) -> None:
    upper, lower = drawing.balance(History.read(run)).axes
    train = records(run, "train")
    for axes, label, key in (
        (upper, "batch of a step", "maxvio_batch_L"),
        (upper, "micro-batch", "maxvio_micro_L"),
        (lower, "of one token", "token_entropy_L"),
        (lower, "of the mean", "batch_entropy_L"),
        (lower, "difference", "mutual_information_L"),
    ):
        expected = [[r["step"] for r in train], [np.mean(r[key]) for r in train]]
        np.testing.assert_allclose(line(axes, label), expected)
    val = records(run, "val")
    np.testing.assert_allclose(line(upper, "validation")[1], [np.mean(r["maxvio_L"]) for r in val])
    assert line(upper, "chance")[1][0] == sampling_floor(TOKENS, 8, 2)
    assert line(lower, "largest")[1][0] == math.log(8)


def test_usage_draws_experts_in_effect_and_dead_ones(run: RunDir) -> None:
    upper, lower = drawing.usage(History.read(run)).axes
    train = records(run, "train")
    for axes, label, key in ((upper, "experts in effect", "n_eff_L"), (lower, "dead experts", "dead_L")):
        expected = [[r["step"] for r in train], [np.mean(r[key]) for r in train]]
        np.testing.assert_allclose(line(axes, label), expected)
    assert line(upper, "all, E = 8")[1][0] == 8
    assert line(upper, "collapse, k = 2")[1][0] == 2


def test_a_collapse_is_marked_in_every_picture_and_said_first(run: RunDir, tmp_path: Path) -> None:
    run.write_summary({"collapsed": True, "collapsed_at_step": 120})
    history = History.read(run)
    for draw in (drawing.balance, drawing.usage):
        for axes in draw(history).axes:
            assert set(line(axes, "collapsed at")[0]) == {120}
    assert line(drawing.balance(history).axes[0], "collapse threshold")[1][0] == pytest.approx(0.9 * (8 / 2 - 1))
    for picture in PICTURES:
        assert "ROUTER COLLAPSED at step 120" in footnote(picture.draw(history))
    page = (write_pictures(run, tmp_path / "reports").folder / "index.md").read_text()
    said = (
        "> **The router of this run collapsed at step 120: MaxVio of a step's batch, mean over layers, was above 2.70 "
        "(90% of the largest possible, E/k - 1 = 3) in 100 steps in a row.**"
    )
    assert page.index(said) < page.index("## Loss")


def test_a_running_run_that_collapsed_says_so_and_a_healthy_one_does_not(run: RunDir) -> None:
    assert History.read(run).collapse is None
    assert "COLLAPSED" not in footnote(drawing.load(History.read(run)))
    run.write_status(dataclasses.replace(run.status(), collapsed=True))
    assert "ROUTER COLLAPSED: see index.md" in footnote(drawing.load(History.read(run)))


@pytest.mark.parametrize(("tokens", "floor"), [(2_560, 0.053), (20_480, 0.018), (163_840, 0.007)])
def test_the_sampling_floor_is_that_of_the_definitions(tokens: int, floor: float) -> None:
    assert sampling_floor(tokens, 8, 2) == pytest.approx(floor, abs=0.0011)


def test_the_sampling_floor_is_that_of_random_picks() -> None:
    random = np.random.default_rng(0)
    picks = np.argsort(random.random((200, 2048, 16)), axis=-1)[..., :4].reshape(200, -1)
    loads = np.stack([np.bincount(each, minlength=16) for each in picks])
    measured = (loads.max(axis=1) / loads.mean(axis=1) - 1).mean()
    assert sampling_floor(2048, 16, 4) == pytest.approx(measured, rel=0.05)


def test_each_expert_has_its_bias_line(run: RunDir) -> None:
    axes = drawing.bias(History.read(run)).axes[2]
    train = records(run, "train")
    for expert in range(8):
        np.testing.assert_allclose(line(axes, f"expert {expert}")[1], [r["bias_LE"][2][expert] for r in train])


def test_specialisation_is_the_last_share_by_domain_with_all_text_first(run: RunDir) -> None:
    axes = drawing.specialisation(History.read(run)).axes[1]
    load_DE = np.array([records(run, "val")[-1]["domain_load"][domain][1] for domain in DOMAINS])
    rows = np.concatenate([load_DE.sum(axis=0, keepdims=True), load_DE])
    np.testing.assert_allclose(mesh(axes), rows / rows.sum(axis=1, keepdims=True))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["all text", *DOMAINS]
    (drawn,) = (c for c in axes.collections if isinstance(c, QuadMesh))
    assert drawn.norm(np.array([1 / 8])) == 0.5


def test_norms_are_drawn_by_role_on_a_logarithmic_axis(run: RunDir) -> None:
    grad, param = drawing.norms(History.read(run)).axes
    train = records(run, "train")
    for axes, key in ((grad, "grad_norm"), (param, "param_norm")):
        assert axes.get_yscale() == "log"
        np.testing.assert_allclose(line(axes, "router")[1], [r[key]["router"] for r in train])


def test_roles_with_one_learning_rate_share_a_line_and_experts_have_a_shade(run: RunDir) -> None:
    (axes,) = drawing.rates(History.read(run)).axes
    train = records(run, "train")
    assert [str(each.get_label()) for each in axes.lines] == ["expert,\ndense,\nembedding,\nnorm", "router"]
    np.testing.assert_allclose(line(axes, "router")[1], [r["lr"]["router"] for r in train])
    (shade,) = axes.collections
    heights = np.asarray(shade.get_paths()[0].vertices)[:, 1]
    assert heights.min() == pytest.approx(min(np.min(r["expert_lr_min_LE"]) for r in train))
    assert heights.max() == pytest.approx(max(np.max(r["expert_lr_max_LE"]) for r in train))


def test_loss_and_saturation_are_the_records(run: RunDir) -> None:
    (axes,) = drawing.loss(History.read(run)).axes
    lines = [json.loads(text) for text in (run.path / "metrics.jsonl").read_text().splitlines()]
    for label, split in (("training", "train"), ("validation", "val")):
        expected = [(r["step"], r["loss"]) for r in lines if r["split"] == split]
        np.testing.assert_allclose(line(axes, label).T, expected)
    (axes,) = drawing.saturation(History.read(run)).axes
    np.testing.assert_allclose(line(axes, "layer 3")[1], [r["saturation_L"][3] for r in records(run, "saturation")])
    assert line(axes, "chance")[1][0] == 2 / 8


def test_the_final_evaluation_on_other_windows_is_a_point_beside_the_line(run: RunDir) -> None:
    lines = [json.loads(text) for text in (run.path / "metrics.jsonl").read_text().splitlines()]
    way = [r | {"tokens": 512} for r in lines if r["split"] == "val"]
    write_lines(run.path / "metrics.jsonl", [*way, {"step": 10**6, "split": "val", "tokens": 4096, "loss": 1.25}])
    (axes,) = drawing.loss(History.read(run)).axes
    np.testing.assert_allclose(line(axes, "validation").T, [(r["step"], r["loss"]) for r in way])
    np.testing.assert_allclose(line(axes, "final evaluation").T, [(10**6, 1.25)])
    (end,) = (found for found in axes.lines if str(found.get_label()).startswith("final"))
    assert end.get_linestyle() == "None"
    assert "(1.250)" in str(end.get_label())


def test_lighter_is_more_also_without_colour() -> None:
    red, green, blue = SHARES(np.linspace(0, 1, 64))[:, :3].T
    grey = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert (np.diff(grey) > 0).all()


# --- large, small and missing -----------------------------------------------------------------------------------------


def test_128_experts_in_24_layers_have_no_legend_of_experts_and_twelve_panels(tmp_path: Path) -> None:
    history = History.read(make_recorded_run(tmp_path, layers=24, experts=128, points=4))
    figure = drawing.bias(history)
    assert chosen_layers(24) == [0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 23]
    assert len(figure.axes) == 12
    assert "12 of 24 layers" in footnote(figure)
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["each expert", "highest at the end", "lowest at the end"]
    (lines,) = (c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    assert len(lines.get_segments()) == 128
    assert mesh(drawing.specialisation(history).axes[0]).shape == (4, 128)


def test_all_pictures_are_written_with_a_page_that_shows_and_explains_them(run: RunDir, tmp_path: Path) -> None:
    written = write_pictures(run, tmp_path / "reports")
    assert written.drawn == [picture.slug for picture in PICTURES]
    page = (written.folder / "index.md").read_text()
    for picture in PICTURES:
        assert f"({picture.slug}.png)" in page
        assert picture.reading in page
        assert (written.folder / f"{picture.slug}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (written.folder / f"{picture.slug}.svg").read_text()
    assert "Not drawn" not in page
    assert "experts: 8, 2 for each token" in page
    html = (written.folder / "index.html").read_text()
    assert html.count("data:image/svg+xml;base64,") == len(PICTURES)
    assert all(str(escape(picture.reading)) in html for picture in PICTURES)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", html)


def test_the_html_page_has_numbers_notes_and_the_line_that_trains_it_again(run: RunDir, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> ${oc.env:HOME} \x1b[31m"
    run.write_summary({"val_loss": 4.125, "val_accuracy": "x", "tokens": 1000})
    (run.path / "overrides.yaml").write_text("- optimizer.base_lr=tag(log,interval(1,2))\n")
    change_remarks(run.path, lambda found: found.with_note(hostile).with_tag("odd"))
    folder = write_pictures(run, tmp_path / "reports").folder
    html, markdown = ((folder / name).read_text() for name in ("index.html", "index.md"))
    assert "4.1250 nats" in html
    assert "next-token accuracy" not in html
    assert "#39;optimizer.base_lr=tag(log,interval(1,2))&#39;" in html
    assert "#odd &lt;script&gt;alert(1)&lt;/script&gt; ${oc.env:HOME}" in html
    assert "<script" not in html
    assert "\x1b" not in html + markdown
    assert "Notes: \\#odd" in markdown or "Notes: #odd" in markdown
    assert not re.search(r"(?<!\\)<script", markdown)


def test_equal_records_make_equal_files(run: RunDir, tmp_path: Path) -> None:
    write_lines(run.path / "routing.jsonl", [])
    first, second = (write_pictures(run, tmp_path / name).folder for name in ("one", "two"))
    for name in ("loss.png", "loss.svg", "index.md", "index.html"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_dense_run_has_its_loss_and_says_why_no_more(tmp_path: Path) -> None:
    written = write_pictures(make_recorded_run(tmp_path / "runs", dense=True), tmp_path / "reports")
    assert written.drawn == ["loss"]
    assert "Load of the experts: the model is dense" in (written.folder / "index.md").read_text()


def test_an_older_run_without_routing_records_has_what_metrics_say(run: RunDir, tmp_path: Path) -> None:
    (run.path / "routing.jsonl").unlink()
    write_lines(run.path / "metrics.jsonl", [{"step": 10, "split": "train", "loss": 5.0, "maxvio_batch": 0.7}])
    (axes,) = drawing.balance(History.read(run)).axes
    assert line(axes, "batch of a step").tolist() == [[10], [0.7]]
    written = write_pictures(run, tmp_path / "reports")
    assert written.drawn == ["loss", "balance"]
    assert "no routing.jsonl" in written.left_out["load"]


def test_a_missing_field_leaves_out_its_picture_and_removes_an_old_one(run: RunDir, tmp_path: Path) -> None:
    folder = tmp_path / "reports" / run.path.name
    folder.mkdir(parents=True)
    (folder / "bias.png").write_bytes(b"old")
    edit(run, bias_LE=None)
    written = write_pictures(run, tmp_path / "reports")
    assert written.left_out == {"bias": "routing.jsonl has no `bias_LE` in records of split train"}
    assert not (folder / "bias.png").exists()


def test_nothing_recorded_is_an_error(run: RunDir, tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "routing.jsonl"):
        (run.path / name).unlink()
    with pytest.raises(MoeSweepsError, match="nothing that can be drawn"):
        write_pictures(run, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("empty", [[[0] * 8] * 4, None])
def test_layers_without_a_single_pick_are_no_crash(run: RunDir, empty: Any) -> None:
    edit(run, load_LE=empty)
    if empty is None:
        with pytest.raises(NotRecorded):
            drawing.load(History.read(run))
    else:
        assert np.isnan(mesh(drawing.load(History.read(run)).axes[0])).all()


def test_a_line_cut_short_is_left_out_and_a_changing_shape_is_refused(run: RunDir) -> None:
    path = run.path / "routing.jsonl"
    before = len(records(run, "train"))
    with path.open("a") as file:
        file.write('{"step": 99999, "spl')
    assert len(History.read(run).series("train", "load_LE").steps) == before
    write_lines(path, [{"step": s, "split": "train", "load_LE": [[1] * (7 + s)]} for s in (1, 2)])
    with pytest.raises(RunFolderError, match="load_LE of split train changes its shape"):
        drawing.load(History.read(run))
