"""Runs with a tracker, as they are in use: killed and resumed, and with a server that never answers."""

from __future__ import annotations

import os
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, compose_run
from processes import kill_everything, wait_until
from wandb_server import wandb_server

from moe_sweeps.cli.manage import main
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records import mirror
from moe_sweeps.records.mirror import Record
from moe_sweeps.records.rundir import MetricsLog, RunDir, State
from moe_sweeps.tracking.wandb import attempts, inspect
from moe_sweeps.training.worker import run_worker

KEY = "0123456789abcdef0123456789abcdef01234567"
LINE = [*TINY, "model.layers=1", "trainer.steps=120", "trainer.log_every=2", "trainer.checkpoint_every=14"]


@pytest.fixture
def wandb_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb with a key of its own, and without this machine's settings."""
    for variable in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))


SECONDS = 240  # for what takes a few on a machine that is not busy
# A worker that trains up to a step and waits there: its mirror gets the time to come to where it is to be killed.
WAITING_WORKER = """
import sys, time
from pathlib import Path
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.launch.work import work
from moe_sweeps.training.trainer import Trainer
train_step = Trainer._train_step
def wait_at(self):
    time.sleep(600 if self.step == int(sys.argv[2]) else 0)
    return train_step(self)
Trainer._train_step = wait_at
work(RunDir(Path(sys.argv[1])))
"""


@contextmanager
def worker(folder: RunDir, wait_at: int = -1) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own, which does not outlive the test."""
    with subprocess.Popen([sys.executable, "-c", WAITING_WORKER, str(folder.path), str(wait_at)]) as process:
        try:
            yield process
        finally:
            process.kill()


def held(folder: RunDir) -> int:
    return Record.read(folder, "wandb-offline").last_step


def no_key_in(folder: Path) -> bool:
    return not [p for p in folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("wandb_alone", "real_data")
def test_wandb_offline_killed_and_resumed_holds_one_run_with_each_step_once(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = freeze(compose_run(*LINE, "tracking=wandb", "tracking.mode=offline"), [], command="test")
    with worker(folder, wait_at=50):  # first the worker alone is killed: its mirror sees it go
        wait_until(lambda: held(folder) > random.randint(2, 46), SECONDS)
    with worker(folder, wait_at=100):  # then everything is, wandb's own service too
        wait_until(lambda: held(folder) > random.randint(50, 96), SECONDS)
        assert kill_everything(folders) >= 3
    with worker(folder) as process:
        process.wait()
    assert (folder.status().state, folder.status().attempt) == (State.done, 3), folder.log.read_text()
    assert folder.status().tracking is None
    check_wandb_files(folder)

    files = attempts(folder.path / "tracking")
    assert main(["track", "sync", folder.run_id, "--offline"]) == 0
    assert "has all 120 steps" in capsys.readouterr().out
    assert attempts(folder.path / "tracking") == files
    assert main(["track", "sync", folder.run_id, "--offline", "--again"]) == 0
    (new,) = set(attempts(folder.path / "tracking")) - set(files)
    assert not [record for record in inspect(new) if record["type"] == "history"]
    assert no_key_in(folder.path)


def check_wandb_files(folder: RunDir) -> None:
    """One run, each logged step once over all attempts, with the numbers of metrics.jsonl, config and media."""
    records = [record for path in attempts(folder.path / "tracking") for record in inspect(path)]
    runs = [r["run"] for r in records if r["type"] == "run"]
    assert len(runs) == 2  # of three attempts, one was cut short and is done again by the next
    assert sum(r["type"] == "exit" for r in records) == 2
    assert {r["run_id"] for r in runs} == {folder.run_id}
    assert runs[0]["config"]["update"]["aux"]["coef"] == 0.1
    rows = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert [row["step"] for row in rows] == list(range(2, 121, 2))
    assert [row["_step"] for row in rows] == [row["step"] for row in rows]
    for split in ("train", "val"):
        expected = {
            r["step"]: r["loss"] for r in MetricsLog(folder.path / "metrics.jsonl").records() if r["split"] == split
        }
        assert {r["step"]: r[f"{split}/loss"] for r in rows if f"{split}/loss" in r} == expected
    last = rows[-1]
    assert {"pictures/load.path", "pictures/loss.path", "tables/experts.path", "tables/summary.path"} <= last.keys()
    assert sum("pictures/load.path" in row for row in rows) == 1


# Logs every fourth step after what wandb holds, and ends as it is told to.
ONLINE = """
import os, signal, sys, time
from pathlib import Path
from moe_sweeps.records.mirror import Record
from moe_sweeps.records.rundir import State
from moe_sweeps.tracking.rows import Row
from moe_sweeps.tracking.tracker import Facts, Results
from moe_sweeps.tracking.wandb import WandbTracker
settings = {"kind": "wandb", "mode": "online", "project": "p", "entity": None}
tracker = WandbTracker(settings, Record("wandb"))
held = tracker.begin(Facts("id1", "arm seed=0", "sweep-1", {"aux": {"coef": 0.1}}, Path(sys.argv[1])))
print(held)
for step in range(held + 4, 41, 4):
    tracker.log(Row(step, {"train/loss": 1 / step}))
