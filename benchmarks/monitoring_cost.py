"""What router monitoring costs: training steps with and without it, in turn, on the same weights and batches.

    python benchmarks/monitoring_cost.py [scale=proxy ...] [--rounds 20]

A round is one logging interval with monitoring and one without, so that other work on the machine slows both alike.
The share is the median over rounds of their ratio; the sampled step and the line that is written are part of it.
The cost of an evaluation's extra pass is given by itself, spread over the steps between two evaluations.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from statistics import median, quantiles

import torch

from moe_sweeps.config.compose import compose
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import prepared
from moe_sweeps.freeze import freeze
from moe_sweeps.hardware import keep_freed_memory, resolve_device
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.grid import single
from moe_sweeps.trainer import Trainer


class Silent:
    """An observer that says nothing."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...


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
        monitored, plain = (_trainer(run, data) for run in runs)
        every = monitored.run.trainer.log_every
        pairs = [(_interval(monitored), _interval(plain)) for _ in range(args.rounds + 1)][1:]
        sample = median(_sample_seconds(monitored) for _ in range(5))
    shares = [with_ / without - 1 for with_, without in pairs]
    low, middle, high = quantiles(shares, n=4)
    step = median(without for _, without in pairs) / every
    print(f"step without monitoring: {step * 1e3:.2f} ms; logging every {every} steps; {args.rounds} rounds")
    print(f"monitoring: {middle:+.2%} of the step time (quartiles {low:+.2%} to {high:+.2%})")
    print(f"routing sample of an evaluation: {sample / step / monitored.run.trainer.eval_every:+.2%}, in steps between")


def _trainer(run: RunConfig, data: TokenData) -> Trainer:
    return Trainer(run, freeze(run, [], command="benchmark"), data, resolve_device(run.engine.device), Silent())


def _interval(trainer: Trainer) -> float:
    """Seconds of one logging interval, its line included. The steps are numbered as in training."""
    started = time.perf_counter()
    for _ in range(trainer.run.trainer.log_every):
        trainer.interval.add(trainer._train_step())
        trainer.step += 1
    trainer._log_interval()
    return time.perf_counter() - started


def _sample_seconds(trainer: Trainer) -> float:
    result = trainer.evaluate(32)
    started = time.perf_counter()
    trainer._log_routing(result)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
