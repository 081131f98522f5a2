"""status, watch, retry and cancel, as they act on run folders; tests/e2e has them with workers at work."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TINY, compose_run
from unit.cli import fake_runs
from unit.cli.fake_runs import fake_run, fake_sweep

from moe_sweeps.cli import runs as commands
from moe_sweeps.cli import watching
from moe_sweeps.cli.manage import main
from moe_sweeps.errors import ConfigError, LaunchError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.host.files import write_json
from moe_sweeps.host.machine_memory import OUT_OF_MEMORY, VMSTAT, oom_kills
from moe_sweeps.records.rundir import Failure, RunDir, State, Status

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def sweep(folders: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """done, failed, planned, preempted; a run of no sweep beside them."""
    monkeypatch.setenv("COLUMNS", "140")
    states = (State.done, State.failed, State.planned, State.preempted)
    members = [fake_run(folders, n + 1, state, attempt=1) for n, state in enumerate(states)]
    fake_sweep(folders, members)
    fake_run(folders, 0xF00, State.done)
    return members


def states(folders: list[RunDir]) -> list[State]:
    return [folder.status().state for folder in folders]


def test_without_runs_there_is_a_message(folders: Path, capsys: Capture) -> None:
    for command in (["status"], ["watch"], ["retry"], ["cancel", "--all"]):
        assert main(command) == 2
        assert "there are no runs" in capsys.readouterr().err


def test_a_name_of_two_sweeps_is_refused(folders: Path, sweep: list[RunDir], capsys: Capture) -> None:
    fake_sweep(folders, sweep[:2], sweep_id="bbbbbbbbbbbb")
    assert main(["cancel", "fakes"]) == 2
    assert "fakes means 2 sweeps. Give the id of one:" in capsys.readouterr().err
    assert State.cancelled not in states(sweep)


def test_cancel_needs_to_know_what(sweep: list[RunDir], capsys: Capture) -> None:
    assert main(["cancel"]) == 2
    assert "cancel what?" in capsys.readouterr().err


def test_cancel_leaves_results_alone(sweep: list[RunDir], capsys: Capture) -> None:
    assert main(["cancel", "fakes"]) == 0
    assert states(sweep) == [State.done, State.cancelled, State.cancelled, State.cancelled]
    assert not any(folder.cancel_requested for folder in sweep)
    assert "1 done, 3 cancelled" in capsys.readouterr().out


def test_cancel_of_one_run(sweep: list[RunDir]) -> None:
    assert main(["cancel", sweep[2].run_id]) == 0
    assert states(sweep) == [State.done, State.failed, State.cancelled, State.preempted]


def test_cancel_of_a_run_in_other_hands_leaves_a_request(
    folders: Path, sweep: list[RunDir], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "CANCEL_SECONDS", 0.0)
    fake_run(folders, 3, State.running, host=socket.gethostname(), pid=1)
    far = fake_run(folders, 0xFA, State.running, host="far away", pid=1)
    with sweep[2].lock():
        assert main(["cancel", sweep[2].run_id, far.run_id]) == 0
    shown = capsys.readouterr().out
    assert shown.count("its worker stops after its current step") == 2
    assert sweep[2].cancel_requested
    assert far.cancel_requested  # its lock may not reach to this host, so its state is its worker's to write
    assert far.status().state is State.running


def not_allowed(folder: RunDir) -> Callable[[RunDir], None]:
    """In the place of a method of RunDir: `folder` belongs to somebody else."""

    def checked(run: RunDir) -> None:
        if run == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(run.path / "status.json"))

    return checked


def test_a_run_of_somebody_else_does_not_stop_cancel(
    sweep: list[RunDir], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, request = not_allowed(sweep[1]), RunDir.request_cancel
    monkeypatch.setattr(RunDir, "request_cancel", lambda run: (refused(run), request(run)))
    assert main(["cancel", "fakes"]) == 1
    assert states(sweep) == [State.done, State.failed, State.cancelled, State.cancelled]
    assert f"{sweep[1].path}/status.json (owner: " in capsys.readouterr().out.replace("\n", "")


def test_a_run_of_somebody_else_does_not_stop_retry(
    folders: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [fake_run(folders, n, State.failed, attempt=1) for n in range(3)]
    refused, drop = not_allowed(runs[0]), RunDir.drop_cancel_request
    monkeypatch.setattr(RunDir, "drop_cancel_request", lambda run: (refused(run), drop(run)))
    monkeypatch.setattr(commands, "require_trainable", lambda _: None)
    trained: list[RunDir] = []
    monkeypatch.setattr(commands, "_retry_here", lambda _, rows, __: trained.extend(row.folder for row in rows))
    assert main(["retry"]) == 1
    assert trained == runs[1:]
    assert states(runs) == [State.failed, State.preempted, State.preempted]
    assert "is closed to you: Permission denied" in capsys.readouterr().out


def test_cancel_goes_on_where_slurm_does_not_answer(
    sweep: list[RunDir], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "cancel_pending", refuse(LaunchError("squeue: no answer within 8 s")))
    assert main(["cancel", "fakes"]) == 0
    assert states(sweep) == [State.done, State.cancelled, State.cancelled, State.cancelled]
    assert "waiting jobs stay in SLURM's queue, and end at once when they start: squeue: no answer" in caplog.text


def test_cancel_leaves_a_request_where_a_lock_cannot_be_taken(
    sweep: list[RunDir], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "CANCEL_SECONDS", 0.0)
    (sweep[1].path / ".lock").unlink(missing_ok=True)
    (sweep[1].path / ".lock").mkdir()
    assert main(["cancel", "fakes"]) == 0
    assert states(sweep) == [State.done, State.failed, State.cancelled, State.cancelled]
    assert sweep[1].cancel_requested


@pytest.mark.parametrize("workers", [0, -1])
def test_retry_needs_a_worker(sweep: list[RunDir], capsys: Capture, workers: int) -> None:
    assert main(["retry", f"--workers={workers}"]) == 2
    assert f"--workers={workers} is refused: at least one process trains." in capsys.readouterr().err
    assert states(sweep)[1] is State.failed


def test_a_pruned_trial_is_called_that_however_it_is_named(folders: Path, capsys: Capture) -> None:
    trial = fake_run(folders, 1, State.preempted, attempt=1, step=30, paused_at=30)
    fake_sweep(folders, [trial])
    path = folders / "sweeps" / "aaaaaaaaaaaa" / "manifest.json"
    content = json.loads(path.read_text())
    content["runs"][trial.run_id]["pruned"] = 30
    write_json(path, content)
    for named in (trial.run_id, "fakes"):
        assert main(["status", named]) == 0
        assert "1 pruned" in capsys.readouterr().out


def test_retry_leaves_out_runs_in_other_hands_and_says_in_which_jobs_the_others_ended(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """One that only looks lost may be trained by its job, so that one is not said to have ended."""
    monkeypatch.setitem(fake_runs.CONFIG, "launch", {"kind": "slurm"})
    monkeypatch.setattr(commands, "with_queue", list)
    monkeypatch.setattr(commands, "require_trainable", lambda _: None)  # their configs are made up
    submitted: list[tuple[list[str], dict[str, str | None]]] = []

    def resubmit(console: object, runs: list[RunDir], root: Path, ended_in: dict[str, str | None]) -> None:
        submitted.append(([run.run_id[-1] for run in runs], {name[-1]: job for name, job in ended_in.items()}))

    monkeypatch.setattr("moe_sweeps.cli.slurm.resubmit", resubmit)
    fake_run(folders, 1, State.failed, slurm_job_id="7_1")
    fake_run(folders, 2, State.running, attempt=1, slurm_job_id="7_2", host=socket.gethostname(), pid=None)
    fake_run(folders, 3, State.failed)  # its job went back to the queue without it
    busy = fake_run(folders, 4, State.failed, slurm_job_id="7_4")
    with busy.lock():
        assert main(["retry"]) == 1
    assert busy.run_id in capsys.readouterr().out
    assert busy.status().state is State.failed
    assert submitted == [(["1", "2", "3"], {"1": "7_1", "3": None})]


def refuse(error: BaseException) -> Callable[..., int]:
    def refused(*_: object) -> int:
        raise error

    return refused


@pytest.mark.parametrize(
    ("kind", "where", "error", "code"),
    [
        ("slurm", "moe_sweeps.cli.slurm.resubmit", LaunchError("sbatch refused"), 2),
        ("local", "moe_sweeps.cli.runs._retry_here", ConfigError("trainer.steps", 1, "no", "fix"), 2),
        ("local", "moe_sweeps.cli.runs._retry_here", KeyboardInterrupt(), 130),
    ],
)
@pytest.mark.parametrize("state", [State.failed, State.cancelled, State.diverged])
def test_a_retry_that_is_refused_leaves_the_runs_as_they_were(
    folders: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str, error: BaseException, code: int, state: State
) -> None:
    """Else the same command would find nothing to retry, and the cause would be forgotten."""
    monkeypatch.setitem(fake_runs.CONFIG, "launch", {"kind": kind})
    monkeypatch.setattr(commands, "require_trainable", lambda _: None)
    monkeypatch.setattr(where, refuse(error))
    run = fake_run(folders, 1, state, attempt=2, deaths=1, death_step=7, failure=Failure("E", "m", "s"))
    run.write_summary({"diverged_at_step": 50})
    run.update_provenance(snapshot="code/1")
    before = run.status()
    for _ in range(2):
        assert main(["retry", "--cancelled", "--diverged", "--current-code"]) == code
        assert run.status() == before
        assert run.summary() == {"diverged_at_step": 50}
        assert run.provenance()["snapshot"] == "code/1"


def test_what_has_begun_before_a_retry_is_stopped_is_not_put_back(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some were submitted, or stopped by Ctrl-C after a new attempt had begun."""
    monkeypatch.setattr(commands, "require_trainable", lambda _: None)
    runs = [fake_run(folders, n, State.failed, attempt=1) for n in range(3)]

    def interrupted(*_: object) -> int:
        runs[0].write_status(Status(State.queued, attempt=1, slurm_job_id="7_0"))
        runs[1].write_status(Status(State.preempted, attempt=2, step=30))
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_retry_here", interrupted)
    assert main(["retry"]) == 130
    assert states(runs) == [State.queued, State.preempted, State.failed]
    assert runs[1].status().step == 30


