"""Plans that find as much as a plan, or what its claims ask for, and cost less.

Fewer arms, forks, or another scale, each with as many seeds as it takes by the test of the tables. The last two ask
another question than the plan does, and say so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.identity import canonical_form, identity
from moe_sweeps.experiment.options import options
from moe_sweeps.experiment.overrides import Setting
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.noise import size_of
from moe_sweeps.sweep.detect import Measured, measured_noise
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.fork_noise import fork_noise, replicates
from moe_sweeps.sweep.manifest import bound
from moe_sweeps.sweep.plan import Plan, PlannedRun

if TYPE_CHECKING:
    from moe_sweeps.results.runs import Row

_OF_SIZE = ("trainer.steps", "trainer.batch_size", "trainer.seq_len")
WORTH_SAYING = 0.9  # a plan that costs more than this share of the plan at hand is not offered
SCALE = "scale"


@dataclass(frozen=True, slots=True)
class Cheaper:
    """A plan that finds `finds` nats (None: as much): what it changes, and its cost as a share of the plan's.

    `seeds` are those of an arm, of `forks` the trunks. `caveat`: how its question differs; empty: it is the same one.
    """

    change: str
    seeds: int
    share: float
    finds: float | None = None
    caveat: str = ""
    forks: bool = False


def fewer_arms(plan: Plan, arms: Sequence[str], found: float, noise: Measured, level: float) -> Iterator[Cheaper]:
    """Without the arms that no claim speaks of; `found` is what the plan finds, in standard deviations, at `level`."""
    from moe_sweeps.results.power import seeds_for

    spoken_of = _claimed(plan)
    kept = [arm for arm in arms if arm in spoken_of]
    if not 2 <= len(kept) < len(arms):
        return
    seeds = seeds_for(noise.shape(len(kept), 2, noise.lent_to(kept)), found, level=level)
    if seeds is None:
        return
    share = seeds * _steps_of_a_seed(plan, len(kept)) / (_seeds(plan, arms) * _steps_of_a_seed(plan, len(arms)))
    if share <= WORTH_SAYING:
        left_out = len(arms) - len(kept)
        yield Cheaper(
            f"without the {left_out} arm{'s' * (left_out > 1)} that no claim speaks of",
            seeds,
            share,
            forks=noise.of_forks,
        )


def _seeds(plan: Plan, arms: Sequence[str]) -> float:
    return len(plan.runs) / (len(arms) * replicates(plan))


def _steps_of_a_seed(plan: Plan, arms: int) -> float:
    """What one seed of so many arms costs, in whole runs: of forks with their trunk."""
    run = next(iter(plan.runs.values())).run
    begun = (run.fork.step or 0) / run.trainer.steps
    return arms * replicates(plan) * (1 - begun) + begun


def _claimed(plan: Plan) -> set[str]:
    """The arms that the claims speak of, and the baseline."""
    file = plan.grid.file
    if file is None:
        return set()
    statements = [bound(expectation, plan) for expectation in file.expect]
    named = {arm for s in statements for arm in (s.arm, s.than, *(a for _, a in s.points)) if arm}
    return named | set(plan.arms(file.baseline)[:1])


def forked(plan: Plan, arms: Sequence[str], found: float, noise: Measured) -> Iterator[Cheaper]:
    """The same arms forked, where finished forks of the plan's size tell how far they scatter."""
    from moe_sweeps.results.power import Shape, seeds_for
    from moe_sweeps.results.runs import read_runs

    first = next(iter(plan.runs.values())).run
    size, seeds = size_of(canonical_form(first)), _seeds(plan, arms)
    every = list(read_runs(plan.runs_root).rows.values())
    like = next((row for row in every if row["size"] == size), None)
    rows = [row for row in every if like is not None and same_but_for_the_fork(row, like)]
    for step, (sd, _) in fork_noise(rows).items():
        if not 0 < step < first.trainer.steps or not sd:
            continue
        trunks = seeds_for(Shape(len(arms), 2, by_design=True), found * noise.sd / sd)
        begun = step / first.trainer.steps
        if trunks is None:
            continue
        share = trunks * (len(arms) * (1 - begun) + begun) / (seeds * len(arms))
        if share <= WORTH_SAYING:
            caveat = f"its question is: from step {step} on"
            yield Cheaper(f"fork.step={step}", trunks, share, caveat=caveat, forks=True)


def same_but_for_the_fork(row: Row, like: Row) -> bool:
    """Whether two runs have the same size, one being forked (records/noise.py)."""
    keys = {key for key in (*row, *like) if key.partition(".")[0] in ("model", "data") or key in _OF_SIZE}
    return all(row.get(key) == like.get(key) for key in keys)


def other_scales(plan: Plan, asked: float) -> Iterator[Cheaper]:
    """The same arms at another scale that find `asked` nats there.

    Only where finished runs tell the noise of that size, and the time of every run of it and of the plan.
    """
    from moe_sweeps.results.power import seeds_for

    there = list(_at_other_scales(plan))
    if not there:
        return
    estimator = Estimator(plan.runs_root)
    for scale, runs, noise in there:
        own = [identity(run)["arm"] for run in runs]
        seeds = seeds_for(noise.shape(len(runs), 2, noise.lent_to(own)), asked / noise.sd)
        whole, one = (_seconds(estimator, of) for of in ([p.run for p in plan.runs.values()], runs))
        if seeds is None or whole is None or one is None:
            continue
        share = seeds * one / whole
        if share <= WORTH_SAYING:
            yield Cheaper(f"{SCALE}={scale}", seeds, share, asked, _caveat(plan, runs[0]))


def _at_other_scales(plan: Plan) -> Iterator[tuple[str, list[RunConfig], Measured]]:
    """Scale, one run of each arm there, and the noise of that size."""
    from moe_sweeps.results.runs import read_runs

    sizes = {row["size"] for row in read_runs(plan.runs_root).rows.values()}
    sizes -= {size_of(canonical_form(planned.run)) for planned in plan.runs.values()}
    for scale in options()[SCALE] if sizes else ():
        runs = _at(scale, plan, sizes)
        noise = measured_noise(plan.runs_root, runs[0]) if runs else None
        if noise is not None:
            yield scale, runs, noise


def _at(scale: str, plan: Plan, sizes: Collection[str]) -> list[RunConfig]:
    """One run of each arm at this scale; empty where they are not the same arms, all of one of these sizes."""
    firsts: dict[str, PlannedRun] = {}
    for planned in plan.runs.values():
        firsts.setdefault(planned.arm, planned)
    runs: list[RunConfig] = []
    for planned in firsts.values():
        try:
            run = compose([*(s for s in planned.typed if s.key != SCALE), Setting(SCALE, scale)])
        except ConfigError:  # what the sweep sets cannot be had at this scale
            return []
        size = size_of(canonical_form(run))
        if size not in sizes or (runs and size != size_of(canonical_form(runs[0]))):
            return []
        runs.append(run)
    return runs if len({identity(run)["arm"] for run in runs}) == len(firsts) else []


def _seconds(estimator: Estimator, runs: Sequence[RunConfig]) -> float | None:
    """What runs take together; None where finished runs do not tell it."""
    found = [estimator.estimate(run) for run in runs]
    return sum(one.seconds for one in found) if all(one.measured for one in found) else None


def _caveat(plan: Plan, there: RunConfig) -> str:
    here = next(iter(plan.runs.values())).run
    same_text = canonical_form(here).get("data") == canonical_form(there).get("data")
    return f"it asks the question at another size{'' if same_text else ' and on other text'}"
