"""The worker: whatever happens to a run stands in its folder afterwards."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from helpers import TINY, compose_run

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import RunBusyError
from moe_sweeps.freeze import freeze
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.trainer import Trainer
from moe_sweeps.worker import run_worker


class StopAfter:
    """An observer that sends the process a signal once training has come to a step."""

    def __init__(self, step: int, signum: signal.Signals) -> None:
        self.step, self.signum = step, signum

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.signum)

    def alive(self, step: int) -> None: ...


@pytest.fixture
def folder(folders: Path, real_data: TokenData) -> RunDir:
    return freeze(compose_run(*TINY), [], command="test")


def test_a_finished_run_is_done_and_not_trained_again(folder: RunDir) -> None:
    assert run_worker(folder) is State.done
    status = folder.status()
    assert (status.state, status.step, status.total_steps, status.attempt) == (State.done, 24, 24, 1)
    assert status.host is not None
    written = (folder.path / "summary.json").stat().st_mtime_ns
    assert run_worker(folder) is State.done
    assert (folder.path / "summary.json").stat().st_mtime_ns == written
    assert folder.status().attempt == 1


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
    os.environ["MOE_SWEEPS_RUNS"] = str(folder.path.parent)
    assert run_worker(folder) is State.done
    assert folder.status().failure is None


def test_a_run_in_other_hands_is_left_alone(folder: RunDir) -> None:
    with folder.lock(), pytest.raises(RunBusyError):
        run_worker(folder)
    assert folder.status().state is State.planned


def test_provenance_names_code_data_pairing_and_machine(folder: RunDir) -> None:
    run_worker(folder)
    content = folder.provenance()
    assert content["packages"]["torch"]
    assert len(content["source_hash"]) == 12
    assert len(content["data_fingerprint"]) == 64
    assert content["pairing"].keys() == {"initial_weights", "batches"}
    assert [a["threads"] for a in content["attempts"]] == [1]


def test_changed_code_is_said(folder: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    folder.update_provenance(source_hash="older")
    run_worker(folder)
    assert "the training code changed since submission: older then" in caplog.text
