"""A real server, and real workers on runs that end at once: however a worker ended, its driver hears of it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run

from moe_sweeps.launch.process import UNKNOWN, Server
from moe_sweeps.launch.work import BUSY, FAILED
from moe_sweeps.records.rundir import State


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all tests: it imports torch first."""
    found = Server.launched(None)
    yield found
    found.close()


def test_a_worker_whose_run_is_done_ends_well(tmp_path: Path, server: Server) -> None:
    worker = server.start(fake_run(tmp_path, 1, State.done))
    worker.join()
    assert worker.exitcode == 0


def test_two_at_a_time_are_told_apart_and_write_their_own_logs(tmp_path: Path, server: Server) -> None:
    """A run without a config fails with a traceback in its own log; its neighbour is not touched by that."""
    broken, done = fake_run(tmp_path, 1, State.planned), fake_run(tmp_path, 2, State.done)
    (broken.path / "config.yaml").unlink()
    first, second = server.start(broken), server.start(done)
    second.join()
    first.join()
    assert (first.exitcode, second.exitcode) == (FAILED, 0)
    assert "FileNotFoundError" in broken.log.read_text()
    assert "FileNotFoundError" not in done.log.read_text()


def test_a_run_in_other_hands(tmp_path: Path, server: Server) -> None:
    folder = fake_run(tmp_path, 1, State.planned)
    with folder.lock():
        worker = server.start(folder)
        worker.join()
    assert worker.exitcode == BUSY


@pytest.mark.parametrize(("ask", "signum"), [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)])
def test_a_worker_that_is_ended_by_a_signal(tmp_path: Path, server: Server, ask: str, signum: int) -> None:
    """At once after its start, before it can have done anything: the signal is not lost."""
    folder = fake_run(tmp_path, 1, State.planned)
    with folder.lock():  # it waits for the lock
        worker = server.start(folder)
        getattr(worker, ask)()
        worker.join()
    assert worker.exitcode == -signum


def test_a_worker_ignores_what_the_driver_was_made_to_ignore(tmp_path: Path) -> None:
    """SIGHUP for nohup; it is then not ended by that, and by SIGTERM as ever."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = Server.launched(None)
        folder = fake_run(tmp_path, 1, State.planned)
        with folder.lock():
            worker = server.start(folder)
            for signum in (signal.SIGHUP, signal.SIGINT):
                os.kill(worker.pid, signum)
            worker.join(0.3)
            assert worker.exitcode is None
            worker.terminate()
            worker.join()
            assert worker.exitcode == -signal.SIGTERM
        server.close()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_join_gives_up(tmp_path: Path, server: Server) -> None:
    folder = fake_run(tmp_path, 1, State.planned)
    with folder.lock():
        worker = server.start(folder)
        worker.join(0.01)
        assert worker.exitcode is None
        worker.kill()
        worker.join()


def test_of_a_server_that_is_gone_nothing_is_known(tmp_path: Path) -> None:
    server = Server.launched(None)
    worker = server.start(fake_run(tmp_path, 1, State.done))
    worker.join()
    folder = fake_run(tmp_path, 2, State.planned)
    with folder.lock():
        orphan = server.start(folder)
        os.kill(server.pid, signal.SIGKILL)
        orphan.join()
        assert (worker.exitcode, orphan.exitcode) == (0, UNKNOWN)
        os.kill(orphan.pid, signal.SIGKILL)  # it lived on
    with pytest.raises(OSError, match="gone"):
        server.start(folder)
    server.close()


def test_an_error_does_not_hide_what_was_said_with_it() -> None:
    """A fork that fails while another worker ends."""
    ours, its = socket.socketpair()
    server = Server(ours, 0, lambda: None)
    its.sendall(b'{"error": "no memory"}\n{"pid": 111, "exitcode": 3}\n')
    with pytest.raises(OSError, match="no memory"):
        server.wait(1)
    assert server.exitcode(111) == 3
    its.close()
    server.close()
