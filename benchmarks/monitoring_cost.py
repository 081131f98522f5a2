"""What router monitoring costs: training steps with and without it, in turn, on the same weights and batches.

    python benchmarks/monitoring_cost.py [scale=proxy ...] [--rounds 20]

Two measures of the same steps. `in turn`: single steps with and without take turns, in changing order, so that other
work on the machine slows both alike; medians of ordinary and of logged steps are compared apart, and weighted as they
occur. `inside`: the time spent in the monitor's own methods over the time of the steps with it, which is much less
noisy, and complete on a CPU alone, where nothing is left running when a method returns.
The cost of an evaluation's extra pass is given by itself, spread over the steps between two evaluations.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import new_trainer

from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.compose import compose
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.trainer import Trainer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as root:
        lines = [[*args.overrides, f"paths.runs={root}/{on}", f"trainer.monitor={on}"] for on in ("true", "false")]
        runs = [compose(single(line)) for line in lines]
        data = prepared(runs[0].data, resolve(runs[0].paths.data))
        monitored, plain = (new_trainer(run, data) for run in runs)
        inside = _time_the_monitor(monitored)
        for trainer in (monitored, plain):
            _step(trainer)  # the first steps are slower
        inside.clear()
        times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}  # by whether the step is logged
        for i in range(args.rounds * monitored.run.trainer.log_every):
            pair = {trainer: _step(trainer) for trainer in ((monitored, plain) if i % 2 else (plain, monitored))}
            times[monitored.step % monitored.run.trainer.log_every == 0].append((pair[monitored], pair[plain]))
        sample = median(_sample_seconds(monitored) for _ in range(5))
    every = monitored.run.trainer.log_every
    with_, without = (((every - 1) * _median(times[False], i) + _median(times[True], i)) / every for i in (0, 1))
    total = sum(pair[0] for pairs in times.values() for pair in pairs)
    print(
        f"step without monitoring: {without * 1e3:.2f} ms; logged every {every} steps; {args.rounds} rounds of {every}"
    )
    print(f"monitoring, in turn: {with_ / without - 1:+.2%} of the step time")
    print(f"monitoring, inside: {sum(inside) / total:.2%} of the step time")
    print(f"routing sample of an evaluation: +{sample / without / monitored.run.trainer.eval_every:.2%}")


def _median(pairs: list[tuple[float, float]], which: int) -> float:
    return median(pair[which] for pair in pairs)


def _time_the_monitor(trainer: Trainer) -> list[float]:
    """Seconds of every call of what the trainer calls in training; the list grows as it trains."""
    seconds: list[float] = []

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            started = time.perf_counter()
            result = method(*args)
            seconds.append(time.perf_counter() - started)
            return result

        return call

    for name in ("begin_step", "add_micro_batch", "add_gradients", "add_rates", "add_step", "log"):
        setattr(trainer.monitor, name, timed(getattr(trainer.monitor, name)))
    return seconds


def _step(trainer: Trainer) -> float:
    """Seconds of one step, and of its line if it is logged."""
    started = time.perf_counter()
    trainer.journal.interval.add(trainer._train_step())
    trainer.step += 1
    if trainer.step % trainer.run.trainer.log_every == 0:
        trainer._log_interval()
    return time.perf_counter() - started


def _sample_seconds(trainer: Trainer) -> float:
    result = trainer.evaluate(32)
    started = time.perf_counter()
    trainer.journal._write_evaluation(trainer.step, result, trainer.clock.train_seconds)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
