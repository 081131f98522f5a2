"""How far forks scatter within their trunks, from finished forks; the noise that a plan is judged by, forked or not.

The unit is the mean over the replicates of an arm and a trunk, and trunks are blocks (results/nested.py). A fork is
part of a run's size (records/noise.py): step, trunk and perturbation are those of the plan. Where no such fork is
finished, unforked runs give a bound: they scatter with all that their first steps did, which forks of one trunk share.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moe_sweeps.config.fork import ForkConfig
from moe_sweeps.experiment.identity import canonical_form
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.noise import size_of
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.sweep.detect import Measured, SpreadOf, measured_noise
from moe_sweeps.sweep.plan import Plan

if TYPE_CHECKING:
    from moe_sweeps.results.runs import Row


def noise_for(plan: Plan) -> Measured | None:
    """The noise of runs like the plan's; None where no finished run tells it."""
    first = next(iter(plan.runs.values())).run
    if not first.fork.continues:
        return measured_noise(plan.runs_root, first)
    return noise_of_forks(plan.runs_root, first, replicates(plan)) or _bound(plan.runs_root, first)


def replicates(plan: Plan) -> int:
    """How often each arm of a plan continues from each trunk."""
    return len({planned.run.fork.replicate for planned in plan.runs.values()})


def noise_of_forks(root: Path, run: RunConfig, most: int) -> Measured | None:
    """The spread of forks of the size of `run` that are finished below `root`, by `most` replicates a unit at most."""
    from moe_sweeps.results.runs import read_runs

    size = size_of(canonical_form(run))
    rows = [row for row in read_runs(root).rows.values() if row["size"] == size]
    found = fork_noise(rows, most).get(run.fork.step or 0)
    if found is None or not found[0]:
        return None
    fewest = min(len(unit) for by_arm in _groups(rows).values() for unit in _units(by_arm, most))
    return Measured(found[0], (found[1],), spread_of=SpreadOf.forks, replicates=fewest)


def _bound(root: Path, run: RunConfig) -> Measured | None:
    found = measured_noise(root, dataclasses.replace(run, fork=ForkConfig()))
    return found and Measured(found.sd, found.lent, spread_of=SpreadOf.unforked)


def fork_noise(rows: Sequence[Row], most: int = 1) -> dict[int, tuple[float, int]]:
    """Step of a fork -> the spread of an arm within trunks, and its degrees of freedom, from finished forks.

    Of each unit the first `most` replicates count, so that it scatters as a unit of that many; one that has fewer
    scatters more.
    """
    from moe_sweeps.results.blocks import lay_out

    squares: dict[int, list[tuple[float, float]]] = {}
    for (step, _), by_arm in _groups(rows).items():
        samples = [_values(own, most) for own in by_arm.values()]
        trunks = list(dict.fromkeys(trunk for sample in samples for trunk in sample))
        if len(samples) < 2 or len(trunks) < 2:
            continue
        values = np.array([[sample.get(trunk, math.nan) for trunk in trunks] for sample in samples])
        layout = lay_out(values, by_design=True)
        squares.setdefault(step, []).append((float(layout.squares.sum()), float(layout.freedom.sum())))
    sums = {step: (sum(s for s, _ in found), sum(f for _, f in found)) for step, found in squares.items()}
    return {step: (math.sqrt(s / f), round(f)) for step, (s, f) in sums.items() if f >= 1}


def _groups(rows: Sequence[Row]) -> dict[tuple[int, object], dict[str, list[Row]]]:
    """Step and trunk's arm -> arm -> its finished forks that have a number."""
    from moe_sweeps.results.nested import FORKED, is_forked
    from moe_sweeps.results.runs import is_finished

    groups: dict[tuple[int, object], dict[str, list[Row]]] = {}
    for row in rows:
        if is_forked(row) and is_finished(row) and row.get(PRIMARY.column) is not None:
            groups.setdefault((int(row[FORKED]), row.get("fork.arm")), {}).setdefault(row["arm"], []).append(row)
    return groups


def _units(by_arm: Mapping[str, Sequence[Row]], most: int) -> Iterator[list[Row]]:
    """The replicates of each arm and trunk: the same numbers in all arms, whose weights they perturb alike."""
    from moe_sweeps.results.nested import units

    for rows in by_arm.values():
        for unit in units(rows).values():
            yield sorted(unit, key=lambda row: int(row.get("fork.replicate") or 0))[:most]


def _values(rows: Sequence[Row], most: int) -> dict[Hashable, float]:
    """Trunk -> the mean over the first `most` replicates."""
    from moe_sweeps.results.nested import unit_values

    kept = [row for unit in _units({"": rows}, most) for row in unit]
    return unit_values(kept, lambda row: row.get(PRIMARY.column))
