"""status, watch, retry and cancel, as they act on run folders; tests/e2e has them with workers at work."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run, fake_sweep

from moe_sweeps.cli import runs as commands
from moe_sweeps.cli import watching
from moe_sweeps.cli.manage import main
from moe_sweeps.rundir import Failure, RunDir, State

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


def test_status_shows_sweeps_and_runs(sweep: list[RunDir], capsys: Capture) -> None:
    assert main(["status"]) == 1  # one failed
    shown = capsys.readouterr().out
    assert "aaaaaaaaaaaa  fakes  2026-11-25 00:00" in shown
    assert "1 done, 1 failed, 1 planned, 1 preempted" in shown
    assert "2 done, 1 failed, 1 planned, 1 preempted" in shown
    assert "fake-000000000f00" in shown


@pytest.mark.parametrize("word", ["fakes", "aaaa", "aaaaaaaaaaaa"])
def test_status_of_a_sweep_calls_runs_by_their_arms(sweep: list[RunDir], capsys: Capture, word: str) -> None:
    main(["status", word])
    shown = capsys.readouterr().out
    assert "arm=3" in shown
    assert "000000000f00" not in shown


def test_status_of_a_run(sweep: list[RunDir], capsys: Capture) -> None:
    assert main(["status", "000000000f00"]) == 0
    assert "1 done" in capsys.readouterr().out
    assert main(["status", "nonsense"]) == 2
    assert "no run in" in capsys.readouterr().err


def test_a_name_of_two_sweeps_is_refused(folders: Path, sweep: list[RunDir], capsys: Capture) -> None:
    fake_sweep(folders, sweep[:2], sweep_id="bbbbbbbbbbbb")
    assert main(["cancel", "fakes"]) == 2
    assert "fakes means 2 sweeps. Give the id of one:" in capsys.readouterr().err
    assert State.cancelled not in states(sweep)


def test_planned_runs_without_a_folder_are_said(folders: Path, sweep: list[RunDir], capsys: Capture) -> None:
    sweep[2].path.rename(folders / "gone")
    main(["status", "fakes"])
    assert "1 planned runs have no folder" in capsys.readouterr().out


def test_status_of_a_thousand_runs_lists_those_that_matter(folders: Path, capsys: Capture) -> None:
    for n in range(60):
        fake_run(folders, n, State.failed if n == 5 else State.done)
    main(["status"])
    shown = capsys.readouterr().out
    assert "59 done, 1 failed" in shown
    assert shown.count("fake-00000000") == 2  # its row, and its reason
    main(["status", "--all"])
    assert capsys.readouterr().out.count("fake-00000000") == 61


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


def test_make_ready_keeps_the_summary_of_a_diverged_run(folders: Path) -> None:
    failure = Failure("E", "m", "s")
    folder = fake_run(folders, 1, State.diverged, attempt=2, deaths=2, death_step=7, step=50, failure=failure)
    folder.write_summary({"diverged_at_step": 50})
    folder.request_cancel()
    commands.make_ready(folder)
    status = folder.status()
    assert (status.state, status.deaths, status.death_step, status.failure) == (State.preempted, 0, -1, None)
    assert json.loads((folder.path / "summary.attempt-2.json").read_text()) == {"diverged_at_step": 50}
    assert folder.summary() is None
    assert not folder.cancel_requested


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
