"""What one run costs in CPU seconds on one core, in each way to compute it that a user can choose.

    python benchmarks/run_cost.py [--save] [--steps 30] [scale=proxy_v1 ...]

Whole trainers take steps in turn: data, forward and backward passes, clipping, optimizer, monitoring and logging. The
rest of a run is its evaluations, one of which is timed. Start-up and checkpoints are left out: always_on and start_up
have them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from common import new_trainer
from record import Row, bounded, record, wants_saving

from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.compose import compose
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.trainer import Trainer

WAYS: dict[str, list[str]] = {"as it comes": [], "trainer.precision=mixed": ["trainer.precision=mixed"]}
WARM_UP = 3
LIMITED, LIMIT = "proxy_v1", 70.0  # CPU seconds of a run at this scale as it comes


def main() -> None:
    """Measure, print, and with --save keep."""
    save = wants_saving()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", default=[f"scale={LIMITED}"], help="of the run, as for train.py")
    parser.add_argument("--steps", type=int, default=30, help="in each way")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as root:
        lines = {way: [*args.overrides, *line, f"paths.runs={root}/{i}"] for i, (way, line) in enumerate(WAYS.items())}
        trainers = {way: _trainer(line) for way, line in lines.items()}
        rows = _rows(trainers, args.steps)
    scale = trainers["as it comes"].run.scale
    record("run_cost", f"CPU seconds of one run at scale={scale}", rows, threads=1, save=save, note=NOTE)


NOTE = (
    "CPU seconds of one thread: the steps of a whole run at the median of those that were taken in turn, and its "
    "evaluations. The limit holds for a run as it comes."
)


def _trainer(line: list[str]) -> Trainer:
    run = compose(single(line))
    return new_trainer(run, prepared(run.data, resolve(run.paths.data)))


def _rows(trainers: dict[str, Trainer], steps: int) -> list[Row]:
    seconds: dict[str, list[float]] = {way: [] for way in trainers}
    for _ in range(WARM_UP + steps):
        for way, trainer in trainers.items():
            seconds[way].append(_timed(partial(_step, trainer)))
    return [_row(way, trainer, median(seconds[way][WARM_UP:])) for way, trainer in trainers.items()]


def _row(way: str, trainer: Trainer, step: float) -> Row:
    settings = trainer.run.trainer
    on_the_way = _timed(partial(trainer.evaluate, settings.eval_sequences))
    last = _timed(partial(trainer.evaluate, settings.final_eval_sequences))
    evaluations = settings.steps // settings.eval_every * on_the_way + last
    limit = LIMIT if way == "as it comes" and trainer.run.scale == LIMITED else None
    whole = settings.steps * step + evaluations
    return bounded(way, whole, limit, "CPU s", ms_per_step=step * 1e3, evaluations_s=evaluations)


def _step(trainer: Trainer) -> None:
    values = trainer._train_step()
    trainer.step += 1
    trainer._after_step(values)


def _timed(call: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    started = time.thread_time()
    call()
    return time.thread_time() - started


if __name__ == "__main__":
    main()
