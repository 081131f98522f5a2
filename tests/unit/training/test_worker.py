"""The worker: whatever happens to a run stands in its folder afterwards."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import TINY, compose_run
from processes import wait_until

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import ConfigError, RunBusyError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.code_record import CodeRecord, records
from moe_sweeps.records.rundir import DamagedFile, RunDir, State, Status
from moe_sweeps.results.frame import load_runs
from moe_sweeps.training import heartbeat, stop_flag
from moe_sweeps.training.trainer import Trainer
from moe_sweeps.training.worker import run_worker


class StopAfter:
    """An observer that sends the process a signal once training has come to a step."""

    def __init__(self, step: int, signum: signal.Signals) -> None:
        self.step, self.signum = step, signum

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.signum)

    def alive(self, step: int) -> None: ...


@pytest.fixture
def folder(folders: Path, real_data: TokenData) -> Iterator[RunDir]:
    # A shell ignores SIGINT for what it starts in the background, and a worker honours that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield freeze(compose_run(*TINY), [], command="test")
    signal.signal(signal.SIGINT, before)


def test_a_finished_run_is_done_and_not_trained_again(folder: RunDir) -> None:
    assert run_worker(folder) is State.done
    status = folder.status()
    assert (status.state, status.step, status.total_steps, status.attempt) == (State.done, 24, 24, 1)
    assert status.host is not None
    written = (folder.path / "summary.json").stat().st_mtime_ns
    assert run_worker(folder) is State.done
    assert (folder.path / "summary.json").stat().st_mtime_ns == written
    assert folder.status().attempt == 1


@pytest.mark.parametrize(
    ("job", "restarts", "deaths"),
    [("7_3", "2", 0), ("7_3", "1", 1), ("7_4", "2", 1), (None, None, 1)],
)
def test_what_slurm_requeued_itself_is_no_death(
    folder: RunDir, monkeypatch: pytest.MonkeyPatch, job: str | None, restarts: str | None, deaths: int
) -> None:
    """The same job in a later start, whose worker and batch shell had no time for a word; anything else died."""
    folder.write_status(Status(State.running, attempt=1, total_steps=24, slurm_job_id="7_3", slurm_restarts=1))
    if job and restarts:
        for name, value in zip(("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), job.split("_"), strict=True):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert run_worker(folder) is State.done
    assert (folder.status().deaths, folder.status().slurm_job_id) == (deaths, job)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves_and_the_run_goes_on_later(folder: RunDir, signum: signal.Signals) -> None:
    handler = signal.getsignal(signum)
    assert run_worker(folder, StopAfter(8, signum)) is State.preempted
    assert signal.getsignal(signum) is handler
    assert folder.status().step == 8
    assert (folder.checkpoints / "step-00000008.json").exists()
    assert run_worker(folder) is State.done
    assert folder.status().attempt == 2


def test_a_failure_is_recorded_with_its_traceback(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Trainer) -> None:
        raise ValueError("the router is on fire")

    monkeypatch.setattr(Trainer, "_train_step", broken)
    with pytest.raises(ValueError, match="on fire"):
        run_worker(folder)
    status = folder.status()
    assert status.state is State.failed
    assert status.failure is not None
    assert (status.failure.type, status.failure.message) == ("ValueError", "the router is on fire")
    assert "the router is on fire" in (folder.path / "traceback.txt").read_text()
    monkeypatch.undo()
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(folder.path.parent))
    assert run_worker(folder) is State.done
    assert folder.status().failure is None


@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "folder"])
def test_a_log_that_is_no_file_fails_the_run_and_is_not_written_to(folder: RunDir, tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if kind == "link":
        elsewhere.write_text("mine")
    if kind == "FIFO":
        os.mkfifo(folder.log)
    elif kind == "folder":
        folder.log.mkdir()
    else:
        folder.log.symlink_to(elsewhere)
    assert folder.make_log() == folder.log
    said = "is a link, and links are not followed" if "link" in kind else "is not a regular file"
    with pytest.raises(DamagedFile, match=f"log.txt {said}"):
        run_worker(folder)
    status = folder.status()
    assert status.state is State.failed
    assert status.failure is not None
    assert f"log.txt {said}. Move the folder away" in status.failure.message
    assert elsewhere.exists() is (kind == "link")
    assert kind != "link" or elsewhere.read_text() == "mine"


def test_a_run_in_other_hands_is_left_alone(folder: RunDir) -> None:
    with folder.lock(), pytest.raises(RunBusyError):
        run_worker(folder)
    assert folder.status().state is State.planned


def test_provenance_names_code_data_pairing_and_machine(folder: RunDir) -> None:
    run_worker(folder)
    content = folder.provenance()
    assert content["packages"]["torch"]
    assert len(content["source_hash"]) == 12
    assert content["pairing"].keys() == {"initial_weights", "batches"}
    (attempt,) = content["attempts"]
    assert attempt["threads"] == 1
    assert len(attempt["data_fingerprint"]) == 64


def test_changed_code_is_said_and_shows_in_the_frame(folder: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    """The first attempt ran older code; the run that goes on with today's is of both."""
    now = CodeRecord(folder.provenance()["source_hash"], folder.provenance()["sources"])
    then = CodeRecord.of({**(now.files or {}), "optim/build.py": "0ld"})
    attempt = {"source_hash": then.version, "data_fingerprint": "d0"}
    folder.update_provenance(**then.entry(), attempts=[attempt])
    run_worker(folder)
    said = f"the training code changed since submission: {then.version} then, {now.version} now (optim/build.py)"
    assert said in caplog.text
    row = load_runs(folder.path.parent).frame.iloc[0]
    assert row["source_hash"] == f"{then.version}+{now.version}"
    assert records(folder.provenance()) == (then, now)
    assert row["data_fingerprint"].startswith("d0+")


