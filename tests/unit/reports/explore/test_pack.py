"""Runs and curves as the page holds them, unpacked again by other means and held against the run folders."""

from __future__ import annotations

import base64
import gzip
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.results.folders import make_manifest, make_run, manifest_content
from unit.results.routing import make_recorded_run
from unit.results.suite import make_suite, short_hash

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.reports.explore import pack
from moe_sweeps.reports.explore.pack import Curves, explorer, quantised
from moe_sweeps.reports.explore.runs import tokens_per_step
from moe_sweeps.reports.explore.series import FINAL, Series, read_log
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table


def unpacked(text: str) -> dict[str, Any]:
    """The head, with the values of each curve under "values": the layout of pack.py, read byte by byte."""
    content = gzip.decompress(base64.b64decode(text, validate=True))
    (length,) = struct.unpack_from("<I", content)
    head: dict[str, Any] = json.loads(content[4 : 4 + length])
    planes, head["values"], start = content[4 + length :], [], 0
    half = len(planes) // 2
    columns = head["series"]
    for place, low, high, log in zip(*(columns[k] for k in ("steps", "low", "high", "log")), strict=True):
        level, values = 0, []
        for i in range(start, start + len(head["steps"][place])):
            level = (level + 256 * planes[i] + planes[half + i]) % 65_536
            value = low + (high - low) * (level / 65_534)
            values.append(math.nan if level == 65_535 else math.exp(value) if log else value)
        head["values"].append(values)
        start += len(values)
    assert start == half
    return head


def tables_of(root: Path) -> list[Table]:
    runs = read_runs(root)
    return [ablation_table(manifest, runs) for manifest in load_manifests(root)[0]]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explore") / "runs"
    make_suite(root)
    return root


@pytest.fixture(scope="module")
def head(suite: Path) -> dict[str, Any]:
    return unpacked(explorer(tables_of(suite), {}, suite.parent / "reports"))


