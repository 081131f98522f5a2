"""200 proposals that change nothing, judged one after the other as a program would. Real runs:

    python benchmarks/proposals.py [--runs FOLDER] [--save]

Every proposal sets trainer.grad_clip to another bound that no gradient reaches: to the last bit the same recipe, but an
arm of its own. A proposal is three runs with seeds of their own, held against the three runs of the recipe in use by
`moe-sweeps judge` with its defaults: exit code 0 puts the proposal in its place. The greedy rule takes whatever has the
lower mean. Runs are a second of CPU each; those that are in FOLDER already are not trained again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import torch
from rich.progress import track
from simulated import store

from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.identity import identity
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.records.words import BETTER
from moe_sweeps.results.judging import judge_sides
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import Row, read_runs
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.worker import run_worker

PROPOSALS, SEEDS = 200, 3
UNREACHED = 1000  # the first bound; gradients of these models have a norm of about 1
SMALL = (
    *("scale=smoke_v1", "model.width=16", "experts.ffn_hidden=16", "schedule.warmup_steps=5", "trainer.steps=30"),
    *("trainer.batch_size=4", "trainer.micro_batch_size=4", "trainer.seq_len=32", "trainer.eval_every=1000"),
    *("trainer.final_eval_sequences=64", "trainer.checkpoint_every=1000", "launch.threads=1", "trainer.monitor=false"),
)
Side = Sequence[Row]
Accepts = Callable[[Side, Side, Sequence[Row]], bool]  # proposal, what is in use, all runs until then


def main() -> None:
    """Train what is missing, judge, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="keep the runs here; default: a folder that is removed")
    parser.add_argument("--proposals", type=int, default=PROPOSALS)
    parser.add_argument("--save", action="store_true", help=f"write {store.path('proposals')}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sides = train(arguments.runs or Path(folder), 1 + arguments.proposals)
    found = counted(sides)
    print(found)
    if arguments.save:
        losses = [[row[PRIMARY.column] for row in side] for side in sides]
        store.save("proposals", [found, {"losses": losses}])


def train(root: Path, count: int) -> list[list[Row]]:
    """The runs of the recipe in use and of every proposal, read back as the product reads them."""
    wanted: list[list[str]] = []
    for place in range(count):
        settings = [*SMALL, f"trainer.grad_clip={UNREACHED + place}", f"paths.runs={root}"]
        runs = [compose(single([*settings, f"seed={SEEDS * place + seed}"])) for seed in range(SEEDS)]
        wanted.append([identity(run)["run_id"] for run in runs])
        for run in runs:
            freeze(run, [], command="proposals")
    ids = {run_id for side in wanted for run_id in side}
    for path in track(sorted(p for p in root.glob("*-*") if p.name[-12:] in ids), "training"):
        run_worker(RunDir(path))
    rows = read_runs(root).rows
    return [[rows[run_id] for run_id in side] for side in wanted]


def judge(proposal: Side, used: Side, known: Sequence[Row]) -> bool:
    """What `moe-sweeps judge` says with exit code 0."""
    return judge_sides(proposal, used, PRIMARY, Noise(tuple(known), ()), plan=False).verdict == BETTER


def greedy(proposal: Side, used: Side, known: Sequence[Row]) -> bool:
    """The lower mean."""
    return mean(proposal) < mean(used)


def mean(side: Side) -> float:
    """The mean loss of a side."""
    return fmean(row[PRIMARY.column] for row in side)


def counted(sides: Sequence[Side]) -> dict[str, float]:
    """Accepted proposals of each rule, kept (an accepted one is in use) and each against the one before it; and the
    nats that the kept ones seem to have gained, though nothing has."""
    found: dict[str, float] = {"proposals": len(sides) - 1, "seeds": len(sides[0])}
    for name, accepts in (("judge", judge), ("greedy", greedy)):
        used, kept, fresh = 0, 0, 0
        for place in range(1, len(sides)):
            known = [row for side in sides[: place + 1] for row in side]
            fresh += accepts(sides[place], sides[place - 1], known)
            if accepts(sides[place], sides[used], known):
                used, kept = place, kept + 1
        found |= {name: kept, f"{name}_gain": mean(sides[0]) - mean(sides[used]), f"{name}_fresh": fresh}
    return found


if __name__ == "__main__":
    main()
