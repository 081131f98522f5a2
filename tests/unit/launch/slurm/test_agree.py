"""What folders and SLURM's queue say together, with made-up answers of squeue; tests/slurm has a real one."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run

from moe_sweeps.cli.manage import main
from moe_sweeps.errors import LaunchError
from moe_sweeps.host.files import write_json
from moe_sweeps.launch.follow import LOST, Follower
from moe_sweeps.launch.slurm import agree, others, queue
from moe_sweeps.launch.slurm.records import ArrayRecord
from moe_sweeps.records.rundir import RunDir, State, Status

Answer = Callable[..., list[tuple[str, ...]]]


@pytest.fixture
def squeue(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Sets what squeue prints, and sacct, where there is accounting; returns the list of commands that are called."""

    def answer(text: str, accounting: str | None = None, config: str = "") -> list[tuple[str, ...]]:
        calls: list[tuple[str, ...]] = []

        def call(*command: str, patience: Sequence[float] = (), seconds: float = 0.0) -> str:
            calls.append(command)
            if command[0] == "sacct" and accounting is None:
                raise LaunchError("Slurm accounting storage is disabled")
            return {"squeue": text, "sacct": accounting or "", "scontrol": config}.get(command[0], "")

        for module in (queue, agree, others):
            monkeypatch.setattr(module, "call", call)
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
        return calls

    return answer


def job(task: str, state: str, reason: str = "None", name: str = "moe-x") -> str:
    return f"{task}|{name}|{state}|{reason}|n1\n"


def names(calls: list[tuple[str, ...]]) -> list[str]:
    return [command[0] for command in calls]


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
        fake_run(folders, 4, State.failed),  # its job was requeued without it
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
    assert names(calls) == ["squeue", "sacct"]


def test_why_a_job_waits_and_how_it_ended_stand_beside_the_state(folders: Path, squeue: Answer) -> None:
    calls = squeue(job("5_0", "PENDING", "PartitionTimeLimit"), "5_1|TIMEOUT\n5_2|OUT_OF_MEMORY\n")
    runs = [
        fake_run(folders, 1, State.queued, slurm_job_id="5_0"),
        fake_run(folders, 2, State.queued, slurm_job_id="5_1"),
        lost_run(folders, 3, "5_2"),
        fake_run(folders, 4, State.preempted, slurm_job_id="5_3"),  # accounting does not know it
    ]
    rows = agree.with_queue(Follower([("", f) for f in runs]).read())
    killed = "killed by the kernel: out of memory; raise launch.mem_gb"
    assert [row.note for row in rows] == ["PartitionTimeLimit", "TIMEOUT", killed, ""]
    assert calls[1][-1] == "--jobs=5_1,5_2,5_3"


def test_a_run_elsewhere_that_falls_silent_is_asked_about(folders: Path, squeue: Answer) -> None:
    squeue(job("5_1", "RUNNING") + job("5_2", "PENDING"))
    runs = [fake_run(folders, i, State.running, slurm_job_id=f"5_{i}", host="n1", pid=1) for i in range(4)]
    for folder in runs[:3]:
        old = asdict(folder.status()) | {"heartbeat": time.time() - 60}
        write_json(folder.path / "status.json", old)
    assert states(*runs) == [LOST, "running", "queued", "running"]


def test_no_run_is_failed_while_its_job_is_in_the_queue(folders: Path, squeue: Answer) -> None:
    squeue(job("5_0", "PENDING", "BeginTime") + job("5_1", "RUNNING"), "5_2|FAILED\n")
    runs = [fake_run(folders, i, State.failed, attempt=1, slurm_job_id=f"5_{i}") for i in range(3)]
    rows = agree.with_queue(Follower([("", f) for f in runs]).read())
    assert [(str(row.state), row.note) for row in rows] == [("queued", "BeginTime"), ("failed", ""), ("failed", "")]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong_loses_no_run(folders: Path, squeue: Answer, hours: int) -> None:
    """Both ways: what the queue says counts, for a run whose job runs and for one whose job is gone."""
    squeue(job("5_0", "RUNNING"))
    runs = [fake_run(folders, i, State.running, slurm_job_id=f"5_{i}", host="n1", pid=1) for i in range(2)]
    for folder in runs:
        write_json(folder.path / "status.json", asdict(folder.status()) | {"heartbeat": time.time() + hours * 3600})
    assert states(*runs) == ["running", LOST]


