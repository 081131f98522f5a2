"""How many steps each balancer needs until MaxVio falls below 0.2 on tokens of skewed frequencies.

    python benchmarks/time_to_balance.py [--steps 300]

The data are those of skewed.py: a Markov chain over 256 tokens whose frequencies fall as 1/rank.
MaxVio is that of a step's global batch (512 tokens), its mean over five steps.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import new_trainer
from skewed import SKEWED, skewed_tokens

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.compose import compose
from moe_sweeps.sweep.grid import single

BALANCED, WINDOW = 0.2, 5
ARMS = {
    "none": ("balancer=none",),
    "sign, rate 0.001": ("balancer=lossfree",),
    "sign, rate 0.01": ("balancer=lossfree", "balancer.rate=0.01"),
    "magnitude, rate 0.001": ("balancer=lossfree", "balancer.update=magnitude"),
    "magnitude, rate 0.01": ("balancer=lossfree", "balancer.update=magnitude", "balancer.rate=0.01"),
    "quantile, 1 iteration": ("balancer=quantile", "balancer.iterations=1"),
    "quantile": ("balancer=quantile",),
}


def maxvio_by_step(data: TokenData, folder: Path, steps: int, *line: str) -> list[float]:
    """`maxvio_batch` of every training step of one arm."""
    run = compose(single([*SKEWED, f"trainer.steps={steps}", f"paths.runs={folder}/runs", *line]))
    trainer = new_trainer(run, data)
    found = []
    for _ in range(steps):
        found.append(trainer._train_step()["maxvio_batch"].item())
        trainer.step += 1
    return found


def steps_to_balance(maxvio: list[float]) -> int | None:
    """The first step from which the mean over `WINDOW` steps is below `BALANCED`."""
    means = np.convolve(maxvio, np.ones(WINDOW) / WINDOW, mode="valid")
    below = np.flatnonzero(means < BALANCED)
    return int(below[0]) + 1 if len(below) else None


def main() -> None:
    """Print a table of all arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print(f"{'balancer':<24}{'steps to MaxVio < 0.2':>24}{'MaxVio, last tenth':>22}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        data = skewed_tokens(Path(name))
        for label, line in ARMS.items():
            maxvio = maxvio_by_step(data, Path(name), steps, *line)
            reached, tail = steps_to_balance(maxvio), float(np.mean(maxvio[-max(1, steps // 10) :]))
            print(f"{label:<24}{'never' if reached is None else reached:>24}{tail:>22.3f}", flush=True)


if __name__ == "__main__":
    main()
