"""What a person reads of runs that train: the live table, lines without a terminal, failures by cause."""

from __future__ import annotations

import io
import os
import shutil
import socket
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from unit.cli.fake_runs import CONFIG, fake_run

from moe_sweeps.cli.follow import SweepView, headline, print_failures, status_table
from moe_sweeps.launch.follow import LOST, Follower, RunRow, duration
from moe_sweeps.records.rundir import Failure, RunDir, State

HERE = {"host": socket.gethostname(), "pid": os.getpid()}


def recorder() -> Console:
    return Console(file=io.StringIO(), width=140, color_system=None)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines(console: Console) -> list[str]:
    return [" ".join(line.split()) for line in text(console).splitlines()]


@pytest.fixture
def runs(tmp_path: Path) -> list[tuple[str, RunDir]]:
    return [(name, fake_run(tmp_path, number)) for number, name in enumerate(("aux", "lossfree", "[none]"))]


def test_the_live_table(tmp_path: Path, runs: list[tuple[str, RunDir]]) -> None:
    fake_run(tmp_path, 0, State.running, step=40, tokens_per_step=128, tokens_per_second=64.0, **HERE)
    fake_run(tmp_path, 1, State.done, step=100, loss=3.25, maxvio=0.125, tokens_per_second=1e4, tokens_per_step=128)
    console = recorder()
    console.print(status_table(Follower(runs).read(), narrow=True))
    shown = lines(console)
    # 60 steps of 128 tokens at 64 tokens/s, then the one that waits, as fast as the median run: 100 steps of 1.0064 s
    assert shown[0] == "1 running, 1 done, 1 planned 64 tokens/s about 3.7 min left"
    assert "aux running 40/100 - - 64 2.0 min" in shown[2].replace("120 s", "2.0 min")
    assert "lossfree done 100/100 3.2500 0.12 10,000" in shown
    assert "[none] planned 0/100 - - -" in shown


def test_marks_of_a_run_stand_beside_its_state(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, 0, State.done, step=100, collapsed=True, code_changed=True)
    console = recorder()
    console.print(status_table(Follower([("aux", folder)]).read()))
    assert "done (router collapsed) (code changed since submission)" in text(console)


def test_of_a_long_sweep_those_that_need_attention_are_shown(tmp_path: Path) -> None:
    runs = [(f"run{n}", fake_run(tmp_path, n, State.done)) for n in range(30)]
    fake_run(tmp_path, 7, State.failed, failure=Failure("E", "m", "s"))
    fake_run(tmp_path, 9, State.running, **HERE)
    console = recorder()
    console.print(status_table(Follower(runs).read(), most=10))
    shown = lines(console)
    assert shown[0].startswith("28 done, 1 failed, 1 running")
    assert [line.split()[0] for line in shown[2:4]] == ["run9", "run7"]
    assert shown[4] == "and 28 more"


def test_without_a_terminal_changes_of_state_are_lines(tmp_path: Path, runs: list[tuple[str, RunDir]]) -> None:
    console = recorder()
    died = Failure("WorkerDied", "the worker process ended by SIGKILL", "died: SIGKILL")
    with SweepView(console, runs) as view:
        fake_run(tmp_path, 1, State.done, step=100, loss=3.25)
        view.tick()
        view.tick()
        fake_run(tmp_path, 0, State.preempted, step=7, failure=died)
        view.tick()
        fake_run(tmp_path, 0, State.running, step=5, attempt=2, **HERE)
    assert text(console).splitlines() == [
        "lossfree: done, step 100/100, train loss 3.2500",
        "aux: preempted, step 7/100, train loss - (the worker process ended by SIGKILL)",
        "aux: running (attempt 2), step 5/100, train loss -",
        "",
    ]


