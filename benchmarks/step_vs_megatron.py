"""A training step of engine=megatron beside one of engine=native: the same weights, batches, losses and optimizer.

    python benchmarks/step_vs_megatron.py [scale=proxy ...] [--rounds 40]

On one thread. Single steps take turns, in an order that changes from round to round, so that other work on the machine
slows both alike; medians over the rounds, and the median of the ratios of neighbouring steps. On a busy machine the
fastest step of each says more.
"""

from __future__ import annotations

import argparse
import tempfile
from statistics import median

import torch
from balancing_cost import WARM_UP, _in_turn
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
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as root:
        trainers = {engine: _trainer(engine, root, args.overrides) for engine in ("native", "megatron")}
        _in_turn(trainers, WARM_UP)
        seconds = _in_turn(trainers, args.rounds)
    ratios = [ours / theirs for ours, theirs in zip(seconds["megatron"], seconds["native"], strict=True)]
    for engine, found in seconds.items():
        speed = trainers[engine].run.trainer.tokens_per_step / median(found)
        fastest = min(found) * 1e3
        print(f"{engine:<10}{median(found) * 1e3:8.1f} ms a step {speed:10,.0f} tokens/s, fastest {fastest:.1f} ms")
    least = min(seconds["megatron"]) / min(seconds["native"])
    print(f"megatron / native {median(ratios):.3f}, median of {args.rounds} rounds; of the fastest steps {least:.3f}")


def _trainer(engine: str, root: str, overrides: list[str]) -> Trainer:
    run = compose(single([f"engine={engine}", f"paths.runs={root}/{engine}", *overrides]))
    return new_trainer(run, prepared(run.data, resolve(run.paths.data)))


if __name__ == "__main__":
    main()
