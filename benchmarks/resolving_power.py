"""What a core-hour of each design of the proxy decides: python benchmarks/resolving_power.py [--save] [--seconds]

A design is a setting of size, length and optimisation at which recipes are compared. From the committed runs of each:
the spread over seeds, how far known-different recipes lie apart in units of it, and the core-hours that decide an
effect in a table of six arms, by the simulated tables that plans promise by (results/power.py). `--seconds` measures
the CPU seconds of a run again, designs in turn; without it those of `Design.core_seconds` are used.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import new_trainer
from record import Row, record

from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.identity import identity
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.paths import REPOSITORY, resolve
from moe_sweeps.records.noise import pooled_sd
from moe_sweeps.records.numbers import PRIMARY, Metric, metric_of
from moe_sweeps.results.nested import FORKED, is_forked
from moe_sweeps.results.power import POWER, Shape, seeds_for
from moe_sweeps.results.runs import is_finished, read_runs
from moe_sweeps.sweep.cheaper import same_but_for_the_fork
from moe_sweeps.sweep.grid import single

ARMS = 6
EFFECTS = (0.005, 0.02)  # nats
MAXVIO = metric_of("val_maxvio_global")
FEW, MORE = 40, 120  # steps of the two runs that a run's CPU seconds are extrapolated from
# Recipes that are known to differ, in balance or in loss. The first is the baseline.
RECIPES = (
    ("balancer=aux", "aux.coef=0.1"),
    ("balancer=aux", "aux.coef=0.01"),
    ("balancer=aux", "aux.coef=0.6"),
    ("balancer=lossfree",),
)


@dataclass(frozen=True, slots=True)
class Design:
    """Settings that spell a design out, so that it stays what it was when `scale` changes; where its runs are.

    `fork`: the step after which the arms of a seed part; the steps before it are trained once for all of them.
    """

    name: str
    settings: tuple[str, ...]
    runs: str  # below results/
    core_seconds: float  # CPU seconds of one run, one thread: mean of two rounds of --seconds on a quiet machine, ±5%
    fork: int = 0

    @property
    def shared(self) -> float:
        """The part of a run that all arms of a seed share."""
        return self.fork / int(dict(line.split("=") for line in self.settings)["trainer.steps"])


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the runs of a design show of one metric: spread over seeds on its scale, and recipes' spread over it.

    `signal` is the standard deviation of the recipes' means without what seeds add to it, in units of `sd`; None where
    fewer than two recipes were trained. Designs compare by it where the same recipes were trained.
    """

    recipes: int
    sd: float
    freedom: int
    signal: float | None


# The proxy of the runs in results/proxy, scale=proxy_v1 today.
OLD = {
    "scale": "proxy_v1",
    "model.layers": "4",
    "model.width": "64",
    "model.heads": "4",
    "model.init_std": "0.02",
    "model.qk_norm": "false",
    "experts.ffn_hidden": "176",
    "optimizer.base_lr": "3e-3",
    "optimizer.beta2": "0.95",
    "schedule.warmup_steps": "100",
    "schedule.end_fraction": "0.1",
    "trainer.grad_clip": "1",
    "trainer.seq_len": "128",
    "trainer.steps": "2000",
    "trainer.batch_size": "8",
    "trainer.micro_batch_size": "8",
}
LARGE_BATCH = {
    "trainer.batch_size": "32",
    "trainer.micro_batch_size": "32",
    "optimizer.base_lr": "4e-3",
    "schedule.warmup_steps": "300",
}
# Normalised queries and keys, a larger initialisation, a higher rate that is reached late.
QUIET = {
    "model.init_std": "0.05",
    "model.qk_norm": "true",
    "optimizer.base_lr": "12e-3",
    "trainer.grad_clip": "0.5",
    "trainer.batch_size": "16",
    "trainer.micro_batch_size": "16",
}
FOUR_LAYERS = {"trainer.steps": "760", "schedule.warmup_steps": "300"}
TWO_LAYERS = {"model.layers": "2", "trainer.steps": "1200", "schedule.warmup_steps": "480"}


