"""What a plan is worth before anything is trained: what its table finds, and a cheaper plan that finds the same.

It is the test of the tables on simulated tables of the plan's shape (results/power.py), with the spread of finished
runs of the same size. Of forks, trunks count as seeds, and the spread is that of finished forks (fork_noise.py). What
is cheaper: cheaper.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.sweep.cheaper import Cheaper, fewer_arms, forked, other_scales
from moe_sweeps.sweep.detect import Asked, Measured
from moe_sweeps.sweep.fork_noise import noise_for
from moe_sweeps.sweep.plan import Plan


@dataclass(frozen=True, slots=True)
class Worth:
    """A plan of so many arms and seeds finds `finds` nats with a chance of POWER; None: nothing.

    It is look `look` at its arms; a later one is held against less (results/looks.py). `asked` is the smallest margin
    that its claims about validation loss name, in nats, and `power` the chance that it finds a difference of that size.
    Seeds of forks are their trunks. `counts`: the fewest and the most that an arm has with the finished runs that other
    sweeps asked for, which its table counts.
    """

    arms: int
    seeds: int
    noise: Measured
    finds: float | None
    asked: float | None
    power: float | None
    cheaper: tuple[Cheaper, ...]
    look: int = 1
    counts: tuple[int, int] = (0, 0)


def worth(plan: Plan) -> Worth | None:
    """What the plan finds; None where no finished run says how far such runs scatter, or nothing is compared."""
    from moe_sweeps.results.looks import level_of_look
    from moe_sweeps.results.power import detectable, power

    arms = _arms(plan)
    noise = noise_for(plan) if len(arms) > 1 else None
    if noise is None:
        return None
    seeds = len({(p.run.seed, p.run.effective_data_seed) for p in plan.runs.values()})
    table, asked = Asked.of_plan(plan, noise), _asked(plan)
    shape, level = table.shape(noise), level_of_look(table.look)
    found = detectable(shape, level=level) if level else None
    chance = power(shape, asked / noise.sd, level=level) if asked and level else 0.0 if asked else None
    offers = sorted(_offers(plan, arms, _with_equal_seeds(arms, seeds, noise, level), asked, noise, level),
                    key=lambda one: one.share)  # fmt: skip
    return Worth(
        len(arms),
        seeds,
        noise,
        found and found * noise.sd,
        asked,
        chance,
        tuple(offers),
        table.look,
        (min(table.counts), max(table.counts)),
    )


def _with_equal_seeds(arms: Sequence[str], seeds: int, noise: Measured, level: float) -> float | None:
    """What the plan's own runs find: those that are there already help a cheaper plan just as much."""
    from moe_sweeps.results.power import detectable

    return detectable(noise.shape(len(arms), seeds, noise.lent_to(arms)), level=level) if level else None


def untold(plan: Plan) -> bool:
    """Whether a plan compares forks. Of these it is said where nothing tells their spread."""
    return bool(plan.trunks) and len(_arms(plan)) > 1


def _arms(plan: Plan) -> list[str]:
    return list(dict.fromkeys(planned.arm for planned in plan.runs.values()))


def _offers(
    plan: Plan, arms: Sequence[str], found: float | None, asked: float | None, noise: Measured, level: float
) -> Iterator[Cheaper]:
    if found is not None:
        yield from fewer_arms(plan, arms, found, noise, level)
    if noise.of_forks:  # another fork, or one at another length, is another question
        return
    if found is not None:
        yield from forked(plan, arms, found, noise)
    if asked:
        yield from other_scales(plan, asked)


def _asked(plan: Plan) -> float | None:
    """The smallest margin that the plan's claims about validation loss name."""
    expected = plan.grid.file.expect if plan.grid.file else ()
    margins = [e.by or e.within for e in expected if e.metric == PRIMARY.column]
    return min((margin for margin in margins if margin), default=None)
