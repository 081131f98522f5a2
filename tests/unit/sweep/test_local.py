"""Workers that die without a word, and what is recorded of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from helpers import TINY, compose_run

from moe_sweeps.freeze import freeze
from moe_sweeps.rundir import RunDir, State, Status
from moe_sweeps.sweep.local import LocalSweep, record_death


def die(code: int) -> None:
    if code < 0:
        os.kill(os.getpid(), -code)
        time.sleep(10)
    os._exit(code)


def dead(code: int) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=die, args=(code,))
    process.start()
    process.join()
    return process


@pytest.fixture
def folder(folders: Path) -> RunDir:
    return freeze(compose_run(*TINY), [], command="test")


def test_a_worker_killed_while_running_is_a_failure(folder: RunDir) -> None:
    process = dead(-signal.SIGKILL)
    folder.write_status(Status(State.running, pid=process.pid))
    record_death(folder, process, State.failed)
    status = folder.status()
    assert status.state is State.failed
    assert status.failure is not None
    assert status.failure.signature == "died: SIGKILL"
    assert str(folder.log) in status.failure.message


def test_a_worker_that_never_started_training_is_a_failure(folder: RunDir) -> None:
    record_death(folder, dead(3), State.failed)
    status = folder.status()
    assert status.state is State.failed
    assert status.failure is not None
    assert "ended by exit code 3" in status.failure.message


@pytest.mark.parametrize("state", [State.done, State.diverged, State.preempted, State.failed])
def test_what_a_worker_said_itself_stands(folder: RunDir, state: State) -> None:
    folder.write_status(Status(state))
    record_death(folder, dead(1), State.failed)
    assert folder.status().state is state
    assert folder.status().failure is None


def test_another_workers_run_is_left_alone(folder: RunDir) -> None:
    process = dead(1)
    folder.write_status(Status(State.running, pid=(process.pid or 0) + 1))
    record_death(folder, process, State.failed)
    assert folder.status().state is State.running
    with folder.lock():
        record_death(folder, process, State.failed)
    assert folder.status().state is State.running


def test_a_request_to_stop_is_noted_and_raised_once_everything_is_over() -> None:
    jobs = LocalSweep([], workers=1)
    with jobs._stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert jobs.stopping
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt):
        jobs.run(lambda: None)
