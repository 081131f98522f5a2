"""A few real training steps of a run in a folder that is thrown away: what probes and manipulation checks stand on."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import Interrupted
from moe_sweeps.freeze import freeze
from moe_sweeps.hardware import keep_freed_memory, resolve_device
from moe_sweeps.rundir import RunDir
from moe_sweeps.trainer import Trainer

NEVER = 10**9


def rehearse(
    run: RunConfig,
    data: TokenData,
    steps: int,
    *,
    threads: int = 1,
    watched: Callable[[RunConfig], RunConfig] = lambda run: run,
    begin: Callable[[Trainer], None] = lambda trainer: None,
    after_step: Callable[[Trainer], None] = lambda trainer: None,
    end: Callable[[RunDir], None] = lambda folder: None,
) -> None:
    """Train the first `steps` steps exactly as the run would, logging each of them.

    `watched` may wrap the config that the trainer is built from. `begin` sees the trainer before its first step,
    `after_step` after each, and `end` the folder with its logs and one checkpoint before it is removed.
    """
    with tempfile.TemporaryDirectory(prefix="moe_sweeps-") as folder, _as_a_worker(threads):
        run_dir = freeze(_loud(run, Path(folder)), [], command="rehearsal")
        trainer = Trainer(
            watched(_loud(run, Path(folder))), run_dir, data, resolve_device(run.engine.device), _Silent()
        )
        begin(trainer)

        def should_stop() -> bool:
            after_step(trainer)
            return trainer.step >= steps

        with suppress(Interrupted):
            trainer.train(should_stop)
        end(run_dir)


def _loud(run: RunConfig, folder: Path) -> RunConfig:
    """The run with every step logged, nothing evaluated, and its folder elsewhere. All of this is infrastructure."""
    settings = dataclasses.replace(run.trainer, log_every=1, eval_every=NEVER, checkpoint_every=NEVER, stop_at=None)
    return dataclasses.replace(run, trainer=settings, paths=dataclasses.replace(run.paths, runs=str(folder)))


@contextmanager
def _as_a_worker(threads: int) -> Iterator[None]:
    """The settings of a worker process; threads and random numbers are those of before at the end."""
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(state)


class _Silent:
    """An observer that says nothing."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...
