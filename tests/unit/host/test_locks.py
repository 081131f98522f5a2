"""Locks: one holder at a time, refused in one sentence where there is none, and soft ones that nobody takes away."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from moe_sweeps.errors import LockRefused, NotWritable
from moe_sweeps.host.locks import SOFT_LOCKS, Busy, locked, uses_soft_locks
from moe_sweeps.records.rundir import RunDir

HOLD = "import sys, time, pathlib; from moe_sweeps.host.locks import locked\nwith locked(pathlib.Path(sys.argv[1])):\n"
HOLD += "    print('held', flush=True); time.sleep(60)"


@pytest.fixture(params=["hard", "soft"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A lock file in a root of either kind, as deep as the deepest one."""
    if request.param == "soft":
        (tmp_path / SOFT_LOCKS).touch()
    folder = tmp_path / "sweeps" / "0123"
    folder.mkdir(parents=True)
    return folder / ".lock"


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_at_a_time_and_again_afterwards(path: Path) -> None:
    assert uses_soft_locks(path) == (path.parents[2] / SOFT_LOCKS).exists()
    with locked(path):
        with pytest.raises(Busy), locked(path):
            raise AssertionError("two have it")
        with pytest.raises(Busy), locked(path, wait=0.2):
            raise AssertionError("two have it")
    with locked(path):
        pass


def test_it_ends_with_a_process_that_is_killed(path: Path) -> None:
    process = holder(path)
    with pytest.raises(Busy), locked(path):
        pass
    process.kill()
    process.communicate()
    with locked(path):
        pass


def test_waiting_ends_when_the_holder_lets_go(path: Path) -> None:
    order = []

    def hold() -> None:
        with locked(path):
            order.append("first")
            time.sleep(0.3)
            order.append("lets go")

    thread = threading.Thread(target=hold)
    thread.start()
    while not order:
        time.sleep(0.01)
    with locked(path, wait=None):
        order.append("second")
    thread.join()
    assert order == ["first", "lets go", "second"]


def test_threads_that_all_want_it_never_have_it_together(path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with locked(path, wait=None):
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_fork_does_not_keep_it(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"):
        child = os.fork()
        if not child:
            time.sleep(2)
            os._exit(0)
    with locked(tmp_path / ".lock"):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_the_hard_one_is_that_of_older_code(tmp_path: Path) -> None:
    """Workers that import a snapshot of older sources lock with filelock."""
    with FileLock(tmp_path / ".lock"), pytest.raises(Busy), locked(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESTALE])
def test_a_file_system_without_locks_is_refused_with_the_way_out(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(LockRefused, match=r"cannot be locked: the file system says .*docs/running.md") as caught,
        locked(tmp_path / ".lock"),
    ):
        pass
    assert os.strerror(code) in str(caught.value)
    assert SOFT_LOCKS in str(caught.value)
    (tmp_path / SOFT_LOCKS).touch()
    with locked(tmp_path / ".lock"), pytest.raises(Busy), locked(tmp_path / ".lock"):
        pass


def test_a_run_of_a_root_without_locks_is_refused_and_not_called_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.EACCES, "Permission denied")  # which filelock takes for a lock that is held

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = RunDir(tmp_path)
    with pytest.raises(LockRefused), folder.lock():
        pass
    assert not folder.is_locked()


@pytest.mark.parametrize(
    "change",
    [{"host": "elsewhere"}, {"boot": "another"}, {"pid": "x"}, None],
    ids=["another host", "another boot", "no pid", "empty"],
)
def test_a_soft_lock_of_a_process_that_cannot_be_seen_stays(change: dict[str, str] | None, tmp_path: Path) -> None:
    (tmp_path / SOFT_LOCKS).touch()
    path, marker = tmp_path / ".lock", tmp_path / ".lock.held"
    with locked(path):
        content = json.loads(marker.read_text())
    marker.write_text("" if change is None else json.dumps(content | {"pid": 4_000_000, "begun": "1"} | change))
    os.utime(marker, (1, 1))  # however old it is
    with pytest.raises(Busy, match="if that process is gone, delete") as caught, locked(path):
        pass
    assert str(marker) in str(caught.value)
    marker.unlink()
    with locked(path):
        pass


def test_a_soft_lock_of_a_process_number_that_was_used_again_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / SOFT_LOCKS).touch()
    path, marker = tmp_path / ".lock", tmp_path / ".lock.held"
    with locked(path):
        content = json.loads(marker.read_text())
        assert content["pid"] == os.getpid()
    marker.write_text(json.dumps(content | {"begun": "1"}))
    with locked(path):
        pass


def test_what_is_closed_is_said_with_owner_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / ".lock"))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotWritable) as caught, locked(tmp_path / ".lock"):
        pass
    assert f"{tmp_path} (owner: {tmp_path.owner()}) is closed to you: Read-only file system." in str(caught.value)
    assert "MOE_SWEEPS_RUNS" in str(caught.value)
