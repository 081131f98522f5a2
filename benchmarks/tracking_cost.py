"""What a tracker costs: whole runs without one and with wandb offline, in turn.

    python benchmarks/tracking_cost.py [--save] [--rounds 2] [--silent] [scale=smoke ...]

Per arm and round: the extra time in training steps over the run without a tracker of the same round, in wall seconds
and in CPU seconds of the training thread (which other work on the machine disturbs less); and the median time from the
last step to the end of the worker. --silent: also with a wandb server that never answers.
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
from record import Row, record, wants_saving

from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.worker import run_worker

NOTE = "One number a round. The runs last some five seconds, in which wandb's process starts on the other core."
SILENT = "a server that never answers"
ARMS = {
    "none": ["tracking=none"],
    "offline": ["tracking=wandb", "tracking.mode=offline"],
    SILENT: ["tracking=wandb", "tracking.finish_seconds=2"],
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run, in seconds."""

    steps: float
    computed: float
    after: float


def main() -> None:
    """Measure, print, and with --save keep."""
    save = wants_saving()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", default=["scale=smoke", "trainer.steps=200"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--silent", action="store_true", help="also with a server that never answers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rounds = []
    with tempfile.TemporaryDirectory() as root, silent_server() as url:
        os.environ |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
        for seed in range(args.rounds + 1):  # the first warms up
            names = [name for name in ARMS if args.silent or name != SILENT]
            names = names if seed % 2 else names[::-1]
            rounds.append({name: measure(Path(root) / name, args.overrides, seed, ARMS[name]) for name in names})
    rows = [_row(name, rounds[1:]) for name in rounds[0] if name != "none"]
    record(
        "tracking_cost",
        "What a tracker costs",
        rows,
        threads=1,
        save=save,
        note=NOTE,
    )


def _row(name: str, rounds: list[dict[str, Cost]]) -> Row:
    costs = [(found[name], found["none"]) for found in rounds]
    return {
        "what": f"wandb, {name}",
        "share of step time": _each([own.steps / plain.steps - 1 for own, plain in costs]),
        "share of CPU time": _each([own.computed / plain.computed - 1 for own, plain in costs]),
        "seconds after training": median(own.after for own, _ in costs),
        "seconds after training without": median(plain.after for _, plain in costs),
    }


def _each(shares: list[float]) -> str:
    """The value of every round: their spread is as large as the cost of a tracker."""
    return ", ".join(f"{share:+.1%}" for share in shares)


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
    """A server on this machine that accepts every connection and never answers."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                taken.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


if __name__ == "__main__":
    main()
