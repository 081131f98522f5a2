"""What is read out of SLURM's answers; tests/slurm has a real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run

from moe_sweeps.cli import manage, train
from moe_sweeps.errors import LaunchError
from moe_sweeps.launch.slurm import queue
from moe_sweeps.launch.slurm.queue import JobEnd
from moe_sweeps.records.status import State

Answer = Callable[[str], None]
PARTITIONS = """\
PartitionName=batch AllowGroups=ALL Default=YES DefaultTime=NONE MaxTime=UNLIMITED State=UP
PartitionName=short AllowGroups=ALL Default=NO DefaultTime=NONE MaxTime=00:30:00 State=UP
PartitionName=day AllowGroups=ALL Default=NO DefaultTime=NONE MaxTime=1-00:00:00 State=UP
"""


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Answer:
    def answer(text: str) -> None:
        def call(*command: str, patience: Sequence[float] = (), seconds: float = 0.0) -> str:
            if not text:
                raise LaunchError("no answer")
            return text

        monkeypatch.setattr(queue, "call", call)

    return answer


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93784), ("02:03:04", 7384), ("10:00", 600), ("UNLIMITED", None), ("INVALID", None), ("", None)],
)
def test_times_of_slurm(text: str, seconds: int | None) -> None:
    assert queue.seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("partition", "minutes"),
    [("short", 30), ("day", 1440), ("short,day", 1440), ("short,batch", None), (None, None), ("nowhere", None)],
)
def test_the_longest_time_of_a_partition(says: Answer, partition: str | None, minutes: int | None) -> None:
    says(PARTITIONS)
    assert queue.longest_minutes(partition) == minutes


def test_hidden_partitions_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --all SLURM tells of them only to those whose group they admit by name."""
    asked: list[tuple[str, ...]] = []

    def call(*command: str, patience: Sequence[float] = (), seconds: float = 0.0) -> str:
        asked.append(command)
        return PARTITIONS if command[0] == "scontrol" and "--all" in command else ""

    monkeypatch.setattr(queue, "call", call)
    assert queue.longest_minutes("short") == 30
    queue.own_jobs()
    assert asked[1][0] == "squeue"
    assert "--all" in asked[1]


@pytest.mark.parametrize(
    ("change", "ending"),
    [
        ("", JobEnd.cancelled),
        ("JobState=RUNNING", JobEnd.by_itself),  # a task of it was killed
        ("RunTime=00:10:02", JobEnd.time_limit),
        ("PreemptTime=2026-11-25T10:00:00", JobEnd.preempted),
        ("Restarts=3", JobEnd.requeued),
        ("Restarts=3 PreemptTime=2026-11-25T10:00:00", JobEnd.requeued),
        ("TimeLimit=UNLIMITED", JobEnd.cancelled),
        ("ArrayTaskId=2", JobEnd.unknown),  # an answer about somebody else
    ],
)
def test_why_a_job_ends(says: Answer, change: str, ending: JobEnd) -> None:
    says(f"{ENDING} {change}")
    assert queue.why_it_ends("7_3", restarts=2) is ending


ENDING = (
    "JobId=7 ArrayJobId=7 ArrayTaskId=3 JobState=COMPLETING Restarts=2 RunTime=00:01:00 TimeLimit=00:10:00 "
    "PreemptTime=None"
)
OTHERS = """\
JobId=9 ArrayJobId=7 ArrayTaskId=1 JobState=RUNNING Restarts=5 RunTime=00:10:02 TimeLimit=00:10:00 PreemptTime=None
JobId=8 ArrayJobId=7 ArrayTaskId=30 JobState=COMPLETED Restarts=0 RunTime=00:00:02 TimeLimit=00:10:00 PreemptTime=None
"""