def test_once_a_minute_there_is_a_headline(runs: list[tuple[str, RunDir]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_sweeps.cli.follow.REPORT_SECONDS", 0.0)
    console = recorder()
    SweepView(console, runs).tick()
    assert text(console) == "3 planned\n"


def fail(folder: RunDir, message: str, signature: str = "ValueError in router.py:forward") -> None:
    error = ValueError(message)
    folder.record_failure(error)
    status = folder.status()
    status.state, status.failure = State.failed, Failure("ValueError", message, signature)
    folder.write_status(status)


def test_failures_are_grouped_by_cause_with_one_traceback_each(tmp_path: Path) -> None:
    runs = [(f"run{n}", fake_run(tmp_path, n)) for n in range(4)]
    for n in (0, 2, 3):
        fail(runs[n][1], "[too] hot")
    fail(runs[1][1], "earlier")
    fail(runs[1][1], "no luck", "ValueError in trainer.py:save")
    console = recorder()
    assert print_failures(console, Follower(runs).read()) == 4
    shown = text(console).splitlines()
    assert shown[:5] == [
        "failed: 3 runs, ValueError in router.py:forward",
        "  run0",
        "  run2",
        "  run3",
        "  all: ValueError: [too] hot",
    ]
    assert text(console).count("ValueError: [too] hot") == 2  # the message and one traceback
    assert "failed: 1 run, ValueError in trainer.py:save" in shown
    assert "  run1: ValueError: no luck" in shown
    assert "earlier" not in text(console)
    assert shown[-1].startswith("Fixed it? `moe-sweeps retry`")


def test_runs_that_failed_alike_keep_their_own_messages(tmp_path: Path) -> None:
    runs = [(f"run{n}", fake_run(tmp_path, n)) for n in range(2)]
    for n, (_, folder) in enumerate(runs):
        fail(folder, f"token {n}")
    console = recorder()
    print_failures(console, Follower(runs).read())
    assert "  run0: ValueError: token 0" in text(console)
    assert "  run1: ValueError: token 1" in text(console)


def test_a_folder_that_is_gone_does_not_hide_the_others(tmp_path: Path, runs: list[tuple[str, RunDir]]) -> None:
    shutil.rmtree(runs[0][1].path)
    (runs[1][1].path / "status.json").write_text("{")
    console = recorder()
    rows = Follower(runs).read()
    assert headline(rows) == "1 damaged, 2 planned"
    console.print(status_table(rows))
    assert "status.json was lost; rebuilt from other files" in text(console)
    assert print_failures(console, rows) == 1
    assert "its folder is gone, or closed to you" in text(console)


def test_durations() -> None:
    assert [duration(s) for s in (45, 192, 18_400)] == ["about 45 s", "about 3.2 min", "about 5.1 h"]


def a_fork(root: Path, number: int, trunk: RunDir) -> RunDir:
    """An arm that waited for its job."""
    folder = fake_run(root, number, State.queued, slurm_job_id="7_0")
    fork = {"step": 5, "role": "arm", "run": trunk.run_id}
    (folder.path / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"fork": fork}))
    return folder


IS_THE_CAUSE = (State.failed, State.diverged, State.cancelled, State.preempted)


@pytest.mark.parametrize("ended", [*IS_THE_CAUSE, State.done, State.running, State.queued, State.planned])
def test_a_job_that_is_gone_before_it_began_is_no_dead_worker(tmp_path: Path, ended: State) -> None:
    """SLURM removed it with its trunk's, or somebody took it out of the queue. Two arms of a trunk are one cause."""
    trunk = fake_run(tmp_path, 1, ended, heartbeat=time.time(), **HERE)
    folders = [fake_run(tmp_path, 0, State.queued, slurm_job_id="6_0"), *(a_fork(tmp_path, n, trunk) for n in (2, 3))]
    rows = [RunRow(f"run{n}", f, f.status(), LOST, "CANCELLED") for n, f in enumerate(folders)]
    console = recorder()
    print_failures(console, rows)
    said = text(console)
    gone = "its job is gone and has trained nothing (SLURM says CANCELLED); run the same command again to submit it"
    by_trunk = f"its trunk {trunk.path.name} is {ended}, so SLURM removed its job (SLURM says CANCELLED)"
    assert "died" not in said
    assert f"lost: {1 if ended in IS_THE_CAUSE else 3} run" in said
    assert gone in said
    assert (f"lost: 2 runs, {by_trunk}; run the same command again to submit it" in said) == (ended in IS_THE_CAUSE)


def test_a_trunk_that_was_lost_is_the_cause(tmp_path: Path) -> None:
    """Its folder says that it trains, but its process is gone."""
    trunk = fake_run(tmp_path, 1, State.running, host=socket.gethostname(), pid=2**22 + 1)
    folder = a_fork(tmp_path, 2, trunk)
    console = recorder()
    print_failures(console, [RunRow("run", folder, folder.status(), LOST)])
    assert f"its trunk {trunk.path.name} is lost, so SLURM removed its job" in text(console)


def test_a_job_that_went_back_to_the_queue_and_is_gone_has_trained(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, 0, State.queued, slurm_job_id="6_0", attempt=1, step=30)
    console = recorder()
    print_failures(console, [RunRow("run", folder, folder.status(), LOST, "CANCELLED")])
    assert "its job is gone (SLURM says CANCELLED); run the same command again to resume" in text(console)


def test_a_trunk_without_a_folder_is_no_traceback(tmp_path: Path) -> None:
    trunk = fake_run(tmp_path, 1)
    folder = a_fork(tmp_path, 2, trunk)
    shutil.rmtree(trunk.path)
    console = recorder()
    print_failures(console, [RunRow("run", folder, folder.status(), LOST)])
    assert "its job is gone and has trained nothing; run the same command again" in text(console)