def test_a_run_that_cannot_be_trained_is_left_out_of_a_retry_before_it_is_made_ready(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """One was edited; one needs more ranks than its batch divides into."""
    runs = [freeze(compose_run(*TINY, "launch=slurm_cpu", f"seed={n}"), [], command="test") for n in range(2)]
    runs.append(freeze(compose_run(*TINY, "launch=slurm_cpu", "launch.tasks_per_node=3", "seed=2"), [], command="test"))
    for run in runs:
        run.write_status(Status(State.failed, attempt=1, total_steps=24))
    text = (runs[1].path / "config.yaml").read_text()
    (runs[1].path / "config.yaml").write_text(text.replace("steps: 24", "steps: 25"))
    submitted: list[str] = []
    monkeypatch.setattr(
        "moe_sweeps.cli.slurm.resubmit", lambda _, folders, *__: submitted.extend(f.path.name for f in folders)
    )
    assert main(["retry"]) == 1
    assert submitted == [runs[0].path.name]
    assert states(runs) == [State.preempted, State.failed, State.failed]
    shown = capsys.readouterr().out
    assert f"{runs[1].path}: config.yaml was edited" in shown
    assert f"{runs[2].path.name} is left out: trainer.batch_size=4 is refused" in shown


def test_retry_without_failed_runs_says_so(folders: Path, capsys: Capture) -> None:
    fake_run(folders, 1, State.diverged)
    assert main(["retry"]) == 0
    assert "no run is failed or lost; nothing to retry" in capsys.readouterr().out


def test_watch_ends_when_all_is_over(folders: Path, capsys: Capture) -> None:
    fake_run(folders, 1, State.done)
    assert main(["watch"]) == 0
    assert "1 done" in capsys.readouterr().out
    fake_run(folders, 2, State.cancelled)
    assert main(["watch"]) == 1


def test_watch_ends_when_nobody_trains(folders: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "IDLE_SECONDS", 0.0)
    fake_run(folders, 1, State.preempted)
    assert main(["watch"]) == 1
    assert "Nothing is being trained." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"), [(["--done"], "Name sweeps or runs"), (["--other-code"], "--done --other")]
)
def test_which_finished_runs_are_trained_again_must_be_said(
    sweep: list[RunDir], capsys: Capture, options: list[str], said: str
) -> None:
    before = [folder.status() for folder in sweep]
    assert main(["retry", *options]) == 2
    assert said in capsys.readouterr().err
    assert [folder.status() for folder in sweep] == before


@pytest.mark.parametrize(("counted_before", "said"), [(1, True), (0, False)])
def test_a_lost_run_that_the_kernel_killed_is_called_that(
    folders: Path, capsys: Capture, counted_before: int, said: bool
) -> None:
    now = oom_kills()
    file = next((name for name in now if name.endswith(VMSTAT)), None)
    if file is None:
        pytest.skip("this kernel counts no kills for want of memory")
    before = {file: now[file] - counted_before}
    gone = fake_run(folders, 1, State.running, attempt=1, host=socket.gethostname(), pid=2**22 + 1, oom_kills=before)
    assert main(["status"]) in (0, 1)
    shown = " ".join(capsys.readouterr().out.split())
    assert gone.path.name in shown
    assert (f"its worker was {OUT_OF_MEMORY}, most likely" in shown) == said
    assert ("its worker died without a traceback" in shown) != said
