"""A few real training steps of a run in a temporary folder, for probes and manipulation checks."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from moe_sweeps.config.fork import ForkConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import Interrupted
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.hardware import resolve_device
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.trainer import Trainer

NEVER = 10**9


def rehearse(
    run: RunConfig,
    data: TokenData,
    steps: int,
    *,
    threads: int = 1,
    saves: bool = True,
    watched: Callable[[RunConfig], RunConfig] = lambda run: run,
    begin: Callable[[Trainer], None] = lambda trainer: None,
    after_step: Callable[[Trainer], None] = lambda trainer: None,
    end: Callable[[RunDir], None] = lambda folder: None,
) -> None:
    """Train the first `steps` steps exactly as the run would, logging each of them.

    `watched` may wrap the config that the trainer is built from. `begin` sees the trainer before its first step,
    `after_step` after each, and `end` the folder with its logs before it is removed; with `saves` a checkpoint too.
    """
    with tempfile.TemporaryDirectory(prefix="moe_sweeps-") as folder, _as_a_worker(threads):
        run_dir = freeze(_logging_every_step(run, Path(folder)), [], command="rehearsal")
        trainer = Trainer(
            watched(_logging_every_step(run, Path(folder))),
            run_dir,
            data,
            resolve_device(run.engine.device),
            _NoObserver(),
        )
        begin(trainer)

        def should_stop() -> bool:
            after_step(trainer)
            if trainer.step >= steps and not saves:
                raise _Enough
            return trainer.step >= steps

        with suppress(Interrupted, _Enough):
            trainer.train(should_stop)
        end(run_dir)


def _logging_every_step(run: RunConfig, folder: Path) -> RunConfig:
    """The run with every step logged, nothing evaluated, and another folder. A fork is trained from step 0.

    None of this is part of its identity, but for the fork: there is no trunk that it could continue from.
    """
    settings = dataclasses.replace(run.trainer, log_every=1, eval_every=NEVER, checkpoint_every=NEVER, stop_at=None)
    paths = dataclasses.replace(run.paths, runs=str(folder))
    return dataclasses.replace(run, trainer=settings, paths=paths, fork=ForkConfig())


@contextmanager
def _as_a_worker(threads: int) -> Iterator[None]:
    """The settings of a worker process; the threads and random state of this one are restored at the end."""
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(state)


class _Enough(Exception):
    """The steps are done, and nobody wants their checkpoint."""


class _NoObserver:
    """An observer that shows nothing."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...
