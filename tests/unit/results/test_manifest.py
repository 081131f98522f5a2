"""Sweeps as the planner wrote them, and how their arms are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.results.folders import arm_hash, make_manifest, make_run, manifest_content, run_hash

from moe_sweeps.files import write_json
from moe_sweeps.results.frame import load_runs
from moe_sweeps.results.labels import label_arms
from moe_sweeps.results.manifest import Manifest, load_manifests
from moe_sweeps.results.outside import outside_manifest


def labelled(*labels: str, requested: list[dict[str, Any]] | None = None) -> Manifest:
    runs = {f"run{i}": {"folder": f"x-run{i}", "arm": f"arm{i}", "label": t, "seed": 0} for i, t in enumerate(labels)}
    content = {"sweep_id": "s", "name": "n", "created": "2026-01-01", "requested": requested or [], "runs": runs}
    return Manifest.from_dict(content)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    assert (manifest.sweep_id, manifest.name, manifest.slug) == ("5eed5eed", "demo", "demo-5eed5eed")
    assert len(manifest.runs) == 12
    assert len(manifest.requested) == 18
    assert manifest.runs[run_hash("lossfree", None, 2)].arm == arm_hash("lossfree", None)
    assert manifest.requested[-1].unread == {"aux.coef": "balancer=aux"}


def test_what_was_typed_in_place_of_the_file_is_kept() -> None:
    replaced = [
        {"key": "seed", "old": ["0", "1", "2"], "new": ["0"]},
        {"key": "launch.workers", "old": [], "new": ["1"]},
    ]
    content = {"sweep_id": "s", "name": "n", "created": "2026-01-01", "requested": [], "runs": {}}
    assert Manifest.from_dict(content | {"replaced": replaced}).replaced == ("seed=0 instead of 0,1,2",)


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
    labels = label_arms(labelled("scale=smoke balancer=aux aux.coef=0.1", "scale=smoke balancer=lossfree"))
    assert labels.axes == ("balancer", "aux.coef")
    assert labels.text == {"arm0": "balancer=aux aux.coef=0.1", "arm1": "balancer=lossfree"}


def test_a_setting_that_only_some_arms_have_is_not_shared() -> None:
    assert label_arms(labelled("a=1 b=2", "a=1")).text == {"arm0": "b=2", "arm1": "defaults"}


def test_values_may_hold_spaces_and_equals_signs() -> None:
    labels = label_arms(labelled("x=[1, 2] y=a=b", "x=[1, 3] y=a=b"))
    assert labels.settings == {"arm0": {"x": "[1, 2]"}, "arm1": {"x": "[1, 3]"}}


def test_seeds_are_never_part_of_a_label() -> None:
    assert label_arms(labelled("a=1 seed=0 data_seed=3", "a=2 seed=0")).text == {"arm0": "a=1", "arm1": "a=2"}


def test_a_knob_that_is_not_read_is_not_part_of_a_label() -> None:
    request = {"overrides": {"balancer": "lossfree", "aux.coef": "0.1"}, "run_id": "run1", "unread": {"aux.coef": "x"}}
    labels = label_arms(labelled("balancer=aux aux.coef=0.1", "balancer=lossfree aux.coef=0.1", requested=[request]))
    assert labels.text == {"arm0": "balancer=aux aux.coef=0.1", "arm1": "balancer=lossfree"}


def test_arms_of_one_name_are_told_apart() -> None:
    labels = label_arms(labelled("a=1", "a=1", "a=2"))
    assert labels.text == {"arm0": "a=1 [arm0]", "arm1": "a=1 [arm1]", "arm2": "a=2"}
    assert labels.axes == ()


def test_free_texts_many_settings_and_a_single_arm_share_one_column() -> None:
    assert label_arms(labelled("the baseline", "a=1")).text == {"arm0": "the baseline", "arm1": "a=1"}
    assert label_arms(labelled("a=1 b=2")).text == {"arm0": "a=1 b=2"}
    assert label_arms(labelled("")).text == {"arm0": "defaults"}
    many = label_arms(labelled("a=1 b=1 c=1 d=1", "a=2 b=2 c=2 d=2"))
    assert many.axes == ()
    assert many.text["arm1"] == "a=2 b=2 c=2 d=2"


def test_runs_outside_any_sweep_are_named_by_what_differs(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, manifest_content(arms=(("aux", 0.1),)))
    for balancer, coef, seed in (("aux", 0.1, 0), ("aux", 0.3, 0), ("aux", 0.3, 1), ("lossfree", None, 0)):
        make_run(tmp_path, balancer, coef, seed)
    found = outside_manifest(load_runs(tmp_path).frame, [manifest])
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
    assert outside_manifest(load_runs(tmp_path).frame, [manifest]) is None
    assert outside_manifest(load_runs(tmp_path / "nowhere").frame, []) is None


def test_a_single_run_outside_any_sweep_is_called_like_its_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    found = outside_manifest(load_runs(tmp_path).frame, [])
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
