"""What folders and SLURM's queue say together, with made-up answers of squeue; tests/slurm has a real one."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run

from moe_sweeps.cli.manage import main
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.follow import LOST, Follower
from moe_sweeps.sweep.slurm import agree, queue
from moe_sweeps.sweep.slurm.records import Record

Answer = Callable[[str], list[tuple[str, ...]]]


@pytest.fixture
def squeue(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Sets what squeue prints; returns the list of commands that are called."""

    def answer(text: str) -> list[tuple[str, ...]]:
        calls: list[tuple[str, ...]] = []

        def call(*command: str) -> str:
            calls.append(command)
            return text if command[0] == "squeue" else ""

        monkeypatch.setattr(queue, "call", call)
        monkeypatch.setattr(agree, "call", call)
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
        return calls

    return answer


def job(task: str, state: str) -> str:
    return f"{task}|moe-x|{state}|None|n1\n"


def lost_run(root: Path, number: int, task: str) -> RunDir:
    return fake_run(root, number, State.running, attempt=1, slurm_job_id=task, host=socket.gethostname(), pid=None)


def states(*folders: RunDir) -> list[str]:
    return [str(row.state) for row in agree.with_queue(Follower([("", f) for f in folders]).read())]


def test_squeue_is_not_asked_where_nothing_depends_on_it(folders: Path, squeue: Answer) -> None:
    calls = squeue("")
    runs = [
        fake_run(folders, 1, State.done, slurm_job_id="5_0"),
        fake_run(folders, 2, State.queued),
        fake_run(folders, 3, State.planned),
        fake_run(folders, 4, State.failed, slurm_job_id="5_1"),
    ]
    assert states(*runs) == ["done", "queued", "planned", "failed"]
    assert calls == []


def test_states_that_disagree_are_shown_with_one_call(folders: Path, squeue: Answer) -> None:
    calls = squeue(job("5_0", "PENDING") + job("5_2", "PENDING") + job("5_3", "RUNNING") + job("5_4", "PENDING"))
    runs = [
        fake_run(folders, 1, State.queued, slurm_job_id="5_0"),
        fake_run(folders, 2, State.queued, slurm_job_id="5_1"),  # its job is gone
        lost_run(folders, 3, "5_2"),  # died without a word, and SLURM has requeued its job
        fake_run(folders, 4, State.queued, slurm_job_id="5_3"),  # its job begins at this moment
        fake_run(folders, 5, State.preempted, attempt=1, slurm_job_id="5_4"),
        lost_run(folders, 6, "5_5"),
    ]
    assert states(*runs) == ["queued", LOST, "queued", "queued", "queued", LOST]
    assert len(calls) == 1


def test_repair_writes_the_states_down(folders: Path, squeue: Answer) -> None:
    squeue(job("5_2", "PENDING"))
    gone, requeued = fake_run(folders, 1, State.queued, slurm_job_id="5_1"), lost_run(folders, 2, "5_2")
    done = fake_run(folders, 3, State.done, slurm_job_id="5_3")
    main(["status", "--repair"])
    assert gone.status().state is State.planned
    assert gone.status().slurm_job_id is None
    assert requeued.status().state is State.queued
    assert requeued.status().slurm_job_id == "5_2"
    assert requeued.status().deaths == 1
    assert done.status().state is State.done
    before = requeued.status()
    main(["status", "--repair"])
    assert requeued.status() == before


def test_status_alone_writes_nothing(folders: Path, squeue: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    squeue("")
    gone = fake_run(folders, 1, State.queued, slurm_job_id="5_1")
    before = gone.status()
    main(["status"])
    assert "1 lost" in capsys.readouterr().out
    assert gone.status() == before


def test_cancel_takes_waiting_jobs_out_of_the_queue(folders: Path, squeue: Answer) -> None:
    calls = squeue(job("5_0", "PENDING") + job("5_1", "RUNNING") + job("5_2", "PENDING"))
    runs = [fake_run(folders, i, State.queued, slurm_job_id=f"5_{min(i, 2)}") for i in range(4)]
    names = [r.path.name for r in runs]
    record = folders / "sweeps" / "s" / "slurm" / "moe-x.json"
    record.parent.mkdir(parents=True)
    Record(record, str(folders), [[names[0]], [names[1]], names[2:]], {}, "", time.time(), "5").write()
    # 5_1 runs, and 5_2 has a run that nobody cancels.
    assert agree.cancel_pending(runs[:3], folders) == ["5_0"]
    assert calls[-1] == ("scancel", "--state=PENDING", "5_0")
    assert agree.cancel_pending(runs, folders) == ["5_0", "5_2"]