def _spelled(*changes: Mapping[str, str]) -> tuple[str, ...]:
    settings = dict(OLD)
    for change in changes:
        settings |= change
    return tuple(f"{key}={value}" for key, value in settings.items())


DESIGNS = (
    Design("proxy_v1: 4 layers, batch 8, 2,000 steps", _spelled(), "proxy", 117.0),
    Design("4 layers, batch 32, 600 steps", _spelled(LARGE_BATCH, {"trainer.steps": "600"}), "proxy_search", 125.0),
    Design(
        "2 layers, batch 32, 950 steps",
        _spelled(LARGE_BATCH, {"trainer.steps": "950", "model.layers": "2"}),
        "proxy_search",
        126.0,
    ),
    Design("4 layers, batch 16, 760 steps", _spelled(QUIET, FOUR_LAYERS), "proxy_search", 90.0),
    Design("proxy: 2 layers, batch 16, 1,200 steps", _spelled(QUIET, TWO_LAYERS), "proxy_search", 85.0),
    Design("proxy, forked at step 300", _spelled(QUIET, TWO_LAYERS), "proxy_search", 85.0, fork=300),
)


def main() -> None:
    """Read, simulate, print, and with --save keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/resolving_power.json")
    parser.add_argument("--seconds", action="store_true", help="measure the CPU seconds of a run")
    arguments = parser.parse_args()
    seconds = measured_seconds(DESIGNS) if arguments.seconds else {d.name: d.core_seconds for d in DESIGNS}
    rows = [row(design, seconds[design.name]) for design in DESIGNS]
    note = (
        f"Core-hours: {ARMS} arms with as many seeds as find the effect of one of them with a chance of {POWER:.0%}. "
        "Signal over noise: the spread of the means of known-different recipes over the spread of one recipe's seeds. "
        "A spread on 2 degrees of freedom may be half or six times as large (95%), so those rows rank nothing yet. "
        "Forks ask what a recipe does from their step on, which may be less: compare designs by signal over noise, too."
    )
    record("resolving_power", "What a core-hour decides", rows, threads=1, save=arguments.save, note=note)


def row(design: Design, core_seconds: float) -> Row:
    """The design's row of the table."""
    root = REPOSITORY / "results" / design.runs / "runs"
    found_by, resolve_by = (by_fork, within_trunks) if design.fork else (by_recipe, resolution)
    loss, balance = (resolve_by(found_by(root, design, metric)) for metric in (PRIMARY, MAXVIO))
    found: Row = {"what": design.name, "core-seconds": core_seconds}
    found |= {"recipes": loss.recipes, "sd of val_loss": loss.sd, "degrees of freedom": loss.freedom}
    found |= {"sd² × core-seconds": loss.sd**2 * core_seconds}
    found |= {"signal over noise, loss": loss.signal, "signal over noise, log MaxVio": balance.signal}
    return found | {f"core-hours for {e:g}": core_hours(e, loss.sd, core_seconds, design.shared) for e in EFFECTS}


def by_recipe(root: Path, design: Design, metric: Metric) -> list[list[float]]:
    """The values of each recipe on the metric's scale, one a seed; recipes without finished runs are left out."""
    arms = [identity(compose(single([*design.settings, *recipe])))["arm"] for recipe in RECIPES]
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    for run in read_runs(root).rows.values():
        if run["arm"] in found and is_finished(run) and run[metric.column] is not None:
            found[run["arm"]].append(metric.on_scale(run[metric.column]))
    return [values for values in found.values() if values]


