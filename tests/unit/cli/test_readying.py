"""Runs on their way to be trained again; test_runs.py has the command, and what happens where it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from unit.cli.fake_runs import fake_run

from moe_sweeps.cli.readying import is_allowed, make_ready, put_back_if_refused
from moe_sweeps.errors import LaunchError, RunFolderError
from moe_sweeps.launch.slurm.script import NoAnswer
from moe_sweeps.records.rundir import Failure, RunDir, State


def test_make_ready_keeps_the_summary_of_a_diverged_run(folders: Path) -> None:
    failure = Failure("E", "m", "s")
    folder = fake_run(folders, 1, State.diverged, attempt=2, deaths=2, death_step=7, step=50, failure=failure)
    folder.write_summary({"diverged_at_step": 50})
    folder.request_cancel()
    make_ready(folder, folder.status())
    status = folder.status()
    assert (status.state, status.deaths, status.death_step, status.failure) == (State.preempted, 0, -1, None)
    assert json.loads((folder.path / "summary.attempt-2.json").read_text()) == {"diverged_at_step": 50}
    assert folder.summary() is None
    assert not folder.cancel_requested


def _ready_and_raise(folder: RunDir, error: LaunchError) -> None:
    with put_back_if_refused() as readied:
        readied.append(make_ready(folder, folder.status()))
        raise error


def test_where_nobody_knows_whether_slurm_has_the_job_the_run_stays_ready(folders: Path) -> None:
    """The job that it may have would find a failed run, and train nothing."""
    for error, left in ((NoAnswer("no answer"), State.preempted), (LaunchError("refused"), State.failed)):
        folder = fake_run(folders, len(RunDir.all(folders)), State.failed, attempt=1)
        with pytest.raises(LaunchError) as caught:
            _ready_and_raise(folder, error)
        assert folder.status().state is left
        assert ("The runs wait" in str(getattr(caught.value, "__notes__", ""))) == (left is State.preempted)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_lock_that_is_none_is_reported_and_the_others_go_on(folders: Path, kind: str) -> None:
    folder = fake_run(folders, 1, State.failed, attempt=1)
    lock = folder.path / ".lock"
    lock.unlink(missing_ok=True)
    lock.mkdir() if kind == "folder" else lock.symlink_to("/nowhere")
    console = Console(record=True, width=200)
    assert not is_allowed(console, lambda: make_ready(folder, folder.status()))
    assert ".lock" in console.export_text()


def test_a_run_is_retried_from_one_shell_alone(folders: Path) -> None:
    folder = fake_run(folders, 1, State.failed, attempt=1)
    seen = folder.status()
    make_ready(folder, seen)
    with pytest.raises(RunFolderError, match="is preempted by now, so it is left alone"):
        make_ready(folder, seen)