def curve(head: dict[str, Any], run: str, *metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of one curve."""
    run_at, metric_at = [r["id"] for r in head["runs"]].index(run), head["metrics"].index(list(metric))
    columns = head["series"]
    (at,) = (
        i for i, key in enumerate(zip(columns["run"], columns["metric"], strict=True)) if key == (run_at, metric_at)
    )
    return head["steps"][columns["steps"][at]], head["values"][at]


def test_every_run_of_every_sweep_is_there_once_the_missing_ones_too(head: dict[str, Any]) -> None:
    assert len({run["id"] for run in head["runs"]}) == len(head["runs"]) == 5 + 18 + 36
    states = [run["state"] for run in head["runs"]]
    assert {state: states.count(state) for state in ("failed", "diverged", "missing")} == {
        "failed": 1, "diverged": 1, "missing": 1,
    }  # fmt: skip
    failed = next(run for run in head["runs"] if run["state"] == "failed")
    assert "no luck" in failed["why"]


def test_curves_are_what_the_log_says_to_a_65534th_of_their_range(head: dict[str, Any], suite: Path) -> None:
    for run in head["runs"][::7]:
        log = next(suite.glob(f"*{run['id']}"), None)
        records = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()] if log else []
        for split, name in (("train", "loss"), ("train", "maxvio_batch"), ("val", "loss"), ("val", "train_seconds")):
            kept = [r for r in records if r["split"] == split]
            if not kept:
                continue
            steps, values = curve(head, run["id"], "metrics.jsonl", split, name)
            true = [r[name] for r in kept]
            assert steps == [r["step"] for r in kept]
            assert values == pytest.approx(true, abs=(max(true) - min(true)) / 65_534 + 1e-9)


def test_settings_that_differ_are_columns_and_the_rest_are_none(head: dict[str, Any]) -> None:
    columns = {column["key"]: column["values"] for column in head["settings"]}
    assert set(columns) >= {"aux.coef", "balancer", "seed", "lr_split.expert", "lr_split.dense"}
    assert "experts.num_experts" not in columns  # the same for all
    assert not [key for key in columns if key.startswith(("git.", "pairing.", "val_", "last_good"))]
    at = {run["id"]: place for place, run in enumerate(head["runs"])}
    place = at[short_hash({"balancer": "aux", "aux.coef": "0.4"}, 1)]
    assert (columns["aux.coef"][place], columns["balancer"][place], columns["seed"][place]) == (0.4, "aux", 1)


def test_final_numbers_are_of_done_runs_alone_in_the_unit_of_tables(head: dict[str, Any], suite: Path) -> None:
    numbers = {column["key"]: column for column in head["numbers"]}
    for place, run in enumerate(head["runs"]):
        value = numbers["val_accuracy"]["values"][place]
        if run["state"] != "done":
            assert value is None
        else:
            summary = json.loads((next(suite.glob(f"*{run['id']}")) / "summary.json").read_text())
            assert value == pytest.approx(100 * summary["val_accuracy"], rel=1e-8)


@pytest.mark.parametrize(
    ("metric", "axis"),
    [(("metrics.jsonl", "val", "accuracy"), ("next-token accuracy (%)", 100.0)),
     (("metrics.jsonl", "val", "loss"), ("validation loss (nats a token)", 1.0)),
     (("metrics.jsonl", "train", "loss"), ("train loss (nats a token)", 1.0)),
     (("metrics.jsonl", "train", "maxvio_batch"), ("train maxvio_batch (0 = balanced)", 1.0)),
     (("metrics.jsonl", "val", "train_seconds"), ("seconds in training steps", 1.0)),
     (("metrics.jsonl", "train", "grad_norm"), None), (("routing.jsonl", "val", "loss"), None)],
)  # fmt: skip
def test_a_curve_has_axis_and_factor_of_the_catalogue(
    metric: tuple[str, str, str], axis: tuple[str, float] | None
) -> None:
    assert pack.axis_of(*metric) == axis


def test_tokens_of_a_step_are_measured_or_planned() -> None:
    assert tokens_per_step({"tokens": 4096, "step": 4}) == 1024
    assert tokens_per_step({"tokens": None, "step": 0, "trainer.batch_size": 8, "trainer.seq_len": 128}) == 1024
    assert tokens_per_step({"tokens": None, "trainer.batch_size": "8"}) is None
    assert tokens_per_step({}) is None


@given(st.lists(st.floats(width=64, allow_nan=True, allow_infinity=False), min_size=1, max_size=40))
def test_quantised_values_are_within_half_a_level(values: list[float]) -> None:
    array = np.array(values)
    if np.isnan(array).all():
        return
    low, high, log, levels = quantised(array)
    for value, level in zip(values, levels.tolist(), strict=True):
        if math.isnan(value):
            assert level == 65_535
        elif math.isfinite(high - low):
            back = low + (high - low) * (level / 65_534)
            true = math.log(value) if log else value
            assert abs(back - true) <= 0.51 * (high - low) / 65_534 + 2e-8 * max(abs(low), abs(high), 1e-300)


def test_routing_is_a_series_for_each_layer_expert_and_role(tmp_path: Path) -> None:
    run = make_recorded_run(tmp_path, layers=2, experts=4, points=8)
    found = {
        (f.split, f.name): {s.part: s for s in f.series()}
        for f in read_log(run.path).fields
        if f.file != "metrics.jsonl"
    }
    lines = [json.loads(line) for line in (run.path / "routing.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    load = found["train", "load_LE"]
    assert set(load) == {f"layer {layer}, expert {expert}" for layer in range(2) for expert in range(4)}
    assert load["layer 1, expert 3"].values.tolist() == [line["load_LE"][1][3] for line in train]
    assert found["train", "lr"]["expert"].values.tolist() == [line["lr"]["expert"] for line in train]
    assert len(found["val", "domain_load"]) == len(next(r for r in lines if "domain_load" in r)["domain_load"]) * 8
    ranks = [f.rank for f in read_log(run.path).fields]
    assert ranks == sorted(ranks)


def write_log(folder: Path, *records: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def series_of(folder: Path) -> dict[tuple[str, str, str], tuple[list[float], list[float]]]:
    return {
        (s.split, s.name, s.part): (s.steps.tolist(), s.values.tolist())
        for f in read_log(folder).fields
        for s in f.series()
    }


def test_a_final_evaluation_on_other_windows_is_a_point_of_its_own(tmp_path: Path) -> None:
    line = [{"step": s, "split": "val", "tokens": 512, "loss": 5.0 - s} for s in (1, 2, 3)]
    write_log(tmp_path, *line, {"step": 4, "split": "val", "tokens": 4096, "loss": 0.5})
    found = series_of(tmp_path)
    assert found["val", "loss", ""] == ([1, 2, 3], [4, 3, 2])
    assert found["val", "loss", FINAL] == ([4], [0.5])


def test_of_one_evaluation_on_the_way_and_one_at_the_end_the_last_is_the_final_one(tmp_path: Path) -> None:
    write_log(tmp_path, {"step": 200, "split": "val", "tokens": 32_768, "loss": 4.0},
              {"step": 400, "split": "val", "tokens": 190_848, "loss": 3.5})  # fmt: skip
    found = series_of(tmp_path)
    assert found["val", "loss", ""] == ([200], [4.0])
    assert found["val", "loss", FINAL] == ([400], [3.5])


def test_what_is_no_number_has_no_curve_and_a_null_is_a_gap(tmp_path: Path) -> None:
    write_log(tmp_path, {"step": 1, "split": "train", "loss": 1.0, "note": "x", "flag": True},
              {"step": 2, "split": "train", "loss": None, "note": "y", "flag": False},
              {"step": 3, "split": "train", "loss": 3.0, "note": "y", "flag": True})  # fmt: skip
    found = series_of(tmp_path)
    assert set(found) == {("train", "loss", ""), ("train", "flag", "")}
    steps, values = found["train", "loss", ""]
    assert steps == [1, 2, 3]
    assert values[::2] == [1.0, 3.0]
    assert math.isnan(values[1])


def test_of_a_step_that_was_written_twice_the_later_record_counts(tmp_path: Path) -> None:
    write_log(
        tmp_path, *({"step": s, "split": "train", "loss": v} for s, v in ((1, 1.0), (3, 3.0), (2, 2.0), (3, 4.0)))
    )
    assert series_of(tmp_path)["train", "loss", ""] == ([1, 2, 3], [1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]\n",
        '{"step": 1}\n',
        '{"step": "x", "split": "train", "loss": 1}\n',
        '{"step": 1, "split": [], "loss": 1}\n',
    ],
)
def test_a_damaged_log_has_no_curves_and_is_said(tmp_path: Path, content: str) -> None:
    run = make_run(tmp_path / "runs")
    (run.path / "metrics.jsonl").write_text(content)
    make_manifest(tmp_path / "runs", manifest_content(1, (("aux", 0.1),)))
    head = unpacked(explorer(tables_of(tmp_path / "runs"), {}, tmp_path / "reports"))
    assert head["series"]["run"] == []
    assert len(head["runs"]) == 1
    unfinished = not content.endswith("\n")  # a line that a crash cut short is no damage
    unusable = '"x"' in content  # and neither are records that no axis has a place for
    assert any("cannot be read" in note for note in head["notes"]) == (not unfinished and not unusable)


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    write_log(tmp_path / "elsewhere", {"step": 1, "split": "train", "loss": 1.0})
    run = make_run(tmp_path / "runs")
    (run.path / "metrics.jsonl").symlink_to(tmp_path / "elsewhere" / "metrics.jsonl")
    log = read_log(run.path)
    assert log.fields == []
    assert "link" in log.problem


def test_numbers_of_any_size_are_packed(tmp_path: Path) -> None:
    values = (1e308, -1e308, 5e-324, 0.0, 2.0**63)
    write_log(
        tmp_path, *({"step": 2**60 + i, "split": "train", "loss": v, "n": 2**64 - 1} for i, v in enumerate(values))
    )
    curves = Curves()
    for field in read_log(tmp_path).fields:
        for found in field.series():
            curves.add(0, found, 100)
    head = unpacked(pack.packed({"steps": curves.every, "series": curves.columns}, curves.numbers))
    assert len(head["values"]) == 2


def test_long_logs_are_thinned_and_what_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    run = make_run(runs)
    write_log(run.path, *({"step": s, "split": "train", "loss": s / 7, "extra": s} for s in range(1, 1001)))
    make_manifest(runs, manifest_content(1, (("aux", 0.1),)))
    monkeypatch.setattr(pack, "MOST_POINTS", 120)
    head = unpacked(explorer(tables_of(runs), {}, tmp_path / "reports"))
    steps, values = curve(head, run.run_id, "metrics.jsonl", "train", "loss")
    assert len(steps) <= 60
    assert (steps[0], steps[-1]) == (1, 1000)
    assert values == pytest.approx(
        [s / 7 for s in steps], rel=math.log(1000) / 65_534
    )  # of so wide a curve the logarithms are rounded
    shown, notes = len(head["series"]["run"]), " ".join(head["notes"])
    assert shown == 2 or "train extra" in notes
    assert "thinned" in notes


def test_a_run_never_takes_much_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    for seed in range(3):
        run = make_run(runs, seed=seed)
        write_log(
            run.path, *({"step": s, "split": "train", "loss": s} | {f"m{i}": s for i in range(50)} for s in range(100))
        )
    make_manifest(runs, manifest_content(3, (("aux", 0.1),)))
    monkeypatch.setattr(pack, "MOST_POINTS", 3000)
    head = unpacked(explorer(tables_of(runs), {}, tmp_path / "reports"))
    assert sum(map(len, head["values"])) <= 3000
    assert all(head["series"]["run"].count(run) == 10 for run in range(3))
    assert "and 29 more" in " ".join(head["notes"])


def test_the_text_cannot_end_the_element_that_it_stands_in(tmp_path: Path) -> None:
    content = manifest_content(1, (("aux", 0.1),))
    for run in content["runs"].values():
        run["label"] = "</script><script>alert(1)</script>\u202e"
    make_run(tmp_path / "runs")
    make_manifest(tmp_path / "runs", content)
    text = explorer(tables_of(tmp_path / "runs"), {}, tmp_path / "reports")
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    (label,) = {label for run in unpacked(text)["runs"] for _, label in run["arms"]}
    assert label == "</script><script>alert(1)</script>\ufffd"


def test_the_same_runs_give_the_same_text(suite: Path) -> None:
    first, again = (explorer(tables_of(suite), {}, suite.parent / "reports") for _ in range(2))
    assert first == again


def test_a_series_says_where_it_is_from() -> None:
    found = Series("metrics.jsonl", "train", "loss", "", np.array([1.0]), np.array([2.0]))
    curves = Curves()
    assert curves.add(0, found, 10) == 1
    assert list(curves.metrics) == [("metrics.jsonl", "train", "loss")]
