"""`--detect 0.002`: how many seeds show a difference of that size, and what the plan at hand can find.

It is the test of the tables on simulated tables of the plan's own arms (results/power.py), so promise and verdict
agree: same correction, same pairing, same spread that alike runs lend. The spread is that of alike runs; seeds count
as blocks only where finished runs of this size show that they move all arms; trunks of forks are blocks by design.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moe_sweeps.experiment.identity import canonical_form
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.manifest import load_manifests, manifest_path
from moe_sweeps.records.noise import size_of
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.sweep.manifest import manifest_of
from moe_sweeps.sweep.plan import Plan

if TYPE_CHECKING:
    from moe_sweeps.results.power import Shape
    from moe_sweeps.results.runs import Row


class SpreadOf(StrEnum):
    """Which runs tell a spread: runs for unforked runs, forks for forks, and unforked runs for forks, as a bound."""

    runs = "runs"
    forks = "forks"
    unforked = "unforked"


@dataclass(frozen=True, slots=True)
class Measured:
    """The spread of one run over seeds in alike arms, and how seeds move arms together.

    `lent` are the degrees of freedom of each arm behind `sd`. `correlation` has its limits, or is None where no two
    arms have two seeds in common. `of_arm` are the same degrees of freedom by arm, and `finished` the ids of finished
    runs: a table judges its own arms by their own runs, so they lend it nothing, and runs that are there already count.
    `replicates`: of forks, how many a unit had at least; the plan's own number, or fewer.
    """

    sd: float
    lent: tuple[int, ...]
    correlation: tuple[float, float, float] | None = None
    of_arm: Mapping[str, int] = field(default_factory=dict)
    finished: Mapping[str, frozenset[str]] = field(default_factory=dict)
    spread_of: SpreadOf = SpreadOf.runs
    replicates: int = 1

    @property
    def of_forks(self) -> bool:
        """Whether it speaks of a plan of forks."""
        return self.spread_of is not SpreadOf.runs

    def shape(self, arms: int, seeds: int, lent: tuple[int, ...], counts: tuple[int, ...] = ()) -> Shape:
        """A table with this noise; one of forks borrows no spread, and its trunks are blocks (results/nested.py)."""
        from moe_sweeps.results.power import Shape

        if self.of_forks:
            return Shape(arms, seeds, counts=counts, by_design=True)
        return Shape(arms, seeds, self.used_correlation, lent=lent, counts=counts)

    @property
    def freedom(self) -> int:
        """Degrees of freedom behind the standard deviation."""
        return sum(self.lent)

    def lent_to(self, arms: Collection[str]) -> tuple[int, ...]:
        """Degrees of freedom of each arm that lends its spread to a table of these arms."""
        return tuple(n for arm, n in self.of_arm.items() if arm not in arms) if self.of_arm else self.lent

    @property
    def used_correlation(self) -> float:
        """The correlation if it is shown to be above zero, else 0: pairing is never assumed."""
        found = self.correlation
        return found[0] if found is not None and found[1] > 0 else 0.0

    def interval(self) -> tuple[float, float]:
        """The 95% interval of the standard deviation, of normal values (chi-squared)."""
        from scipy.stats import chi2  # type: ignore[import-untyped]

        low, high = chi2.ppf([0.975, 0.025], self.freedom)
        return self.sd * math.sqrt(self.freedom / low), self.sd * math.sqrt(self.freedom / high)


@dataclass(frozen=True, slots=True)
class Promise:
    """`seeds` an arm show the difference with POWER, `least` and `most` for the interval of the spread (None: more
    than MOST_SEEDS do not). `power` is the chance of the plan at hand."""

    seeds: int | None
    least: int | None
    most: int | None
    power: float


@dataclass(frozen=True, slots=True)
class Asked:
    """The table that a plan leads to: the runs of each arm, the baseline first, then from the fewest to the most.

    `arms` are their ids where they are known. `look` is its number among all looks at them.
    """

    counts: tuple[int, ...]
    arms: tuple[str, ...] = ()
    look: int = 1

    @classmethod
    def of_plan(cls, plan: Plan, noise: Measured | None) -> Asked:
        """The table of a plan, and which look it is."""
        planned: dict[str, dict[str, object]] = {}
        for run_id, p in plan.runs.items():
            planned.setdefault(p.arm, {})[run_id] = (p.run.seed, p.run.effective_data_seed)
        baseline = plan.arms(plan.grid.file.baseline) if plan.grid.file else []
        found = cls.of(planned, baseline[0] if len(baseline) == 1 else None, noise)
        return replace(found, look=look_of(plan))

    @classmethod
    def of(cls, planned: Mapping[str, Mapping[str, object]], baseline: str | None, noise: Measured | None) -> Asked:
        """The table of `planned`, arm -> run id -> its seeds; an arm's finished runs of other sweeps count, too.

        Replicates of a fork share their seeds, and are one.
        """
        there = {} if noise is None else noise.finished
        counts = {
            arm: len({*runs.values()}) + len(there.get(arm, frozenset()) - runs.keys()) for arm, runs in planned.items()
        }
        first = baseline if baseline in counts else next(iter(counts))
        arms = sorted(counts, key=lambda arm: (arm != first, counts[arm]))
        return cls(tuple(counts[arm] for arm in arms), tuple(arms))

    def shape(self, noise: Measured) -> Shape:
        """The shape of the table, with this noise; a plan of one arm is taken to be compared with another one."""
        counts = self.counts if len(self.counts) > 1 else (*self.counts, *self.counts)
        unequal = counts if len({*counts}) > 1 else ()
        return noise.shape(len(counts), max(counts), noise.lent_to(self.arms), unequal)

    def spelt(self, unit: str = "seeds") -> str:
        """The seeds of an arm, or the trunks, in words."""
        low, high = min(self.counts), max(self.counts)
        return f"{low} {unit.removesuffix('s' * (low == 1))}" if low == high else f"{low} to {high} {unit}"


def promise(difference: float, noise: Measured, asked: Asked) -> Promise:
    """What the table of a plan finds: `power` is that of its arm with the fewest seeds.

    Raises:
        ValueError: `difference` is not above 0.
    """
    from moe_sweeps.results.looks import level_of_look
    from moe_sweeps.results.power import power, seeds_for

    if not difference > 0:
        raise ValueError(f"a difference to detect is above 0, not {difference}")
    level = level_of_look(asked.look)
    if not level:
        return Promise(None, None, None, 0.0)
    counts = asked.counts if len(asked.counts) > 1 else (*asked.counts, *asked.counts)
    equal = noise.shape(len(counts), max(counts), noise.lent_to(asked.arms))
    best, least, most = (seeds_for(equal, difference / sd, level=level) for sd in (noise.sd, *noise.interval()))
    return Promise(best, least, most, power(asked.shape(noise), difference / noise.sd, level=level))


def look_of(plan: Plan) -> int:
    """The number that the table of a plan has among all looks at its arms."""
    from moe_sweeps.results.noise import Noise

    manifest = manifest_of(plan, "")
    if not manifest_path(plan.runs_root, plan.sweep_id).exists():  # it comes after all that are there
        manifest = replace(manifest, created=(datetime.now().astimezone() + timedelta(minutes=1)).isoformat())
    return Noise((), tuple(load_manifests(plan.runs_root)[0])).looks(manifest)


def measured_noise(root: Path, run: RunConfig) -> Measured | None:
    """The noise of runs that have the size of `run`, from finished runs below `root`; None where no arm has two seeds.

    Data and code of runs that are planned are not known yet, so those that have been trained need only agree in size.
    """
    from moe_sweeps.results.noise import Alike, Noise
    from moe_sweeps.results.runs import read_runs

    size = size_of(canonical_form(run))
    noise = Noise.of(read_runs(root), load_manifests(root)[0])
    alike = Alike(tuple(row for row in noise.rows if row["size"] == size))
    lent = alike.lent(PRIMARY)
    if lent is None:
        return None
    squares, freedom = lent
    sd = math.sqrt(float(squares.sum() / freedom.sum()))
    finished: dict[str, set[str]] = {}
    for row in alike.finished():
        finished.setdefault(row["arm"], set()).add(row["run_id"])
    of_arm = {arm: len(ids) - 1 for arm, ids in finished.items() if len(ids) > 1}
    ids = {arm: frozenset(found) for arm, found in finished.items()}
    return Measured(sd, tuple(map(int, freedom)), _correlation(alike.finished()), of_arm, ids)


def _correlation(rows: Sequence[Row]) -> tuple[float, float, float] | None:
    """How strongly seeds move arms that began alike, with its limits (blocks.py)."""
    from moe_sweeps.results.blocks import lay_out

    arms = _by_arm(rows)
    seeds = sorted({seed for values in arms for seed in values}, key=str)
    if len(arms) < 2 or len(seeds) < 2:
        return None
    values = np.array([[arm.get(seed, np.nan) for seed in seeds] for arm in arms])
    found = lay_out(values)
    limits = tuple(float(x) for x in (found.correlation, found.correlation_low, found.correlation_high))
    return None if any(map(math.isnan, limits)) else limits  # type: ignore[return-value]


def _by_arm(rows: Sequence[Row]) -> list[Mapping[object, float]]:
    """The values of each arm with several runs, by what the runs began with."""
    arms: dict[str, dict[object, float]] = {}
    for row in rows:
        start = row.get("pairing.initial_weights"), row.get("pairing.batches")
        if None not in start and row.get(PRIMARY.column) is not None:
            arms.setdefault(row["arm"], {})[start] = row[PRIMARY.column]
    return [values for values in arms.values() if len(values) > 1]