class Twice(StopAfter):
    """Two signals within one step."""

    def __init__(self, step: int, signum: signal.Signals, seconds: float) -> None:
        super().__init__(step, signum)
        self.seconds = seconds

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        super().logged(step, values, tokens_per_second)
        if step == self.step:
            time.sleep(self.seconds)
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, True), (1.1 * stop_flag.SECOND_CTRL_C_SECONDS, False)])
def test_a_second_ctrl_c_stops_at_once_and_is_no_failure(folder: RunDir, seconds: float, saved: bool) -> None:
    """One that comes within milliseconds is the same one, passed on by `timeout` or a launcher."""
    assert run_worker(folder, Twice(8, signal.SIGINT, seconds)) is State.preempted
    assert folder.status().failure is None
    assert (folder.checkpoints / "step-00000008.json").exists() is saved
    assert run_worker(folder) is State.done


def test_other_signals_that_come_twice_still_save(folder: RunDir) -> None:
    assert run_worker(folder, Twice(8, signal.SIGTERM, 1.1 * stop_flag.SECOND_CTRL_C_SECONDS)) is State.preempted
    assert folder.status().step == 8


def test_a_signal_handler_says_nothing_itself(folder: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    """It may interrupt the very write that it would then begin anew; the heartbeat says it, at once."""
    names = []

    class Sayer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names.append((record.threadName, record.getMessage()[:8]))

    caplog.set_level(logging.INFO)
    logging.getLogger().addHandler(sayer := Sayer())
    try:
        run_worker(folder, Twice(8, signal.SIGTERM, 0.3))
    finally:
        logging.getLogger().removeHandler(sayer)
    assert [name for name, text in names if text == "stopping"] == ["heartbeat"]


def test_who_follows_a_run_hears_of_every_step(folder: RunDir) -> None:
    class Steps:
        def __init__(self) -> None:
            self.alive_at: list[int] = []
            self.logged_at: list[int] = []

        def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
            self.logged_at.append(step)

        def alive(self, step: int) -> None:
            self.alive_at.append(step)

    steps = Steps()
    run_worker(folder, steps)
    total = folder.config()["trainer"]["steps"]
    assert steps.alive_at == list(range(1, total + 1))
    assert steps.logged_at == [step for step in steps.alive_at if step % 4 == 0]


def test_an_ignored_signal_stays_ignored(folder: RunDir) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_worker(folder, StopAfter(8, signal.SIGINT)) is State.done
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_doubt_is_freed_by_asking_again(folders: Path, real_data: TokenData) -> None:
    """engine.device is no part of the identity, so the corrected line must not meet the old frozen value."""
    folder = freeze(compose_run(*TINY, "engine.device=cuda"), [], command="test")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            run_worker(folder)
    again = freeze(compose_run(*TINY, "engine.device=cpu", "trainer.log_every=2"), [], command="test")
    assert again == folder
    assert folder.config()["trainer"]["log_every"] == 2
    assert run_worker(again) is State.done
    frozen = folder.config()
    freeze(compose_run(*TINY, "trainer.log_every=3"), [], command="test")
    assert folder.config() == frozen  # a finished run is never touched


def test_the_threads_of_the_first_attempt_count(folders: Path, real_data: TokenData) -> None:
    line = [setting for setting in TINY if not setting.startswith("launch.threads")]
    folder = freeze(compose_run(*line, "launch.threads=1"), [], command="test")
    assert run_worker(folder, StopAfter(8, signal.SIGTERM)) is State.preempted
    freeze(compose_run(*line), [], command="test", threads=2)
    assert folder.config()["launch"]["threads"] == 1
    freeze(compose_run(*line, "launch.threads=2"), [], command="test")
    assert folder.config()["launch"]["threads"] == 2


def test_a_request_to_cancel_stops_after_the_step_and_saves(folders: Path, real_data: TokenData) -> None:
    folder = freeze(compose_run(*TINY, "trainer.steps=100000", "trainer.checkpoint_every=100000"), [], command="test")

    class Cancel(StopAfter):
        def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
            if step == self.step:
                folder.request_cancel()

    assert run_worker(folder, Cancel(8, signal.SIGTERM)) is State.cancelled
    status = folder.status()
    assert status.state is State.cancelled
    assert (folder.checkpoints / f"step-{status.step:08d}.json").exists()
    assert not folder.cancel_requested
    assert run_worker(folder) is State.cancelled  # it stays so
    assert folder.status().attempt == 1


def test_a_run_that_was_cancelled_while_it_waited_never_begins(folder: RunDir) -> None:
    folder.request_cancel()
    assert run_worker(folder) is State.cancelled
    assert folder.status().attempt == 0


def test_the_heart_beats_during_a_long_step(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STATUS_SECONDS", 0.05)
    beats = []

    class Slow(StopAfter):
        def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
            if step == 8:
                beats.append(folder.status().heartbeat)
                for _ in range(3):
                    wait_until(lambda: folder.status().heartbeat > beats[-1])
                    beats.append(folder.status().heartbeat)

    run_worker(folder, Slow(8, signal.SIGTERM))
    assert len(beats) == 4  # that of the step before, and three more


def test_a_death_is_counted_by_the_next_attempt_and_its_leftovers_are_removed(folder: RunDir) -> None:
    folder.write_status(Status(State.running, attempt=1, total_steps=24, pid=4_000_000, host="here"))
    for left_over in (folder.path / ".status.json.1.a.tmp", folder.checkpoints / ".step-00000005.pt.1.a.tmp"):
        left_over.write_text("half")
    assert run_worker(folder) is State.done
    status = folder.status()
    assert (status.attempt, status.deaths, status.started_step) == (2, 1, 0)
    assert not list(folder.path.rglob("*.tmp"))
    assert not (folder.path / ".reserve").exists()


def test_changed_code_stands_in_the_status(folder: RunDir) -> None:
    folder.update_provenance(source_hash="older", sources=None)  # of a release that kept one hash over all files
    run_worker(folder)
    assert folder.status().code_changed


def test_a_worker_that_runs_what_was_submitted_keeps_its_files_once(folder: RunDir) -> None:
    run_worker(folder)
    content = folder.provenance()
    assert not folder.status().code_changed
    assert content["attempts"][0]["source_hash"] == content["source_hash"]
    assert "sources" not in content["attempts"][0]
    assert content["sources"]["training/trainer.py"]