def test_records_of_one_array_are_never_folded_into_one(says: Answer) -> None:
    """SLURM may answer with every task of an array; each key of the others would change what is read of this one."""
    says(f"{ENDING}\n{OTHERS}")
    assert queue.why_it_ends("7_3", restarts=2) is JobEnd.cancelled
    assert queue.why_it_ends("7_1", restarts=2) is JobEnd.requeued
    assert queue.why_it_ends("7_1", restarts=5) is JobEnd.time_limit
    assert queue.why_it_ends("8", restarts=0) is JobEnd.by_itself  # a job that is no array's


def test_who_gets_no_answer_does_not_know(says: Answer) -> None:
    says("")
    assert queue.why_it_ends("7_3", restarts=0) is JobEnd.unknown


def test_a_command_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hanging = tmp_path / "squeue"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    started = time.monotonic()
    with pytest.raises(LaunchError, match="no answer within 1 s"):
        queue.own_jobs(patience=(), seconds=1.0)
    assert time.monotonic() - started < 20


def test_filters_that_a_person_has_set_hide_no_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """squeue with SQUEUE_STATES=RUNNING names no waiting job; it would be submitted again."""
    (tmp_path / "squeue").write_text('#!/bin/sh\necho "5_0|moe-x|PENDING|$SQUEUE_STATES|$SLURM_CONF"\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SLURM_CONF", "/x")
    assert queue.own_jobs(patience=())["5_0"] == queue.Job("5_0", "moe-x", "PENDING", "", "/x")


# What SLURM's own commands say, and what is quoted of it.
NO_CLUSTER = """squeue: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
squeue: error: fetch_config: DNS SRV lookup failed
squeue: error: _establish_config_source: failed to fetch config
squeue: fatal: Could not establish a configuration source"""
CONTROLLER_DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


def fake_command(folder: Path, name: str, words: str) -> None:
    (folder / "words").write_text(words)
    (folder / name).write_text(f'#!/bin/sh\necho asked >> "{folder}/asked"\ncat "{folder}/words" >&2\nexit 1\n')
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("words", "quoted", "attempts"),
    [(NO_CLUSTER, "Could not establish a configuration source", 1), (CONTROLLER_DOWN, CONTROLLER_DOWN, 3)],
)
def test_no_controller_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, quoted: str, attempts: int
) -> None:
    """Where no cluster is configured, waiting for an answer is in vain."""
    fake_command(tmp_path, "squeue", words)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(LaunchError) as refused:
        queue.own_jobs(patience=(0.0, 0.0))
    assert str(refused.value) == (
        f"squeue --me reaches no SLURM controller ({quoted}). Is this a login node of the cluster? "
        "launch=local trains on this machine, launch.dry_run=true prints the scripts."
    )
    assert len((tmp_path / "asked").read_text().splitlines()) == attempts


def test_other_refusals_keep_their_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_command(tmp_path, "sbatch", "sbatch: error: invalid partition specified: nowhere")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(LaunchError, match=r"sbatch --test-only failed: sbatch: error: invalid partition .*: nowhere$"):
        queue.call("sbatch", "--test-only", patience=())


def test_a_sweep_without_a_controller_is_refused_before_a_folder_is_made(
    folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sbatch", "squeue", "scontrol"):
        fake_command(tmp_path, name, NO_CLUSTER.replace("squeue", name))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert train.main(["-m", "scale=smoke", "launch=slurm", "seed=0,1"]) == train.REFUSED
    assert "error: scontrol show reaches no SLURM controller (Could not establish" in capsys.readouterr().err
    assert list(folders.glob("*")) == []


def test_status_without_a_controller_shows_what_the_folders_say(
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_command(tmp_path, "squeue", NO_CLUSTER)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_run(folders, 1, State.queued, slurm_job_id="5_0")
    assert manage.main(["status"]) == 0
    assert "1 queued" in capsys.readouterr().out
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("states are those of the run folders: squeue --me reaches no SLURM controller (Could not")
    assert "Is this a login node of the cluster?" in said
