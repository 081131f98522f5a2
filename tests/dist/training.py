"""A few steps of a run, alone or on the ranks of `run_on_ranks`, as the trainer takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import CPU, TINY, Silent, compose_run
from torch import Tensor

from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed.ranks import Ranks
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.distributed.sharding import whole
from moe_sweeps.training.trainer import Trainer

STEPS = 4
LINE = (*TINY, "trainer.batch_size=8", "trainer.micro_batch_size=2", "aux.coef=1")
Job = tuple[RunConfig, Path]


def jobs(folders: Path, name: str, *lines: list[str]) -> list[Job]:
    runs = [compose_run(*LINE, f"paths.runs={folders / name}", *line) for line in lines]
    return [(run, freeze(run, [], command="test").path) for run in runs]


def made(ranks: Ranks, job: Job, data: Path) -> Trainer:
    run, folder = job
    return Trainer(run, RunDir(folder), TokenData.open(data), CPU, Silent(), ranks)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    return {k: whole(v).clone() for k, v in (trainer.model.state_dict() | trainer.balancer.state_dict()).items()}


def some_steps(ranks: Ranks, work: list[Job], data: Path) -> list[dict[str, Any]]:
    """The loads and values of a few steps of each run, what they left, and what an evaluation then found."""
    found = []
    for job in work:
        trainer, values = made(ranks, job, data), []
        loads: list[Tensor] = []
        setattr(trainer.monitor, "add_step", loads.append)  # noqa: B010
        for _ in range(STEPS):
            values.append(trainer._train_step())
            trainer.step += 1
        found.append({"loads": loads, "values": values, "state": state_of(trainer), "val": trainer.evaluate(9)})
    return found
