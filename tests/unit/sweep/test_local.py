"""Workers that die without a word, what is recorded of them, and who drives a sweep."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from unit.cli.fake_runs import fake_run

from moe_sweeps.rundir import Failure, RunDir, State, Status
from moe_sweeps.sweep import local
from moe_sweeps.sweep.local import LocalSweep, drive, record_death
from moe_sweeps.sweep.process import BUSY, UNKNOWN

PID = 4_000_000


@dataclass
class Ended:
    """A worker process that is over."""

    exitcode: int | None
    pid: int | None = PID

    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


KILLED = Ended(-signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    """A run that is given up after two deaths without progress."""
    return fake_run(tmp_path, 1, State.running, pid=PID)


def checkpoint(folder: RunDir, step: int) -> None:
    (folder.checkpoints / f"step-{step:08d}.json").write_text("{}")


def run_again(folder: RunDir) -> None:
    status = folder.status()
    status.state = State.running
    folder.write_status(status)


def test_a_killed_worker_is_gone_on_with_until_it_gets_nowhere(folder: RunDir) -> None:
    assert not record_death(folder, KILLED)
    status = folder.status()
    assert (status.state, status.deaths, status.death_step) == (State.preempted, 1, 0)
    assert status.failure is not None
    assert status.failure.signature == "died: SIGKILL"
    assert str(folder.log) in status.failure.message
    run_again(folder)
    assert record_death(folder, KILLED)
    status = folder.status()
    assert (status.state, status.deaths) == (State.failed, 2)
    assert status.failure is not None
    assert "2 attempts in a row reached no new checkpoint" in status.failure.message


def test_deaths_with_progress_between_them_do_not_count(folder: RunDir) -> None:
    for step in range(10):
        checkpoint(folder, step + 1)
        run_again(folder)
        assert not record_death(folder, KILLED)
        assert folder.status().deaths == 1


def test_stopping_a_sweep_gives_up_nothing(folder: RunDir) -> None:
    for _ in range(5):
        run_again(folder)
        assert not record_death(folder, KILLED, give_up=False)


def test_a_server_that_was_killed_tells_nothing(folder: RunDir) -> None:
    assert not record_death(folder, Ended(UNKNOWN))
    assert folder.status().state is State.preempted


@pytest.mark.parametrize("state", [State.running, State.planned])
def test_an_exit_without_a_record_is_a_failure_at_once(folder: RunDir, state: State) -> None:
    folder.write_status(Status(state, pid=PID))
    assert record_death(folder, Ended(3))
    status = folder.status()
    assert status.state is State.failed
    assert status.failure is not None
    assert "ended by exit code 3" in status.failure.message


def test_a_worker_that_dies_before_it_begins_again_counts(folder: RunDir) -> None:
    record_death(folder, KILLED)
    assert record_death(folder, KILLED)
    assert folder.status().state is State.failed


@pytest.mark.parametrize("state", [State.done, State.diverged, State.preempted, State.failed, State.cancelled])
def test_what_a_worker_said_itself_stands(folder: RunDir, state: State) -> None:
    folder.write_status(Status(state))
    assert record_death(folder, Ended(1))
    assert folder.status().state is state
    assert folder.status().failure is None


def test_another_workers_run_is_left_alone(folder: RunDir) -> None:
    folder.write_status(Status(State.running, pid=PID + 1))
    assert record_death(folder, Ended(1))
    assert folder.status().state is State.running


def test_a_run_that_another_worker_holds_is_waited_for(folder: RunDir) -> None:
    sweep = LocalSweep([], workers=1, active={folder: Ended(BUSY)})
    with folder.lock():
        sweep._collect()
        sweep._collect()
        assert sweep.elsewhere == [folder]
    sweep._collect()
    assert (sweep.elsewhere, sweep.waiting) == ([], [folder])


def test_an_orphan_of_a_killed_server_is_waited_for(folder: RunDir) -> None:
    sweep = LocalSweep([], workers=1, active={folder: Ended(UNKNOWN)})
    with folder.lock():
        sweep._collect()
    assert sweep.elsewhere == [folder]
    assert folder.status().state is State.running


def test_workers_of_a_killed_driver_count_as_workers(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_status(Status(State.running, host=socket.gethostname()))
    second = fake_run(folder.path.parent, 2)
    monkeypatch.setattr(local, "start", lambda *_: pytest.fail("it must not start a second worker"))
    LocalSweep([second], workers=1, elsewhere=[folder])._fill()


def test_a_cancelled_run_is_not_started(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_status(Status(State.cancelled))
    monkeypatch.setattr(local, "start", lambda *_: pytest.fail("it was cancelled"))
    LocalSweep([folder], workers=1).run(lambda: None)


def test_a_worker_that_cannot_start_is_a_failure(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(local, "start", no_memory)
    LocalSweep([folder], workers=1).run(lambda: None)
    status = folder.status()
    assert status.state is State.failed
    assert status.failure is not None
    assert "Cannot allocate memory" in status.failure.message


def test_a_request_to_stop_is_noted_and_raised_once_everything_is_over() -> None:
    jobs = LocalSweep([], workers=1)
    with jobs._stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert jobs.stopping
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt):
        jobs.run(lambda: None)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """What a sweep would have trained, instead of training it."""
    found: list[RunDir] = []
    monkeypatch.setattr(LocalSweep, "run", lambda self, tick: found.extend(self.waiting))
    return found


def test_a_driver_trains_what_is_missing_and_what_failed(tmp_path: Path, trained: list[RunDir]) -> None:
    states = (State.done, State.failed, State.planned, State.preempted, State.cancelled, State.diverged)
    runs = [fake_run(tmp_path, n, state) for n, state in enumerate(states)]
    said: list[str] = []
    drive(tmp_path, runs, 1, lambda: None, said.append)
    assert trained == runs[1:4]
    assert said == []


def test_a_follower_takes_over_and_leaves_what_has_just_failed(tmp_path: Path, trained: list[RunDir]) -> None:
    runs = [fake_run(tmp_path, n, State.planned) for n in range(3)]
    said: list[str] = []
    lock = FileLock(tmp_path / ".lock", thread_local=False)
    lock.acquire()

    def the_driver_goes() -> None:
        time.sleep(0.1)
        runs[0].write_status(Status(State.done))
        runs[1].write_status(Status(State.failed, failure=Failure("E", "m", "s")))
        lock.release()

    driver = threading.Thread(target=the_driver_goes)
    driver.start()
    drive(tmp_path, runs, 1, lambda: None, said.append)
    driver.join()
    assert trained == runs[2:]
    assert [sentence.split(";")[0] for sentence in said] == [
        "another process runs this sweep",
        "the process that ran this sweep is gone",
    ]
