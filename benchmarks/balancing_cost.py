"""What balancers cost: training steps of each, in turn, on the same first weights and batches.

    python benchmarks/balancing_cost.py [scale=proxy ...] [--rounds 60]

Single steps take turns, so that other work on the machine slows all alike; medians over the rounds, beside that of
`none`. The step is cut into two micro-batches at least, because global scope counts in a forward pass of its own only
then. `in the balancer` is the share of the steps spent in observe and update, with all rounds of the quantile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import new_trainer, wait

from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.compose import compose
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.trainer import Trainer

WARM_UP = 5  # the first steps are slower
ARMS = {
    "none": ("balancer=none",),
    "aux, micro": ("balancer=aux", "aux.scope=micro"),
    "aux, sequence": ("balancer=aux", "aux.scope=sequence"),
    "aux, global": ("balancer=aux", "aux.scope=global"),
    "lossfree": ("balancer=lossfree",),
    "quantile, 8 rounds": ("balancer=quantile", "balancer.iterations=8"),
    "quantile": ("balancer=quantile",),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as root:
        trainers = {label: _trainer([f"paths.runs={root}", *line, *args.overrides]) for label, line in ARMS.items()}
        inside = {label: _time_the_balancer(trainer) for label, trainer in trainers.items()}
        _in_turn(trainers, WARM_UP)
        for calls in inside.values():
            calls.clear()
        seconds = _in_turn(trainers, args.rounds)
    none = median(seconds["none"])
    print(f"step of none: {none * 1e3:.1f} ms; {args.rounds} rounds")
    for label, found in seconds.items():
        share = sum(inside[label]) / sum(found)
        ratio = median(ours / theirs for ours, theirs in zip(found, seconds["none"], strict=True))
        print(f"{label:<20}{ratio - 1:+8.1%} of the step, {share:6.2%} in the balancer")


def _trainer(line: list[str]) -> Trainer:
    run = compose(single([*line, "trainer.monitor=false"]))
    if run.trainer.micro_batches == 1:
        run = compose(
            single([*line, "trainer.monitor=false", f"trainer.micro_batch_size={run.trainer.batch_size // 2}"])
        )
    return new_trainer(run, prepared(run.data, resolve(run.paths.data)))


def _in_turn(trainers: dict[str, Trainer], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step by arm; the order changes from round to round."""
    seconds: dict[str, list[float]] = {label: [] for label in trainers}
    labels = list(trainers)
    for i in range(rounds):
        for label in (*labels[i % len(labels) :], *labels[: i % len(labels)]):
            seconds[label].append(_step(trainers[label]))
    return seconds


def _step(trainer: Trainer) -> float:
    wait(trainer.device)
    started = time.perf_counter()
    trainer._train_step()
    wait(trainer.device)
    trainer.step += 1
    return time.perf_counter() - started


def _time_the_balancer(trainer: Trainer) -> list[float]:
    """Seconds of every call of the balancer's observe and update; the list grows as it trains."""
    seconds: list[float] = []

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            wait(trainer.device)
            started = time.perf_counter()
            result = method(*args, **kwargs)
            wait(trainer.device)
            seconds.append(time.perf_counter() - started)
            return result

        return call

    for name in ("observe", "update"):
        setattr(trainer.balancer, name, timed(getattr(trainer.balancer, name)))
    return seconds


if __name__ == "__main__":
    main()