class FakeClock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_who_follows_asks_ever_more_rarely_and_sooner_when_there_is_something_new(
    folders: Path, squeue: Answer
) -> None:
    calls = squeue(job("5_0", "PENDING") + job("5_1", "PENDING"))
    runs = [fake_run(folders, i, State.queued, slurm_job_id=f"5_{i}") for i in range(2)]
    clock = FakeClock()
    following = agree.Queue(clock)

    def asked_at(first: int, last: int) -> list[int]:
        found = []
        for second in range(first, last):
            clock.seconds = second
            before = names(calls).count("squeue")
            following.with_queue(Follower([("", f) for f in runs]).read())
            found += [second] * (names(calls).count("squeue") - before)
        return found

    assert asked_at(0, 400) == [0, 30, 90, 210, 330]
    runs[1].write_status(Status(State.preempted, attempt=1, slurm_job_id="5_1"))
    assert asked_at(400, 450) == [400, 430]
    runs[1].write_status(Status(State.preempted, attempt=2, slurm_job_id="5_1"))
    assert asked_at(450, 470) == [450]
    runs[0].write_status(Status(State.preempted, attempt=1, slurm_job_id="5_0"))
    assert asked_at(451, 480) == [465]  # however much there is to ask


def test_a_controller_that_does_not_answer_is_left_in_peace(
    folders: Path, squeue: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue("")
    tried = []

    def busy(*command: str, patience: Sequence[float] = (), seconds: float = 0.0) -> str:
        tried.append(command)
        raise LaunchError("Socket timed out")

    monkeypatch.setattr(queue, "call", busy)
    run = fake_run(folders, 1, State.queued, slurm_job_id="5_0")
    clock = FakeClock()
    following, rows = agree.Queue(clock), Follower([("", run)]).read()
    with pytest.raises(LaunchError, match="timed out"):
        following.with_queue(rows)
    for clock.seconds in range(1, 15):
        assert following.with_queue(rows) == rows
    assert len(tried) == 1
    # What the next answer says counts, and accounting that is not there is asked once.
    calls = squeue("")
    for clock.seconds in (15, 45, 105):
        assert [row.state for row in following.with_queue(rows)] == [LOST]
    assert names(calls) == ["squeue", "sacct", "squeue", "squeue"]


def test_status_is_said_within_seconds_while_the_controller_is_down(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLURM's own commands try for a minute and more."""
    monkeypatch.setattr(agree, "READING_SECONDS", 2.0)
    for name in ("squeue", "sacct"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_run(folders, 1, State.queued, slurm_job_id="5_0")
    started = time.monotonic()
    main(["status"])
    assert time.monotonic() - started < 20  # one time-out, and some room for a busy machine
    assert "1 queued" in capsys.readouterr().out


def submitted(root: Path, jobs: list[list[str]]) -> Path:
    """The record of job 5, which is called moe-x."""
    record = root / "sweeps" / "s" / "slurm" / "moe-x.json"
    record.parent.mkdir(parents=True)
    ArrayRecord(record, str(root), jobs, {}, "", time.time(), "5").write()
    return record


def test_jobs_of_others_in_a_shared_folder_are_asked_about(
    folders: Path, squeue: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = squeue(job("5_0", "PENDING"))
    runs = [fake_run(folders, i, State.queued, slurm_job_id=f"5_{i}") for i in range(2)]
    owner = submitted(folders, [[run.path.name] for run in runs]).stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 4242)  # somebody else looks
    assert states(*runs) == ["queued", LOST]
    assert f"--user=4242,{owner}" in calls[0]
    assert "--all" in calls[0]


@pytest.mark.parametrize(("private", "hidden"), [("jobs,usage", True), ("none", False), ("usage", False)])
def test_runs_whose_jobs_squeue_may_hide_are_left_alone(
    folders: Path, squeue: Answer, monkeypatch: pytest.MonkeyPatch, private: str, hidden: bool
) -> None:
    squeue("", config=f"MaxArraySize            = 1001\nPrivateData             = {private}\n")
    runs = [fake_run(folders, 0, State.queued, slurm_job_id="5_0"), lost_run(folders, 1, "5_1")]
    runs.append(fake_run(folders, 2, State.queued, slurm_job_id="6_0"))  # of no record, so of nobody else
    submitted(folders, [[run.path.name] for run in runs[:2]])
    before = [run.status() for run in runs]
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert states(*runs) == ["queued" if hidden else LOST, LOST, LOST]
    main(["status", "--repair"])
    assert [run.status() == was for run, was in zip(runs, before, strict=True)] == [hidden, hidden, False]


def test_a_user_whom_this_machine_does_not_know_is_not_asked_about(
    folders: Path, squeue: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue would refuse the whole question."""
    calls = squeue("")
    run = fake_run(folders, 0, State.queued, slurm_job_id="5_0")
    submitted(folders, [[run.path.name]])
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(others, "_is_known", lambda _: False)
    assert states(run) == ["queued"]
    assert "--me" in calls[0]


def test_a_job_of_another_name_says_nothing_about_a_run(folders: Path, squeue: Answer) -> None:
    """The allocation in whose shell the runs were started, and one that has got an old number."""
    squeue(job("9", "RUNNING", name="interactive") + job("77_0", "PENDING", "Priority", name="my-other-array"))
    runs = [lost_run(folders, 0, "9"), fake_run(folders, 1, State.queued, slurm_job_id="77_0")]
    rows = agree.with_queue(Follower([("", f) for f in runs]).read())
    assert [(str(row.state), row.note) for row in rows] == [(LOST, ""), ("queued", "")]


def test_cancel_leaves_a_job_of_another_name_alone(folders: Path, squeue: Answer) -> None:
    calls = squeue(job("5_0", "PENDING", name="my-other-array") + job("5_1", "PENDING"))
    runs = [fake_run(folders, i, State.queued, slurm_job_id=f"5_{i}") for i in range(2)]
    submitted(folders, [[run.path.name] for run in runs])
    assert agree.cancel_pending(runs, folders) == ["5_1"]
    assert calls[-1] == ("scancel", "--state=PENDING", "5_1")


@pytest.mark.parametrize("silent", ["squeue", "scancel"])
def test_cancel_waits_for_a_controller_that_is_down_for_seconds(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setattr(agree, "READING_SECONDS", 1.0)
    run = fake_run(folders, 0, State.queued, slurm_job_id="5_0")
    submitted(folders, [[run.path.name]])
    for name in ("squeue", "scancel"):
        does = "exec sleep 60" if name == silent else "echo '5_0|moe-x|PENDING||'"
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    started = time.monotonic()
    with pytest.raises(LaunchError, match="no answer within 1 s"):
        agree.cancel_pending([run], folders)
    assert time.monotonic() - started < 20


def test_repair_writes_the_states_down(folders: Path, squeue: Answer) -> None:
    squeue(job("5_2", "PENDING"))
    gone, requeued = fake_run(folders, 1, State.queued, slurm_job_id="5_1"), lost_run(folders, 2, "5_2")
    done = fake_run(folders, 3, State.done, slurm_job_id="5_3")
    main(["status", "--repair"])
    assert gone.status().state is State.planned
    assert gone.status().slurm_job_id is None
    assert requeued.status().state is State.queued
    assert requeued.status().slurm_job_id == "5_2"
    assert requeued.status().deaths == 0
    assert done.status().state is State.done
    before = requeued.status()
    main(["status", "--repair"])
    assert requeued.status() == before


@pytest.mark.parametrize("answers", [True, False])
def test_repair_guesses_nothing_where_slurm_says_nothing(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: bool
) -> None:
    """Here is no squeue, or its controller is down: a run that only looks lost may train on another host."""
    if answers:
        (tmp_path / "squeue").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    run = lost_run(folders, 1, "5_0")
    before = run.status()
    assert main(["status", "--repair"]) != 0
    assert "squeue" in capsys.readouterr().err
    assert run.status() == before


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
    submitted(folders, [[names[0]], [names[1]], names[2:]])
    # 5_1 runs, and 5_2 has a run that nobody cancels.
    assert agree.cancel_pending(runs[:3], folders) == ["5_0"]
    assert calls[-1] == ("scancel", "--state=PENDING", "5_0")
    assert agree.cancel_pending(runs, folders) == ["5_0", "5_2"]
