"""Workers that die without a word, what is recorded of them, and who drives a sweep."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from unit.cli.fake_runs import fake_run

from moe_sweeps.host import machine_memory
from moe_sweeps.host.locks import SOFT_LOCKS
from moe_sweeps.host.signals import handled
from moe_sweeps.launch import local
from moe_sweeps.launch.local import LocalSweep, drive, record_death
from moe_sweeps.launch.process import UNKNOWN
from moe_sweeps.launch.work import BUSY
from moe_sweeps.records.rundir import Failure, RunDir, State, Status

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


def test_the_kernels_kill_for_want_of_memory_is_named(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    group, machine = "/sys/fs/cgroup/memory.events", "/proc/vmstat"
    monkeypatch.setattr(machine_memory, "oom_kills", lambda root: {group: 3, machine: 4})
    status = folder.status()
    status.host, status.oom_kills = socket.gethostname(), {group: 2, machine: 4}
    folder.write_status(status)
    record_death(folder, KILLED)
    failure = folder.status().failure
    assert failure is not None
    assert (failure.type, failure.signature) == ("OutOfMemory", "killed by the kernel: out of memory")
    assert "launch.workers=1" in failure.message


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


@pytest.mark.parametrize("when", ["before", "while it waits", "while another worker has it"])
def test_a_folder_that_is_gone_leaves_out_its_run_alone(
    folder: RunDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    gone, started = fake_run(folder.path.parent, 2), []

    def start(run: RunDir, _: object) -> Ended:
        started.append(run)
        shutil.rmtree(gone.path, ignore_errors=True)
        run.write_status(Status(State.done))
        return Ended(0)

    monkeypatch.setattr(local, "start", start)
    if when == "before":
        shutil.rmtree(gone.path)
        drive(folder.path.parent, [gone, folder], 1, lambda: None, print)
    elif when == "while it waits":
        LocalSweep([folder, gone], workers=1).run(lambda: None)
    else:
        LocalSweep([folder], workers=2, elsewhere=[gone]).run(lambda: None)
    assert started == [folder]
    assert f"{gone.path.name} is left out: " in caplog.text


def test_a_request_to_stop_is_noted_and_raised_once_everything_is_over(folder: RunDir) -> None:
    """On a cluster SIGUSR1, too, which would end this process before its workers have saved."""
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_DFL)  # `nohup make test` ignores one of them
        jobs = LocalSweep([], workers=1, elsewhere=[folder])
        ticks: list[bool] = []

        def tick() -> None:
            os.kill(os.getpid(), signum) if not ticks else None  # noqa: B023
            ticks.append(jobs.stopping)  # noqa: B023

        with folder.lock(), pytest.raises(KeyboardInterrupt):
            jobs.run(tick)
        assert ticks[-1]
        assert signal.getsignal(signum) is signal.SIG_DFL


def test_a_sweep_does_not_heed_what_its_parent_ignores(folder: RunDir) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        jobs = LocalSweep([], workers=1)
        with handled(jobs._ask_to_stop):
            os.kill(os.getpid(), signal.SIGHUP)
        jobs.run(lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert not jobs.stopping
    finally:
        signal.signal(signal.SIGHUP, before)


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
    follows = threading.Event()
    lock = FileLock(tmp_path / ".lock", thread_local=False)
    lock.acquire()

    def say(sentence: str) -> None:
        said.append(sentence)
        follows.set()

    def the_driver_goes() -> None:
        follows.wait(60)
        runs[0].write_status(Status(State.done))
        runs[1].write_status(Status(State.failed, failure=Failure("E", "m", "s")))
        lock.release()

    driver = threading.Thread(target=the_driver_goes)
    driver.start()
    drive(tmp_path, runs, 1, lambda: None, say)
    driver.join()
    assert trained == runs[2:]
    assert [sentence.split(";")[0] for sentence in said] == [
        "another process runs this sweep",
        "the process that ran this sweep is gone",
    ]


def test_who_follows_a_soft_lock_says_which_file_to_delete(tmp_path: Path, trained: list[RunDir]) -> None:
    """Its node may be gone, and then this would wait for ever."""
    marker = tmp_path / ".lock.held"
    (tmp_path / SOFT_LOCKS).touch()
    marker.write_text('{"host": "far away", "boot": "x", "pid": 5, "begun": "1"}')
    said: list[str] = []
    run = fake_run(tmp_path, 0)
    drive(tmp_path, [run], 1, lambda: marker.unlink(missing_ok=True), said.append)
    holder = f"process 5 on far away (a soft lock: if that process is gone, delete {marker})"
    assert said[0] == f"another process runs this sweep: {holder}; following it (Ctrl-C leaves it alone)"
    assert trained == [run]


def test_forks_begin_when_their_trunk_is_over(tmp_path: Path) -> None:
    trunk, fork, other = (fake_run(tmp_path, number) for number in (1, 2, 3))
    fork.write_config({**fork.config(), "fork": {"step": 5, "role": "arm", "run": trunk.run_id}})
    sweep = LocalSweep([fork, trunk, other], workers=3)
    assert sweep._next() == trunk
    sweep.active[trunk] = Ended(None)
    assert sweep._next() == other
    assert sweep._next() is None
    assert sweep.waiting == [fork]
    sweep.active.clear()
    sweep.elsewhere.append(trunk)  # another process trains it
    assert sweep._next() is None
    sweep.elsewhere.clear()
    assert sweep._next() == fork
