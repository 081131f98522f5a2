"""What trackers cost: whole runs without one, with wandb offline, and with a wandb server that never answers, in turn.

    python benchmarks/tracking_cost.py [scale=smoke ...] [--rounds 5]

Per arm, medians over the rounds: seconds in training steps and seconds that the training thread computed (which other
work on the machine disturbs less), as ratios to the run without a tracker of the same round, and how long the worker
took from the last step to its end.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from moe_sweeps.config.compose import compose
from moe_sweeps.data.prepare import prepared
from moe_sweeps.freeze import freeze
from moe_sweeps.hardware import keep_freed_memory
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.grid import single
from moe_sweeps.worker import run_worker

ARMS = {
    "none": ["tracking=none"],
    "offline": ["tracking=wandb", "tracking.mode=offline"],
    "silent server": ["tracking=wandb", "tracking.finish_seconds=2"],
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run, in seconds."""

    steps: float
    computed: float
    after: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", default=["scale=smoke"])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rounds = []
    with tempfile.TemporaryDirectory() as root, silent_server() as url:
        os.environ |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
        for seed in range(args.rounds + 1):  # the first warms up
            names = list(ARMS) if seed % 2 else list(reversed(ARMS))
            rounds.append({name: measure(Path(root) / name, args.overrides, seed, ARMS[name]) for name in names})
    for name in ARMS:
        costs = [(found[name], found["none"]) for found in rounds[1:]]
        steps = median(own.steps / plain.steps for own, plain in costs)
        computed = median(own.computed / plain.computed for own, plain in costs)
        after = median(own.after for own, _ in costs)
        print(f"{name:<14} steps {steps:.3f}  computed {computed:.3f}  end {after:.1f} s")


def measure(root: Path, overrides: list[str], seed: int, tracking: list[str]) -> Cost:
    """Train one run in this process."""
    run = compose(single([*overrides, *tracking, f"seed={seed}", f"paths.runs={root}", "launch.threads=1"]))
    prepared(run.data, resolve(run.paths.data))
    folder = freeze(run, [], command="benchmark")
    computed = time.thread_time()
    run_worker(folder)
    computed = time.thread_time() - computed
    summary = folder.summary() or {}
    return Cost(summary["train_seconds"], computed, time.time() - (folder.path / "summary.json").stat().st_mtime)


@contextmanager
def silent_server() -> Iterator[str]:
    """A server on this machine that takes every connection and never says a word."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                taken.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


if __name__ == "__main__":
    main()
