"""Runs on their way to be trained again; test_runs.py has the command, and what happens where it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run

from moe_sweeps.cli.readying import make_ready
from moe_sweeps.errors import RunFolderError
from moe_sweeps.records.rundir import Failure, State


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


def test_a_run_is_retried_from_one_shell_alone(folders: Path) -> None:
    folder = fake_run(folders, 1, State.failed, attempt=1)
    seen = folder.status()
    make_ready(folder, seen)
    with pytest.raises(RunFolderError, match="is preempted by now, so it is left alone"):
        make_ready(folder, seen)
