"""`launch=slurm` where there is no SLURM: scripts and tables are made, and nothing is submitted or half-done."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY
from processes import train

from moe_sweeps.records.rundir import RunDir, State

pytestmark = pytest.mark.usefixtures("real_data")
SLURM = ("launch=slurm", "launch.threads=1")


@pytest.fixture(autouse=True)
def _no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no such folder"))


@pytest.fixture
def spaced(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder with a space in its name, which is not there yet."""
    runs = folders.with_name("my runs")
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(runs))
    return runs


def test_a_dry_run_prints_the_scripts_and_writes_nothing(spaced: Path) -> None:
    done = train("-m", *TINY, "seed=0,1", *SLURM, "launch.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-1%2" in done.stdout
    assert f"#SBATCH --output='{spaced}/sweeps/" in done.stdout
    assert "slurm.job run" in done.stdout
    alone = train(*TINY, *SLURM, "launch.dry_run=true")
    assert "#SBATCH --array=0-0%1" in alone.stdout
    assert not spaced.exists()


def test_a_dry_run_needs_no_data_and_no_room_for_what_the_cluster_will_hold(
    spaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_SWEEPS_DATA", str(tmp_path / "data"))
    done = train("-m", "scale=talk", "balancer=aux,lossfree", *SLURM, "launch.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-1%2" in done.stdout
    assert not spaced.exists()
    assert not (tmp_path / "data").exists()


def test_submitting_is_refused_before_anything_is_written(spaced: Path) -> None:
    done = train("-m", *TINY, *SLURM)
    assert done.returncode == 2
    assert "error: sbatch is not on the PATH of this machine. Submit from a login node" in done.stderr
    assert "launch.dry_run=true prints the scripts" in done.stderr
    assert not spaced.exists()


def test_a_sweep_with_nothing_left_to_run_shows_its_table(spaced: Path) -> None:
    line = ("-m", *TINY, "balancer=aux,lossfree")
    assert train(*line).returncode == 0
    assert [folder.status().state for folder in RunDir.all(spaced)] == [State.done] * 2
    for more in ((), ("launch.wait=true",)):
        again = train(*line, *SLURM, *more)
        assert again.returncode == 0, again.stderr
        assert "already done: 2, to run: 0" in again.stdout
        assert "runs 2 done of 2" in again.stdout
    asked = train(*line, *SLURM, "launch.dry_run=true")
    assert "nothing to submit: every run has its result" in asked.stdout
    assert "#SBATCH" not in asked.stdout


def test_a_finished_sweep_that_lacks_a_seed_still_needs_slurm(spaced: Path) -> None:
    assert train(*TINY).returncode == 0
    done = train("-m", *TINY, "seed=0,1", *SLURM)
    assert done.returncode == 2
    assert "sbatch is not on the PATH" in done.stderr
    assert len(RunDir.all(spaced)) == 1
