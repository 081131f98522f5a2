"""A worker of several processes: it stops, dies, fails and goes on as one process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dist.processes import environment, run_on_ranks
from helpers import TINY, compose_run, records, without_times
from processes import wait_until

from moe_sweeps.training.checkpoint import Checkpoints
from moe_sweeps.cli.train import main
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed.ranks import Ranks
from moe_sweeps.errors import RunBusyError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.training.trainer import Trainer
from moe_sweeps.training.worker import run_worker

# Draws random numbers, so that the stream of every process counts.
LINE = [
    *TINY,
    "balancer=lossfree",
    "router.noise=learned",
    "router.input_dropout=0.1",
    "trainer.micro_batch_size=1",
    "trainer.log_every=3",
]


def work(ranks: Ranks, folder: Path) -> State:
    return run_worker(RunDir(folder), ranks=ranks)


def at_step(step: int, action: Any) -> None:
    """Do something after the training step with this number, in this process alone."""
    plain = Trainer._train_step

    def train_step(self: Trainer) -> dict[str, torch.Tensor]:
        values = plain(self)
        action() if self.step == step else None
        return values

    Trainer._train_step = train_step  # type: ignore[method-assign]


def stopped_on_the_last_rank(ranks: Ranks, folder: Path) -> State:
    if ranks.rank == ranks.size - 1:
        at_step(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    return work(ranks, folder)


def killed_on_the_last_rank(ranks: Ranks, folder: Path) -> State:
    if ranks.rank == ranks.size - 1:
        at_step(12, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return work(ranks, folder)


def cancelled_from_outside(ranks: Ranks, folder: Path) -> State:
    def cancel() -> None:
        run = RunDir(folder)
        run.request_cancel()
        for _ in range(2):  # the first process looks for requests at its heartbeats; one may be on its way
            before = run.status().heartbeat
            wait_until(lambda last=before: run.status().heartbeat != last)  # type: ignore[misc]

    if ranks.is_first:
        at_step(3, cancel)
    return work(ranks, folder)


def on_fire() -> None:
    raise ValueError("the router is on fire")


def raises_on_the_last_rank(ranks: Ranks, folder: Path) -> State:
    if ranks.rank == ranks.size - 1:
        at_step(3, on_fire)
    return work(ranks, folder)


def frozen(*line: str) -> RunDir:
    return freeze(compose_run(*LINE, *line), [], command="test")


def result(folder: RunDir) -> list[Any]:
    found = Checkpoints(folder.checkpoints, 2).load_latest(torch.device("cpu"))
    assert found is not None
    weights = found[1]["model"] | found[1]["balancer"]
    bits = {name: tensor.numpy().tobytes() for name, tensor in weights.items()}
    return [without_times(folder.summary()), records(folder), records(folder, "routing.jsonl"), bits]


@pytest.mark.parametrize(("size", "parallel"), [(2, "ddp"), (3, "ddp"), (3, "fsdp")])
def test_stopped_killed_and_resumed_is_bit_identical(
    folders: Path, real_data: TokenData, size: int, parallel: str
) -> None:
    """A signal that one process gets stops all of them after the same step. With three, the order of sums counts."""
    line = f"trainer.batch_size={2 * size}", f"engine.parallel={parallel}"
    folder = frozen(*line)
    assert run_on_ranks(work, size, folder.path) == [State.done] * size
    expected = result(folder)
    folder.path.rename(folders / "undisturbed")
    folder = frozen(*line)
    assert run_on_ranks(stopped_on_the_last_rank, size, folder.path) == [State.preempted] * size
    assert folder.status().state is State.preempted
    assert Checkpoints(folder.checkpoints, 2).steps()[-1] == folder.status().step == 7
    ends = run_on_ranks(killed_on_the_last_rank, size, folder.path, expect_failures=True)
    assert ends[-1] == "the process ended without a word"
    assert folder.status().state is State.preempted  # nothing is wrong with the run
    assert run_on_ranks(work, size, folder.path) == [State.done] * size
    assert folder.status().attempt == 3
    assert result(folder) == expected
    assert [a["processes"] for a in folder.provenance()["attempts"]] == [size] * 3


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_process_that_raises_is_not_silent(folders: Path, real_data: TokenData, parallel: str) -> None:
    folder = frozen(f"engine.parallel={parallel}")
    first, second = run_on_ranks(raises_on_the_last_rank, 2, folder.path, expect_failures=True)
    assert "on fire" in second
    assert isinstance(first, str)  # it ended, too
    status = folder.status()
    assert status.state is State.failed
    assert status.failure is not None
    assert (status.failure.type, status.failure.message) == ("ValueError", "rank 1 of 2: the router is on fire")
    written = (folder.path / "traceback.txt").read_text()
    assert "rank 1 of 2" in written
    assert "the router is on fire" in written
    assert "in on_fire" in written
    assert run_on_ranks(work, 2, folder.path) == [State.done] * 2
    assert folder.status().failure is None


def test_a_checkpoint_of_a_sharded_model_is_one_of_replicas(folders: Path, real_data: TokenData) -> None:
    """A run may go on unsharded; what it ends with is, but for rounding, what one process alone ends with."""
    without_noise = ["router.noise=none", "router.input_dropout=0"]
    folder = frozen("engine.parallel=fsdp", *without_noise)
    assert run_on_ranks(stopped_on_the_last_rank, 2, folder.path) == [State.preempted] * 2
    assert frozen("engine.parallel=ddp", *without_noise).path == folder.path
    assert folder.config()["engine"]["parallel"] == "ddp"
    assert run_on_ranks(work, 2, folder.path) == [State.done] * 2
    two, pairing = folder.summary(), folder.provenance()["pairing"]
    folder.path.rename(folders / "two")
    alone = frozen(*without_noise)
    run_worker(alone)
    assert without_times(two) == pytest.approx(without_times(alone.summary()), rel=1e-4)
    assert pairing == alone.provenance()["pairing"]


def test_a_run_goes_on_with_as_many_processes(folders: Path, real_data: TokenData) -> None:
    folder = frozen()
    assert run_on_ranks(stopped_on_the_last_rank, 2, folder.path) == [State.preempted] * 2
    rule = r"processes=1 is refused: the run was started with 2.*Use 2, or move"
    with pytest.raises(Exception, match=rule):
        run_worker(folder)


def test_all_processes_hear_of_a_cancellation(folders: Path, real_data: TokenData) -> None:
    folder = frozen()
    assert run_on_ranks(cancelled_from_outside, 2, folder.path) == [State.cancelled] * 2
    assert folder.status().state is State.cancelled
    assert not folder.cancel_requested


def test_a_run_in_other_hands_is_left_alone(folders: Path, real_data: TokenData) -> None:
    folder = frozen()
    with folder.lock():
        ends = run_on_ranks(work, 2, folder.path, expect_failures=True)
    assert all(RunBusyError.__name__ in end for end in ends)
    assert folder.status().state is State.planned
    assert not (folder.path / "traceback.txt").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["-m", *TINY], "rank 1 of 2: error: -m starts its own processes"),
        ([*TINY, "trainer.micro_batch_size=4"], "trainer.batch_size=4 is refused: 2 processes with micro-batches of 4"),
    ],
    ids=["sweep", "uneven"],
)
def test_refused_before_anything_starts(
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: list[str],
    message: str,
) -> None:
    for name, value in environment(1, 2, port=1).items():
        monkeypatch.setenv(name, value)
    assert main(line) == 2
    assert message in capsys.readouterr().err
    assert not folders.exists()


def test_torchrun_trains_one_run(folders: Path, real_data: TokenData) -> None:
    line = [*TINY, "balancer=lossfree", "trainer.steps=8"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run([*command, *line], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder:") == 1
    (folder,) = RunDir.all(folders)
    assert folder.status().state is State.done
    two = folder.summary()
    folder.path.rename(folders.parent / "two")
    alone = freeze(compose_run(*line), [], command="test")
    run_worker(alone)
    assert alone.path.name == folder.path.name  # the number of processes is no part of the identity
    assert without_times(two) == pytest.approx(without_times(alone.summary()), rel=1e-5)