if sys.argv[2] == "kill":
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
tracker.add_results(Row(44, {"train/loss": 0.5}), Results({"val_loss": 1.5}, {}))
tracker.end(State.done)
"""


@pytest.mark.usefixtures("wandb_alone")
def test_wandb_online_goes_on_behind_what_its_server_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(how: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", ONLINE, str(tmp_path), how], stdin=pipe, stdout=pipe, text=True)

    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        first = start("kill")
        wait_until(lambda: "id1" in server.runs and server.runs["id1"].history, SECONDS)
        first.communicate("\n")  # killed when some steps have come, or all
        held = len(server.runs["id1"].history)
        last = start("end")
        assert last.communicate(timeout=240)[0] == f"{4 * held}\n"
        assert last.returncode == 0
        run = server.runs["id1"]
    assert [row["step"] for row in run.history] == list(range(4, 45, 4))
    assert [row["_step"] for row in run.history] == [row["step"] for row in run.history]
    assert (run.group, run.name, run.config["aux"]) == ("sweep-1", "arm seed=0", {"value": {"coef": 0.1}})
    assert run.summary["val_loss"] == 1.5
    assert list(server.runs) == ["id1"]


@pytest.fixture
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that takes every connection and never says a word: its address, and the connections."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        server.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.close()
    thread.join()


class UntilCalled:
    """An observer with which training ends only after wandb has called its server."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self.connections = connections

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        if step == 100:
            wait_until(lambda: self.connections, SECONDS)

    def alive(self, step: int) -> None:
        pass


@pytest.mark.usefixtures("wandb_alone", "real_data")
def test_a_server_that_never_answers_costs_training_nothing_and_the_run_ends_in_time(
    folders: Path,
    silent_server: tuple[str, list[socket.socket]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, connections = silent_server
    monkeypatch.setenv("WANDB_BASE_URL", url)
    spent: dict[str, list[float]] = {}
    for name in ("problem", "end"):
        monkeypatch.setattr(mirror.Mirror, name, timed(getattr(mirror.Mirror, name), name, spent))
    line = [*TINY, "trainer.steps=120", "tracking=wandb", "tracking.finish_seconds=2"]
    folder = freeze(compose_run(*line), [], command=f"WANDB_API_KEY={KEY} python train.py")
    assert run_worker(folder, UntilCalled(connections)) is State.done

    summary = folder.summary()
    assert summary is not None
    # All that the worker does for its tracker during training: a look at its record, once a second, in another thread.
    # What else the machine does makes some looks slow; waiting for the server would make all of them so.
    assert statistics.median(spent["problem"]) < 0.01
    assert sum(spent["end"]) < 2 + 10  # its own limit, and what a busy machine adds
    status = folder.status()
    assert (status.state, status.step, status.failure) == (State.done, 120, None)
    # On a machine so slow that training takes longer than wandb's own patience, wandb has said something by then.
    said = r"wandb: (it did not answer for 2 s at the end of training|Failed to get resume status .*deadline exceeded)"
    assert re.fullmatch(said, status.tracking or "")
    assert main(["status", folder.run_id]) == 0
    shown = capsys.readouterr().out
    assert "tracking: 1 run, wandb: " in shown
    assert "`moe-sweeps track sync` sends what is missing" in shown
    assert no_key_in(folder.path)

    assert main(["track", "sync", folder.run_id, "--to", "tensorboard"]) == 0
    assert "tensorboard: has all steps up to 120" in capsys.readouterr().out
    assert list((folder.path / "tracking" / "tensorboard").glob("*tfevents*"))


def timed(method: Any, name: str, spent: dict[str, list[float]]) -> Any:
    """The method; how long each call took is added to `spent`."""

    def call(*args: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*args)
        finally:
            spent.setdefault(name, []).append(time.perf_counter() - started)

    return call
