"""Power that `--detect` promises, and the power that tables of that shape reach, by the code that writes tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from moe_sweeps.records.numbers import BY_COLUMN
from moe_sweeps.results.compare import Sample, compare_all
from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.power import Shape, power, seeds_for
from moe_sweeps.results.verdicts import against_baseline
from simulated.cases import Array
from simulated.rates import Row, each

LOG = BY_COLUMN["val_maxvio_global"]
BY_COMPARISON = 1600  # tables that go through the comparison of tables one by one


@dataclass(frozen=True)
class Plan:
    """A shape whose power is promised; without `shape.seeds` (0) as many as the promise asks for."""

    what: str
    shape: Shape
    effect: float  # standard deviations of one run
    log: bool = False


PLANS = (
    *(Plan("equal seeds, as many as promised", Shape(arms, 0, r), effect)
      for arms in (2, 6, 16) for r in (0.0, 0.4) for effect in (1.0, 2.0, 4.0)),
    *(Plan("equal seeds, six arms lend", Shape(arms, 0, lent=(2,) * 6), effect)
      for arms in (2, 6) for effect in (2.0, 4.0)),
    Plan("one seed, six arms lend", Shape(4, 1, lent=(2,) * 6), 8.0),
    Plan("baseline has ten seeds", Shape(6, 10, counts=(10, *(3,) * 5)), 3.0),
    Plan("baseline has two seeds", Shape(6, 5, counts=(2, *(5,) * 5)), 4.0),
    Plan("arms of two to eight seeds", Shape(5, 8, counts=(5, 2, 3, 8, 8)), 6.0),
    Plan("arms of three to eight, seeds move all", Shape(5, 8, 0.4, counts=(5, 3, 3, 8, 8)), 3.0),
    Plan("15% of 6 x 5 runs are missing", Shape(6, 5, counts=(4, 3, 4, 5, 5, 4)), 3.0),
    Plan("15% missing, six arms lend", Shape(6, 5, lent=(2,) * 6, counts=(4, 3, 4, 5, 5, 4)), 3.0),
    Plan("MaxVio, on logarithms", Shape(6, 4), 3.0, log=True),
    Plan("MaxVio, six arms lend", Shape(6, 3, lent=(2,) * 6), 3.0, log=True),
)  # fmt: skip


def rows(tables: int) -> list[Row]:
    """Every plan."""
    return each(partial(_plan, tables), PLANS)


def _plan(tables: int, plan: Plan) -> list[Row]:
    shape = plan.shape
    if not shape.seeds:
        seeds = seeds_for(shape, plan.effect)
        assert seeds is not None
        shape = Shape(shape.arms, seeds, shape.correlation, lent=shape.lent)
    reached = by_comparison(shape, plan.effect, BY_COMPARISON) if plan.log else by_test(shape, plan.effect, tables)
    promised = power(shape, plan.effect)
    return [
        {
            "what": plan.what, "arms": shape.arms, "correlation": shape.correlation, "effect": plan.effect,
            "seeds": shape.seeds, "counts": list(shape.counts), "promised": promised, "reached": reached,
        }
    ]  # fmt: skip


def drawn(shape: Shape, tables: int) -> tuple[Array, tuple[Array, Array] | None]:
    """Runs (tables, arms, seeds) with a standard deviation of 1, drawn apart from power.py, and what is lent."""
    random = np.random.default_rng([17, shape.arms, shape.seeds, len(shape.lent), len(shape.counts)])
    own = random.standard_normal((tables, shape.arms, shape.seeds))
    common = random.standard_normal((tables, 1, shape.seeds))
    runs = math.sqrt(1 - shape.correlation) * own + math.sqrt(shape.correlation) * common
    for arm, count in enumerate(shape.counts):
        runs[:, arm, count:] = np.nan
    if not shape.lent:
        return runs, None
    freedom = np.broadcast_to(np.array(shape.lent, float), (tables, len(shape.lent)))
    return runs, (random.chisquare(freedom), freedom)


def by_test(shape: Shape, effect: float, tables: int) -> float:
    """How often the arm that differs is called different; with one seed it is judged as one."""
    runs, lent = drawn(shape, tables)
    runs[:, 1] += effect
    single = min(shape.counts[:2] or (shape.seeds,)) < 2
    found = against_baseline(Fit.of(runs, others=lent), intervals=False, single=single)
    return float(np.mean(found.p_family[:, 0] < FIRST))


def by_comparison(shape: Shape, effect: float, tables: int) -> float:
    """The same by the very function that compares a table's arms, on MaxVio: values are e^(0.17 z) times 0.2."""
    runs, lent = drawn(shape, tables)
    runs[:, 1] += effect
    found = 0
    for place, table in enumerate(0.2 * np.exp(0.17 * runs)):
        samples = {str(arm): _sample(values) for arm, values in enumerate(table)}
        of_table = None if lent is None else (0.17**2 * lent[0][place], lent[1][place])
        found += compare_all(samples, "0", LOG, lent=of_table)["1"].decided
    return found / tables


def _sample(values: Array) -> Sample:
    known: dict[object, float] = {seed: float(v) for seed, v in enumerate(values) if math.isfinite(v)}
    return Sample(known, dict.fromkeys(known, "alike"))


def lines(found: list[Row]) -> list[str]:
    """A line a plan, and how far promise and table are apart at most."""
    told = [
        "| plan | arms | correlation | effect (sd) | seeds an arm | promised, % | reached, % |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    for row in found:
        seeds = ", ".join(map(str, row["counts"])) or str(row["seeds"])
        powers = f"{100 * row['promised']:.0f} | {100 * row['reached']:.0f}"
        shape = f"{row['arms']} | {row['correlation']:g} | {row['effect']:g} | {seeds}"
        told.append(f"| {row['what']} | {shape} | {powers} |")
    apart = max(abs(row["promised"] - row["reached"]) for row in found)
    return [f"Promise and table are at most {100 * apart:.1f} points apart:", "", *told]
