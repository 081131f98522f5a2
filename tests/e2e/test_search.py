"""A search with real workers, its line typed twice, and its best trial against the run of its own line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, compose_run, records, without_times
from processes import train

from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.training.worker import run_worker

pytestmark = pytest.mark.usefixtures("real_data")
LINE = (
    "-m", *TINY, "search=random", "search.trials=2", "search.min_steps=6", "search.reduction=4", "launch.workers=2",
    "optimizer.base_lr=tag(log,interval(1e-3,1e-1))", "balancer=aux,lossfree",
)  # fmt: skip


def test_a_search_prunes_promotes_and_ends(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(*LINE)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "rungs: 6 of 24 steps" in first.stdout
    runs = {folder.run_id: folder for folder in RunDir.all(folders)}
    states = [folder.status().state for folder in runs.values()]
    assert (states.count(State.done), states.count(State.preempted)) == (1, 1)
    assert {folder.status().paused_at for folder in runs.values()} == {None, 6}
    (manifest,) = folders.glob("sweeps/*/manifest.json")
    content = Manifest.load(manifest)
    assert content.search is not None
    assert content.search.over
    assert sorted(str(planned.pruned) for planned in content.runs.values()) == ["6", "None"]

    written = {path: path.stat().st_mtime_ns for path in folders.rglob("*.jsonl")}
    again = train(*LINE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "complete: nothing is left to train" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in folders.rglob("*.jsonl")} == written

    (done,) = (folder for folder in runs.values() if folder.status().state is State.done)
    line = next(text for text in again.stdout.splitlines() if text.startswith("  python train.py "))
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(tmp_path / "alone"))
    undisturbed = freeze(compose_run(*line.removeprefix("  python train.py ").split()), [], command="alone")
    assert run_worker(undisturbed) is State.done
    assert undisturbed.run_id == done.run_id
    assert without_times(undisturbed.summary()) == without_times(done.summary())
    of_training = [[r for r in records(folder) if r["split"] == "train"] for folder in (undisturbed, done)]
    assert of_training[0] == of_training[1]
