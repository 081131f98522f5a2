"""A sweep of forks as it is typed: killed, typed again, and its table."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from helpers import TINY, without_times
from processes import kill_everything, manage, start, train, wait_until

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.rundir import RunDir, State

LINE = (*TINY, "trainer.steps=80", "balancer=aux,lossfree", "seed=0,1", "fork.step=20", "fork.replicates=2",
        "trainer.keep_checkpoints=1", "launch.workers=2")  # fmt: skip


def results(root: Path) -> dict[str, object]:
    return {run.path.name: without_times(run.summary()) for run in RunDir.all(root)}


def _have_begun(root: Path, least: int) -> bool:
    return sum(run.status().step > 10 for run in RunDir.all(root)) >= least


@pytest.mark.slow
def test_a_killed_sweep_of_forks_ends_as_if_nothing_had_happened(folders: Path, real_data: TokenData) -> None:
    assert train("-m", *LINE).returncode == 0
    expected = results(folders)
    assert len(expected) == 2 + 8
    folders.rename(folders.with_name("undisturbed"))

    for least in (1, 3, 6):  # in the trunks, and in the arms
        process = start("-m", *LINE)
        wait_until(partial(_have_begun, folders, least), 120)
        assert kill_everything(folders) >= 1
        process.communicate()
        wait_until(lambda: kill_everything(folders) == 0)
    done = train("-m", *LINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(folders) == expected
    assert ", from step 20 on" in done.stdout
    trunks = [r for r in RunDir.all(folders) if r.config()["fork"]["role"] == "trunk"]
    assert [(t.status().state, t.status().step) for t in trunks] == [(State.done, 20)] * 2
    (manifest,), _ = load_manifests(folders)
    assert manage("status", manifest.sweep_id).stdout.count("fork.role=trunk") == 2
    assert set(manifest.trained) == {r.run_id for r in RunDir.all(folders)}


def test_one_fork_is_trained_with_its_trunk(folders: Path, real_data: TokenData) -> None:
    line = (*TINY, "balancer=lossfree", "fork.step=10", "fork.trunk=['balancer=aux']")
    done = train(*line)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(r.status().step for r in RunDir.all(folders)) == [10, 24]
    assert "already done" in train(*line).stdout