def by_fork(root: Path, design: Design, metric: Metric) -> list[list[float]]:
    """The values of each arm that continues from the design's trunks, one a trunk, in the order of their seeds."""
    rows = read_runs(root).rows.values()
    unforked = identity(compose(single([*design.settings, *RECIPES[0]])))["arm"]
    like = next((run for run in rows if run["arm"] == unforked), None)
    found: dict[str, dict[int, float]] = {}
    for run in rows:
        forked = is_forked(run) and run[FORKED] == design.fork and is_finished(run)
        if like and forked and same_but_for_the_fork(run, like):
            found.setdefault(run["arm"], {})[run["seed"]] = metric.on_scale(run[metric.column])
    return [[values[seed] for seed in sorted(values)] for values in found.values()]


def resolution(groups: Sequence[Sequence[float]]) -> Resolution:
    """The pooled spread within groups, and how far the groups' means lie apart in units of it.

    Raises:
        ValueError: no group has two values, or all values of each are equal.
    """
    pooled = pooled_sd(groups)
    if pooled is None or not pooled[0] > 0:
        raise ValueError("no recipe has two seeds that differ, so nothing is known of noise")
    sd, freedom = pooled
    if len(groups) < 2:
        return Resolution(len(groups), sd, freedom, None)
    by_chance = sd**2 * statistics.mean(1 / len(g) for g in groups)
    apart = statistics.variance([statistics.mean(g) for g in groups]) - by_chance
    return Resolution(len(groups), sd, freedom, math.sqrt(max(apart, 0.0)) / sd)


def within_trunks(groups: Sequence[Sequence[float]]) -> Resolution:
    """The same of arms that share trunks: what a trunk moves alike in all of them is taken out.

    Raises:
        ValueError: fewer than two arms or trunks, or not every arm continues from every trunk.
    """
    if len(groups) < 2 or len({len(values) for values in groups}) != 1 or len(groups[0]) < 2:
        raise ValueError("several arms must continue from the same trunks")
    values_AT = np.array(groups)
    left_AT = values_AT - values_AT.mean(0) - values_AT.mean(1, keepdims=True) + values_AT.mean()
    arms, trunks = values_AT.shape
    freedom = (arms - 1) * (trunks - 1)
    sd = math.sqrt(float((left_AT**2).sum()) / freedom)
    apart = float(values_AT.mean(1).var(ddof=1)) - sd**2 / trunks
    return Resolution(arms, sd, freedom, math.sqrt(max(apart, 0.0)) / sd)


def core_hours(effect: float, sd: float, core_seconds: float, shared: float = 0.0) -> float | None:
    """Core-hours of a table of ARMS arms that finds `effect` with the usual chance; None: too many seeds.

    `shared`: the part of a run that all arms of a seed share.
    """
    seeds = seeds_for(Shape(ARMS, 2, by_design=bool(shared)), effect / sd)
    return None if seeds is None else seeds * (ARMS - (ARMS - 1) * shared) * core_seconds / 3600


def measured_seconds(designs: Iterable[Design]) -> Mapping[str, float]:
    """CPU seconds of a whole run of each design, extrapolated from two short ones; validated at the end alone."""
    torch.set_num_threads(1)
    keep_freed_memory()
    found: dict[str, float] = {}
    for design in designs:
        steps = compose(single([*design.settings, *RECIPES[0]])).trainer.steps
        few, more = (_seconds_of(design, n) for n in (FEW, MORE))
        found[design.name] = few + (more - few) / (MORE - FEW) * (steps - FEW)
    return found


def _seconds_of(design: Design, steps: int) -> float:
    short = (f"trainer.steps={steps}", "schedule.warmup_steps=10", "trainer.eval_every=100000", "launch.threads=1")
    with tempfile.TemporaryDirectory() as folder:
        run = compose(single([*design.settings, *RECIPES[0], *short, f"paths.runs={folder}"]))
        trainer = new_trainer(run, prepared(run.data, resolve(run.paths.data)))
        started = time.process_time()
        trainer.train(lambda: False)
        return time.process_time() - started


if __name__ == "__main__":
    main()
