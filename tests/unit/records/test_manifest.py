"""Sweeps as the planner wrote them, and how their arms are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.results.folders import arm_hash, make_manifest, make_run, manifest_content, run_hash

from moe_sweeps.host.files import read_json, write_json
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.claims import Statement
from moe_sweeps.records.manifest import (
    VERSION,
    FileRecord,
    Manifest,
    Replaced,
    RequestRecord,
    RunRecord,
    SearchRecord,
    TrialRecord,
    first_created,
    load_manifests,
    spell_settings,
)
from moe_sweeps.results.labels import label_arms
from moe_sweeps.results.outside import outside_manifest
from moe_sweeps.results.runs import read_runs


def labelled(*arms: dict[str, str] | str, requested: list[dict[str, Any]] | None = None) -> Manifest:
    """A sweep with a run an arm: its settings, or a free text."""
    runs = {}
    for i, arm in enumerate(arms):
        settings = {} if isinstance(arm, str) else arm
        label = arm if isinstance(arm, str) else spell_settings(arm)
        runs[f"run{i}"] = {"folder": f"x-run{i}", "arm": f"arm{i}", "label": label, "seed": 0, "settings": settings}
    content = {"sweep_id": "s", "name": "n", "created": "2026-01-01", "requested": requested or [], "runs": runs}
    return Manifest.from_dict(content)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    assert (manifest.sweep_id, manifest.name, manifest.slug) == ("5eed5eed", "demo", "demo-5eed5eed")
    assert len(manifest.runs) == 12
    assert len(manifest.requested) == 18
    assert manifest.runs[run_hash("lossfree", None, 2)].arm == arm_hash("lossfree", None)
    assert manifest.requested[-1].unread == {"aux.coef": "balancer=aux"}


def test_crafted_ids_and_names_share_no_folder_of_reports() -> None:
    """An id that holds the separator, a space, nothing but dots, or looks like what another one becomes."""
    empty = Manifest("5eed5eed", "demo", {})
    hashed = replace(empty, sweep_id="b-c").slug.rpartition("_")[2]
    ids = ("c", "b-c", "a-b-c", "b c", "b_c", "..", "../x", hashed, f"_{hashed}", "x" * 300, "x" * 299)
    slugs = {replace(empty, name=name, sweep_id=i).slug for i in ids for name in ("a", "a-b", "a-b-c", "a b")}
    assert len(slugs) >= 3 * len(ids)  # "a b" and "a_b" may share one, of one id
    by_id = [{replace(empty, name=name, sweep_id=i).slug for name in ("a", "a-b", "a-b-c", "a b")} for i in ids]
    assert sum(map(len, by_id)) == len(slugs)
    assert all("/" not in slug and not slug.startswith(".") and len(slug.encode()) < 255 for slug in slugs)
    assert {s.rpartition("-")[2] for s in by_id[0]} == {"c"}


def test_what_was_typed_in_place_of_the_file_is_kept() -> None:
    replaced = [
        {"key": "seed", "old": ["0", "1", "2"], "new": ["0"]},
        {"key": "launch.workers", "old": [], "new": ["1"]},
    ]
    content = {"sweep_id": "s", "name": "n", "created": "2026-01-01", "requested": [], "runs": {}}
    found = Manifest.from_dict(content | {"replaced": replaced}).replaced
    assert [(str(r), r.old) for r in found if r.old] == [("seed=0 instead of 0,1,2", ("0", "1", "2"))]


def test_the_newest_comes_first_and_damaged_ones_are_listed(tmp_path: Path) -> None:
    make_manifest(tmp_path, sweep_id="a", created="2026-01-02T00:00:00+00:00")
    make_manifest(tmp_path, sweep_id="b", created="2026-01-02T01:30:00+02:00")  # half an hour before a
    make_manifest(tmp_path, sweep_id="c", created="2026-03-01T00:00:00Z")
    for name, content in {"empty": {}, "no_runs": manifest_content() | {"runs": {}}, "list": []}.items():
        (tmp_path / "sweeps" / name).mkdir()
        write_json(tmp_path / "sweeps" / name / "manifest.json", content)
    (tmp_path / "sweeps" / "no_runs" / "other.json").write_text("x")
    manifests, problems = load_manifests(tmp_path)
    assert [m.sweep_id for m in manifests] == ["c", "a", "b"]
    assert {p.path.parent.name for p in problems} == {"empty", "no_runs", "list"}


def test_shared_settings_are_dropped_and_the_others_become_columns() -> None:
    labels = label_arms(
        labelled({"scale": "smoke", "balancer": "aux", "aux.coef": "0.1"}, {"scale": "smoke", "balancer": "lossfree"})
    )
    assert labels.axes == ("balancer", "aux.coef")
    assert labels.text == {"arm0": "balancer=aux aux.coef=0.1", "arm1": "balancer=lossfree"}


def test_a_setting_that_only_some_arms_have_is_not_shared() -> None:
    assert label_arms(labelled({"a": "1", "b": "2"}, {"a": "1"})).text == {"arm0": "b=2", "arm1": "defaults"}


def test_values_may_hold_spaces_and_equals_signs() -> None:
    labels = label_arms(labelled({"x": "[a b=c.txt]", "y": "a=b"}, {"x": "[1, 3]", "y": "a=b"}))
    assert labels.settings == {"arm0": {"x": "[a b=c.txt]"}, "arm1": {"x": "[1, 3]"}}
    assert labels.axes == ("x",)


def test_seeds_are_never_part_of_a_label() -> None:
    assert label_arms(labelled({"a": "1", "seed": "0", "data_seed": "3"}, {"a": "2", "seed": "0"})).text == {
        "arm0": "a=1",
        "arm1": "a=2",
    }


def test_a_knob_that_is_not_read_is_not_part_of_a_label() -> None:
    request = {"overrides": {"balancer": "lossfree", "aux.coef": "0.1"}, "run_id": "run1", "unread": {"aux.coef": "x"}}
    labels = label_arms(
        labelled(
            {"balancer": "aux", "aux.coef": "0.1"}, {"balancer": "lossfree", "aux.coef": "0.1"}, requested=[request]
        )
    )
    assert labels.text == {"arm0": "balancer=aux aux.coef=0.1", "arm1": "balancer=lossfree"}


def test_arms_of_one_name_are_told_apart() -> None:
    labels = label_arms(labelled({"a": "1"}, {"a": "1"}, {"a": "2"}))
    assert labels.text == {"arm0": "a=1 [arm0]", "arm1": "a=1 [arm1]", "arm2": "a=2"}
    assert labels.axes == ()


def test_free_texts_many_settings_and_a_single_arm_share_one_column() -> None:
    assert label_arms(labelled("the baseline", {"a": "1"})).text == {"arm0": "the baseline", "arm1": "a=1"}
    assert label_arms(labelled({"a": "1", "b": "2"})).text == {"arm0": "a=1 b=2"}
    assert label_arms(labelled("")).text == {"arm0": "defaults"}
    many = label_arms(labelled(dict.fromkeys("abcd", "1"), dict.fromkeys("abcd", "2")))
    assert many.axes == ()
    assert many.text["arm1"] == "a=2 b=2 c=2 d=2"


def test_runs_outside_any_sweep_are_named_by_what_differs(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, manifest_content(arms=(("aux", 0.1),)))
    for balancer, coef, seed in (("aux", 0.1, 0), ("aux", 0.3, 0), ("aux", 0.3, 1), ("lossfree", None, 0)):
        make_run(tmp_path, balancer, coef, seed)
    found = outside_manifest(read_runs(tmp_path), [manifest])
    assert found is not None
    assert found.slug == "runs_outside_any_sweep"
    assert {(r.label, r.seed) for r in found.runs.values()} == {
        ("balancer=aux aux=default aux.coef=0.3", 0),
        ("balancer=aux aux=default aux.coef=0.3", 1),
        ("balancer=lossfree", 0),
    }


def test_no_runs_outside_any_sweep(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, manifest_content(seeds=1, arms=(("aux", 0.1),)))
    make_run(tmp_path, "aux", 0.1, 0)
    assert outside_manifest(read_runs(tmp_path), [manifest]) is None
    assert outside_manifest(read_runs(tmp_path / "nowhere"), []) is None


def test_a_single_run_outside_any_sweep_is_called_like_its_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    found = outside_manifest(read_runs(tmp_path), [])
    assert found is not None
    assert found.runs[run.run_id].label == "smoke-aux"


@pytest.mark.parametrize("missing", ["sweep_id", "runs", "requested", "created"])
def test_an_incomplete_manifest_is_refused_with_the_missing_key(tmp_path: Path, missing: str) -> None:
    content = {k: v for k, v in manifest_content().items() if k != missing}
    path = tmp_path / "sweeps" / "x" / "manifest.json"
    path.parent.mkdir(parents=True)
    write_json(path, content)
    _, problems = load_manifests(tmp_path)
    assert missing in problems[0].reason


STORED = REPOSITORY / "results" / "proxy" / "runs"


def test_a_manifest_is_what_it_was_after_it_was_written_and_read(tmp_path: Path) -> None:
    manifest = Manifest(
        sweep_id="5eed",
        name="n",
        runs={"0" * 12: RunRecord(f"x-{'0' * 12}", "arm", "files=[a b=c.txt]", 0, {"files": "[a b=c.txt]"}, 7)},
        requested=(RequestRecord({"files": "[a b=c.txt]", "seed": "0"}, "0" * 12, {"aux.coef": "balancer=aux"}),),
        axes={"files": ["[a b=c.txt]", "[d]"]},
        created="2026-01-02T03:04:05+00:00",
        command="python train.py",
        file=FileRecord("n", "Which?", "here", "t"),
        replaced=(Replaced("seed", ("0", "1"), ("0",)),),
        baseline="arm",
        expect=(Statement("c", "rises", "val_loss", axis="files", points=(("[d]", "arm"), ("x", "arm2")), by=0.5),),
        search=SearchRecord("tpe", "val_loss", {"a": "0.1 to 1"}, ("0",), (6, 12), 3, (TrialRecord({"a": 0.5}, 6),)),
    )
    path = manifest.write(tmp_path)
    assert path == tmp_path / "sweeps" / "5eed" / "manifest.json"
    assert Manifest.load(path) == manifest
    assert read_json(path)["version"] == VERSION


@pytest.mark.parametrize("path", sorted((STORED / "sweeps").glob("*/manifest.json")), ids=lambda p: p.parent.name)
def test_manifests_from_before_runs_had_settings_give_those_of_their_labels(path: Path) -> None:
    assert read_json(path)["version"] < VERSION
    manifest = Manifest.load(path)
    labels = [run.label for run in manifest.runs.values() if run.settings]
    assert [spell_settings(run.settings) for run in manifest.runs.values() if run.settings] == labels
    assert len(labels) in (0, len(manifest.runs))
    assert Manifest.from_dict(manifest.to_dict()) == manifest


def test_when_a_sweep_was_typed_first_is_kept(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    assert first_created(tmp_path, manifest.sweep_id) == "2026-01-02T03:04:05+00:00"
    assert first_created(tmp_path, "other") > "2026-07"


def test_an_old_label_that_is_not_made_of_its_settings_is_a_free_text() -> None:
    content = manifest_content(seeds=1)
    first, second, *_ = content["runs"].values()
    second["label"] = "the usual one"
    runs = list(Manifest.from_dict(content).runs.values())
    assert runs[0].settings == {"balancer": "aux", "aux.coef": "0.1"}
    assert (runs[1].settings, runs[1].label) == ({}, "the usual one")
    assert runs[3].settings == {"balancer": "lossfree"}
    first["settings"] = {"a": "b c=d"}
    assert next(iter(Manifest.from_dict(content).runs.values())).settings == {"a": "b c=d"}
