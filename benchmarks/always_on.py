"""What is always on, as a share of the step time: logging, monitoring, timing, heartbeats, checkpoints.

    python benchmarks/always_on.py [--save] [scale=proxy ...]

Every part is timed inside one trainer while it trains: per step, or per its own period. Evaluations do not count:
they are part of the experiment. A tracker is a process of its own, which reads the run folder.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import new_trainer
from record import Row, bounded, record, wants_saving

from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.compose import compose
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.heartbeat import STATUS_SECONDS
from moe_sweeps.training.trainer import Trainer

ROUNDS = 12  # of log_every steps
SAVES, HEARTBEATS = 5, 50
LIMIT = 0.05  # all parts together
MONITOR = ("begin_step", "add_micro_batch", "add_gradients", "add_rates", "add_step", "log")


def main() -> None:
    """Measure, print, and with --save keep."""
    save = wants_saving()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as root:
        never = ["trainer.eval_every=1000000", f"paths.runs={root}"]
        run = compose(single([*sys.argv[1:], *never]))
        trainer = new_trainer(run, prepared(run.data, resolve(run.paths.data)))
        shares = _shares(trainer)
    rows: list[Row] = [bounded(f"share of the step time: {name}", share, None, "") for name, share in shares.items()]
    rows.append(bounded("share of the step time: all together", sum(shares.values()), LIMIT, ""))
    record("always_on", f"What is always on, at scale={run.scale}", rows, threads=1, save=save)


def _shares(trainer: Trainer) -> dict[str, float]:
    """Each part's seconds over those of the same time spent in training steps alone."""
    settings = trainer.run.trainer
    logged = _timed(trainer.monitor, ("log",))  # called by the journal: part of monitoring, not of logging
    monitor = _timed(trainer.monitor, MONITOR)
    journal = _timed(trainer.journal, ("add_step", "log_interval"))
    timer = _timed(trainer.timer, ("begin_step", "read_interval"))
    collapse = _timed(trainer.collapse, ("add", "says_stop"))
    steps = [_step(trainer) for _ in range(ROUNDS * settings.log_every)]
    inside = {name: sum(part) for name, part in (("monitoring", monitor), ("timing", timer), ("health", collapse))}
    inside["logging"] = sum(journal) - sum(logged)
    training = sum(steps) - sum(inside.values())
    step = training / len(steps)
    shares = {name: seconds / training for name, seconds in inside.items()}
    saving = _seconds_of_saving(trainer)
    every = settings.checkpoint_every
    shares["checkpoints"] = saving / (trainer.saver.schedule.seconds_between or (every or 1) * step)
    shares["heartbeats"] = _seconds_of_a_heartbeat(trainer) / STATUS_SECONDS
    return shares


def _timed(owner: object, names: tuple[str, ...]) -> list[float]:
    """Seconds of every call of these methods from now on; the list grows."""
    seconds: list[float] = []

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                seconds.append(time.perf_counter() - started)

        return call

    for name in names:
        setattr(owner, name, timed(getattr(owner, name)))
    return seconds


def _step(trainer: Trainer) -> float:
    """Seconds of one step with everything that follows it, except evaluations and checkpoints."""
    started = time.perf_counter()
    values = trainer._train_step()
    trainer.step += 1
    trainer._after_step(values)
    return time.perf_counter() - started


def _seconds_of_saving(trainer: Trainer) -> float:
    """Of one checkpoint, with the wait for the disk."""
    seconds = []
    for _ in range(SAVES):
        trainer.saver.saved_step = None
        started = time.perf_counter()
        trainer.save()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def _seconds_of_a_heartbeat(trainer: Trainer) -> float:
    status, seconds = trainer.folder.status(), []
    for _ in range(HEARTBEATS):
        started = time.perf_counter()
        trainer.folder.write_status(dataclasses.replace(status))
        seconds.append(time.perf_counter() - started)
    return median(seconds)


if __name__ == "__main__":
    main()
