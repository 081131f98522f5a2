"""The manifest of a plan, and settings that stay what they are from the grid to a table."""

from __future__ import annotations

from pathlib import Path

from helpers import TINY
from unit.sweep.test_plan import CANONICAL

from moe_sweeps.records.manifest import Manifest, load_manifests
from moe_sweeps.results.labels import label_arms
from moe_sweeps.sweep.manifest import manifest_of, sweep_folder, write_manifest
from moe_sweeps.sweep.plan import make_plan


def test_the_manifest_is_the_design_matrix(folders: Path) -> None:
    plan = make_plan(CANONICAL)
    manifest = write_manifest(plan, "python train.py -m ...")
    assert manifest.axes == {"balancer": ["aux", "lossfree"], "aux.coef": ["0.1", "0.2", "0.6"]}
    assert len(manifest.requested) == 6
    collapsed = [r for r in manifest.requested if r.unread]
    assert [r.unread for r in collapsed] == [{"aux.coef": "balancer=aux or balancer=aux_lossfree"}] * 3
    assert len({r.run_id for r in collapsed}) == 1
    assert list(manifest.runs) == list(plan.runs)
    assert Manifest.load(sweep_folder(plan) / "manifest.json") == manifest
    again = write_manifest(make_plan(CANONICAL), "python train.py -m ...")
    assert again == manifest  # also the date of its first writing


def test_a_value_with_spaces_and_equals_signs_is_one_setting_of_the_table(folders: Path) -> None:
    plan = make_plan([*TINY, "data=text", "data.files='a b=c.txt','d e=f.txt'"])
    write_manifest(plan, "test")
    ((manifest,), _) = load_manifests(folders)
    labels = label_arms(manifest)
    assert labels.axes == ("data.files",)
    assert [labels.settings[run.arm] for run in manifest.runs.values()] == [
        {"data.files": "'a b=c.txt'"},
        {"data.files": "'d e=f.txt'"},
    ]
    assert manifest == manifest_of(plan, "test")
