"""`--budget 2h`: refuse a plan that takes longer, and say what would fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.experiment.options import options
from moe_sweeps.host.hardware import available_cores
from moe_sweeps.launch.follow import duration
from moe_sweeps.sweep.cost import PlanCost, plan_cost
from moe_sweeps.sweep.estimate import Estimator, wall_time
from moe_sweeps.sweep.plan import Plan, make_plan

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}


class OverBudget(MoeSweepsError):
    """The plan takes longer than its budget."""


def parse_duration(text: str) -> float:
    """Seconds of 90s, 30m, 2h, 1h30m or 1d.

    Raises:
        ConfigError: it is none of these.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[dhms])\s*", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not seconds or "".join(n + u for n, u in parts) != re.sub(r"\s+", "", text):
        raise ConfigError("--budget", text, "it must be a time above 0", "Write 90s, 30m, 2h, 1h30m or 1d.")
    return seconds


def require_budget(plan: Plan, cost: PlanCost, budget: str, arguments: Sequence[str], estimator: Estimator) -> None:
    """Refuse a plan that does not fit.

    Raises:
        OverBudget: it takes longer than `budget`; the message lists what would fit.
    """
    limit = parse_duration(budget)
    if cost.seconds <= limit:
        return
    offers = list(_offers(plan, cost, limit, arguments, estimator))
    lines = [f"--budget {budget} is refused: the plan takes {duration(cost.seconds)} with {cost.workers} worker"]
    lines[0] += "s" if cost.workers > 1 else ""
    lines += [f"  would fit: {offer}" for offer in offers] or ["  nothing smaller that was tried fits"]
    raise OverBudget("\n".join(lines))


def _offers(plan: Plan, cost: PlanCost, limit: float, arguments: Sequence[str], estimator: Estimator) -> Iterator[str]:
    yield from _more_workers(cost, limit)
    yield from _fewer_seeds(plan, cost, limit)
    yield from _smaller_scale(plan, cost, limit, arguments, estimator)
    yield from _fewer_steps(plan, cost, limit, estimator)


def _more_workers(cost: PlanCost, limit: float) -> Iterator[str]:
    lengths = [r.seconds for r in cost.runs]
    for workers in range(cost.workers + 1, len(lengths) + 1):
        if wall_time(lengths, workers) <= limit:
            here = available_cores()
            where = "" if workers <= here else f" on a machine with that many free cores (this one has {here})"
            yield f"launch.workers={workers}{where}: {duration(wall_time(lengths, workers))}"
            return


def _fewer_seeds(plan: Plan, cost: PlanCost, limit: float) -> Iterator[str]:
    """Seeds whose runs are finished cost nothing, and come first."""
    unfinished = {r.planned.run.seed for r in cost.runs}
    every = dict.fromkeys(planned.run.seed for planned in plan.runs.values())
    seeds = sorted(every, key=lambda seed: seed in unfinished)
    for count in range(len(seeds) - 1, 0, -1):
        time = wall_time((r.seconds for r in cost.runs if r.planned.run.seed in seeds[:count]), cost.workers)
        if time <= limit:
            yield f"seed={','.join(map(str, seeds[:count]))}, {count} of {len(seeds)} seeds: {duration(time)}"
            return


def _smaller_scale(
    plan: Plan, cost: PlanCost, limit: float, arguments: Sequence[str], estimator: Estimator
) -> Iterator[str]:
    rest, now = [a for a in arguments if not a.startswith("scale=")], {r.run.scale for r in plan.runs.values()}
    found = []
    for scale in options()["scale"]:
        if scale in now:
            continue
        try:
            other = plan_cost(make_plan([*rest, f"scale={scale}"]), estimator, cost.workers)
        except ConfigError:
            continue  # some setting of the sweep is not possible at this scale
        if other.seconds <= limit and other.flops < cost.flops:
            found.append((other.flops, f"scale={scale}, another experiment: {duration(other.seconds)}"))
    yield from (text for _, text in sorted(found, reverse=True))


def _fewer_steps(plan: Plan, cost: PlanCost, limit: float, estimator: Estimator) -> Iterator[str]:
    """Other steps are other runs: all of the plan begin anew, those that are finished, too."""
    runs = [planned.run for planned in plan.runs.values()]
    settings = {(run.trainer.steps, run.schedule.warmup_steps) for run in runs}
    whole = wall_time((estimator.estimate(run).seconds for run in runs), cost.workers)
    steps = int(min(s for s, _ in settings) * limit / whole)
    if len(settings) == 1 and steps > max(w for _, w in settings):
        yield f"trainer.steps={steps}, another experiment: {duration(limit)}"
