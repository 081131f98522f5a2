"""What runs are doing: lost workers, time left, and how fast a thousand runs are read."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import at_most
from unit.cli.fake_runs import fake_run

from moe_sweeps.host.files import write_json
from moe_sweeps.host.locks import SOFT_LOCKS
from moe_sweeps.launch.follow import DAMAGED, LOST, Follower, is_lost, read_row, total_seconds_left
from moe_sweeps.records.rundir import RunDir, State

HOST = socket.gethostname()


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def silence(folder: RunDir, seconds: float) -> None:
    """Make the heartbeat that old."""
    content = {**folder.read("status.json"), "heartbeat": time.time() - seconds}
    write_json(folder.path / "status.json", content)


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_lock_knows_better_than_the_clock_of_another_host(tmp_path: Path, hours: int) -> None:
    folder = fake_run(tmp_path, 1, State.running, host="elsewhere", pid=1)
    silence(folder, -3600 * hours)
    with folder.lock():
        assert not is_lost(folder, folder.status())
    assert is_lost(folder, folder.status())


def test_a_run_whose_process_is_gone_is_lost_at_once(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, 0, State.running, host=HOST, pid=dead_pid())
    assert read_row("", folder).state == LOST
    with folder.lock():  # such a pid may be that of another container; the lock has the last word
        assert read_row("", folder).state == State.running


def test_a_process_that_lives_is_looked_for_only_when_it_is_silent(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, 0, State.running, host=HOST, pid=os.getpid())
    assert not is_lost(folder, folder.status())
    silence(folder, 60)
    assert is_lost(folder, folder.status())  # another process has its number by now
    with folder.lock():
        assert not is_lost(folder, folder.status())


def test_another_host_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, 0, State.running, host="far away", pid=1)
    silence(folder, 60)
    assert not is_lost(folder, folder.status())
    silence(folder, 600)
    assert is_lost(folder, folder.status())


@pytest.mark.parametrize("state", [s for s in State if s is not State.running])
def test_only_what_runs_can_be_lost(tmp_path: Path, state: State) -> None:
    folder = fake_run(tmp_path, 0, state, host=HOST, pid=dead_pid())
    silence(folder, 1e6)
    assert read_row("", folder).state == state


@pytest.mark.parametrize("make", [Path.mkdir, lambda lock: lock.symlink_to(lock.name)], ids=["a folder", "a link"])
def test_a_lock_that_nobody_can_hold_is_not_held(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = fake_run(tmp_path, 0, State.running, host=HOST, pid=os.getpid())
    silence(folder, 60)
    (folder.path / ".lock").unlink(missing_ok=True)
    make(folder.path / ".lock")
    assert read_row("", folder).state == LOST


@pytest.mark.parametrize("pid", ["x", 10**12, 1.5, True, [1], 0, -1])
def test_what_is_no_pid_is_no_process(tmp_path: Path, pid: object) -> None:
    folder = fake_run(tmp_path, 0, State.running, host=HOST)
    write_json(folder.path / "status.json", {**folder.read("status.json"), "pid": pid})
    assert read_row("", folder).state == LOST


def test_a_soft_lock_of_a_lost_node_is_named_with_the_file_to_delete(tmp_path: Path) -> None:
    """Nobody else can say that this node is gone."""
    folder = fake_run(tmp_path, 0, State.running, host="far away", pid=1)
    (tmp_path / SOFT_LOCKS).touch()
    marker = folder.path / ".lock.held"
    write_json(marker, {"host": "far away", "boot": "x", "pid": 1, "begun": "1"})
    silence(folder, 60)
    assert read_row("", folder).note == ""
    silence(folder, 600)
    row = read_row("", folder)
    assert row.state == State.running
    assert f"process 1 on far away (a soft lock: if that process is gone, delete {marker})" in row.note
    marker.unlink()
    assert (read_row("", folder).state, read_row("", folder).note) == (LOST, "")


def test_a_change_is_seen_a_lost_status_is_rebuilt_and_a_folder_that_is_gone_is_damaged(tmp_path: Path) -> None:
    follower = Follower([("a", fake_run(tmp_path, 0))])
    assert follower.read()[0].state == State.planned
    fake_run(tmp_path, 0, State.done)
    assert follower.read()[0].state == State.done
    folder = tmp_path / "fake-000000000000"
    (folder / "status.json").unlink()
    row = follower.read()[0]
    assert (row.state, row.note) == (State.planned, "status.json was lost; rebuilt from other files")
    shutil.rmtree(folder)
    assert follower.read()[0].state == DAMAGED
    fake_run(tmp_path, 0, State.failed)
    assert follower.read()[0].state == State.failed


def test_time_left_by_the_clock_of_the_current_attempt(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, 0, State.running, step=30, started_step=10, host=HOST, pid=os.getpid())
    content = folder.read("status.json")
    write_json(folder.path / "status.json", content | {"started": content["heartbeat"] - 40})
    assert read_row("", folder).seconds_left == pytest.approx(70 * 2)  # 20 steps took 40 s


def test_total_time_is_that_of_the_schedule(tmp_path: Path) -> None:
    """Two workers, one run of 50 s left, two of 100 s waiting: the free worker takes one, the other follows at 50."""
    speed = {"tokens_per_step": 10, "tokens_per_second": 10.0}
    folders = [fake_run(tmp_path, 0, State.running, step=50, host=HOST, pid=os.getpid(), **speed)]
    folders += [fake_run(tmp_path, n) for n in (1, 2)]
    folders += [fake_run(tmp_path, 3, State.done, step=100, **speed), fake_run(tmp_path, 4, State.cancelled)]
    rows = Follower([("", folder) for folder in folders]).read()
    assert total_seconds_left(rows, workers=2) == pytest.approx(150)
    assert total_seconds_left(rows, workers=3) == pytest.approx(100)
    assert total_seconds_left(rows[3:], workers=1) == 0
    assert total_seconds_left(rows[1:3], workers=1) is None  # no speed is known


def test_a_thousand_runs_are_read_quickly(tmp_path: Path) -> None:
    """Copies of one folder: what is timed is the reading."""
    content = (fake_run(tmp_path, 0, State.running, host=HOST, pid=os.getpid()).path / "status.json").read_text()
    runs = []
    for number in range(1000):
        path = tmp_path / "many" / f"fake-{number:012x}"
        path.mkdir(parents=True)
        (path / "status.json").write_text(content)
        runs.append((str(number), RunDir(path)))
    follower = Follower(runs)
    with at_most(1):
        rows = follower.read()
        total_seconds_left(rows, 8)
    assert {row.state for row in rows} == {State.running}
