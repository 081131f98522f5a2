"""How often does a table call one of several identical arms better? Real runs: python benchmarks/aa_experiment.py

Three arms whose aux.coef differs in the seventh digit: the same recipe for all purposes, but no two runs are equal bit
for bit, because rounding errors grow. Each table has its own seeds, three an arm. Paired tables compare runs
of one seed; unpaired ones give every arm other seeds, which moves the loss far more. Runs are minutes of CPU in all;
those that are there already are not trained again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.progress import track

from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.identity import identity
from moe_sweeps.records.noise import pooled_sd
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.results.compare import Sample, compare_all
from moe_sweeps.results.frame import load_runs
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.worker import run_worker

COEFS = (0.1, 0.1000001, 0.1000002)
SEEDS_A_TABLE = 3
SMALL = (
    *("scale=smoke_v1", "model.width=16", "experts.ffn_hidden=16", "schedule.warmup_steps=10", "trainer.steps=60"),
    *("trainer.batch_size=4", "trainer.micro_batch_size=4", "trainer.seq_len=32", "trainer.eval_every=1000"),
    *("trainer.final_eval_sequences=64", "trainer.checkpoint_every=1000", "launch.threads=1", "trainer.monitor=false"),
)
Runs = dict[tuple[float, int], tuple[float, object]]  # (aux.coef, seed): validation loss, and what the run began with


def main() -> None:
    """Train what is missing, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=40)
    parser.add_argument("--runs", type=Path, help="keep the runs here; default: a folder that is removed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.runs or Path(folder)
        runs = train(root, arguments.tables * SEEDS_A_TABLE)
    spread = pooled_sd([[runs[COEFS[0], s][0] for s in range(arguments.tables * SEEDS_A_TABLE)]])
    print(f"{len(runs)} runs; standard deviation of the loss over seeds {spread[0] if spread else 0:.4f} nats")
    for paired in (True, False):
        named = [called(*table(runs, t, paired, arguments.tables)) for t in range(arguments.tables)]
        better, worse = (sum(word in found for found in named) for word in ("better", "worse"))
        kind = "paired" if paired else "unpaired"
        print(f"{kind:>8}: better in {better}, worse in {worse} of {arguments.tables} tables of {len(COEFS)} like arms")


def train(root: Path, seeds: int) -> Runs:
    """Every arm with every seed, through the product's own worker, read back through its frame."""
    wanted: dict[str, tuple[float, int]] = {}
    for coef in COEFS:
        for seed in range(seeds):
            run = compose(single([*SMALL, f"aux.coef={coef}", f"seed={seed}", f"paths.runs={root}"]))
            wanted[identity(run)["run_id"]] = (coef, seed)
            freeze(run, [], command="aa_experiment")
    folders = sorted(path for path in root.glob("*-*") if path.name[-12:] in wanted)
    for folder in track(folders, "training"):
        run_worker(RunDir(folder))
    found: Runs = {}
    for row in load_runs(root).frame.to_dict("records"):
        if row["run_id"] in wanted:
            start = row["pairing.initial_weights"], row["pairing.batches"]
            found[wanted[row["run_id"]]] = float(row["val_loss"]), start
    return found


def table(runs: Runs, number: int, paired: bool, tables: int) -> tuple[Sample, ...]:
    """The arms of table `number`: with the same seeds each, or with seeds of their own."""

    def arm(place: int) -> Sample:
        first = (number if paired else (number + place) % tables) * SEEDS_A_TABLE
        found = {seed: runs[COEFS[place], first + seed] for seed in range(SEEDS_A_TABLE)}
        return Sample({s: loss for s, (loss, _) in found.items()}, {s: start for s, (_, start) in found.items()})

    return tuple(arm(place) for place in range(len(COEFS)))


def called(*arms: Sample) -> list[str]:
    """The verdicts of the arms against the first, exactly as tables come to them."""
    found = compare_all({str(i): arm for i, arm in enumerate(arms)}, "0", PRIMARY)
    return [c.verdict for c in found.values()]


if __name__ == "__main__":
    main()
