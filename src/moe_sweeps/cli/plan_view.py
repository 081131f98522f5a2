"""What a plan looks like in the terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape

from moe_sweeps.rundir import SETTLED, State
from moe_sweeps.sweep.claims import bound
from moe_sweeps.sweep.cost import PlanCost, RunCost, count_text, flops_text, size_text
from moe_sweeps.sweep.detect import LEVEL, MOST_SEEDS, NOISE_SWEEP, POWER, Noise, Spread, seeds_needed
from moe_sweeps.sweep.estimate import tokens_of
from moe_sweeps.sweep.follow import duration
from moe_sweeps.sweep.grid import Grid
from moe_sweeps.sweep.plan import Plan, done_by


def print_plan(console: Console, plan: Plan, cost: PlanCost) -> None:
    """The question, axes, requested and distinct runs, what collapsed and why, what is done, what the rest costs."""
    lines = [*_question(plan), _headline(plan), *_axes(plan.grid), *_replaced(plan.grid), *_collapsed(plan)]
    lines += [_left(plan), *_cost(cost), *_unjudged(plan)]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    console.print()


def collapse_reasons(plan: Plan) -> list[str]:
    """One sentence for each knob that some requested combinations set and their run does not read."""
    counts = Counter((key, why) for request in plan.requests for key, why in request.unread.items())
    reasons = [
        f"{key} is not read by {why.by} ({why.reader} reads it): set in {count} combination{'s' * (count > 1)}"
        for (key, why), count in counts.items()
    ]
    saved = len(plan.requests) - len(plan.runs)
    if saved and not reasons:
        reasons.append(f"{saved} combination{' means' if saved == 1 else 's mean'} the same as another one")
    return reasons


def print_detect(console: Console, difference: float, noise: Noise, seeds: int) -> None:
    """How many seeds show `difference`, beside the `seeds` that the plan has."""
    goal = f"{POWER:.0%} power at the {LEVEL:.0%} level (two-sided t-test)"
    console.print(f"To see a difference of {difference:g} in validation loss with {goal}:", highlight=False)
    if noise.seeds is None:
        text = f"the noise floor of this size and length was not measured; run -m sweep={NOISE_SWEEP} at this scale"
        console.print(f"  unpaired: [yellow]not known[/]: {text}", highlight=False)
    else:
        console.print(f"  unpaired: {_needed(difference, noise.seeds, paired=False)}", highlight=False)
    if noise.paired is None:
        text = "no two arms of this size and length are finished with two seeds in common"
        console.print(f"  paired by seed: [yellow]not known[/]: {text}", highlight=False)
    else:
        console.print(f"  paired by seed: {_needed(difference, noise.paired, paired=True)}", highlight=False)
    console.print(f"  this plan has {seeds} seed{'s' * (seeds != 1)} an arm\n", highlight=False)


def _needed(difference: float, spread: Spread, *, paired: bool) -> str:
    low, high = (_seeds_text(seeds_needed(difference, sd, paired=paired)) for sd in spread.interval())
    best = _seeds_text(seeds_needed(difference, spread.sd, paired=paired))
    return (
        f"[bold]{best} seeds[/] an arm; {low} to {high} for the 95% interval of the standard deviation, "
        f"which is {spread.sd:.2g} ({spread.source})"
    )


def _seeds_text(count: int | None) -> str:
    return f"more than {MOST_SEEDS}" if count is None else str(count)


def _question(plan: Plan) -> list[str]:
    file = plan.grid.file
    return [f"[bold]{escape(file.question)}[/]", f"  source: {escape(file.source)}"] if file else []


def _headline(plan: Plan) -> str:
    runs, asked = len(plan.runs), len(plan.requests)
    products = [_product(block.axes, block.zips) for block in plan.grid.blocks]
    shape = "one run" if products in ([""], ["1"]) else " + ".join(products)
    out = f" ({plan.grid.excluded} more are excluded)" if plan.grid.excluded else ""
    combinations = f"{asked} combination{'s' * (asked > 1)}"
    return f"[bold]Plan[/]: {shape} = {combinations}{out}, [bold]{runs} distinct run{'s' * (runs > 1)}[/]"


def _product(axes: dict[str, tuple[str, ...]], zips: tuple[dict[str, tuple[str, ...]], ...]) -> str:
    factors = [f"{escape(key)} ({len(values)})" for key, values in axes.items() if len(values) > 1]
    factors += [f"{escape('+'.join(group))} ({len(next(iter(group.values())))})" for group in zips]
    return " x ".join(factors) or ("1" if axes else "")


def _axes(grid: Grid) -> list[str]:
    return [f"  {escape(key)}: {escape(', '.join(values))}" for key, values in grid.axes.items()]


def _replaced(grid: Grid) -> list[str]:
    lines = []
    for r in grid.replaced:
        old = f"in place of {', '.join(r.old)}" if r.old else "beside the file"
        lines.append(f"  [cyan]typed[/]: {escape(r.key)}={escape(','.join(r.new))} {escape(old)}")
    return lines


def _collapsed(plan: Plan) -> list[str]:
    word = "collapsed" if len(plan.requests) > len(plan.runs) else "not read"
    return [f"  [yellow]{word}[/]: {escape(line)}" for line in collapse_reasons(plan)]


def _left(plan: Plan) -> str:
    done = done_by(plan)
    others = Counter(name for name in done.values() if name)
    by = f" ({', '.join(f'{n} by {escape(name)}' for name, n in others.items())})" if others else ""
    todo = [p for p in plan.runs.values() if p.state not in SETTLED]
    cancelled = sum(1 for p in plan.runs.values() if p.state is State.cancelled)
    started = sum(1 for p in todo if p.folder is not None and p.folder.status().step > 0)
    resume = f" ({started} of them go on from where they stopped)" if started else ""
    left_out = f", cancelled: {cancelled} (moe-sweeps retry --cancelled brings them back)" if cancelled else ""
    return f"  already done: {len(done)}{by}, to run: {len(todo)}{resume}{left_out}"


def _cost(cost: PlanCost) -> list[str]:
    if not cost.runs:
        return []
    lines = [f"  model: {_size(group)}" for group in cost.by_size()]
    total = f"{flops_text(cost.flops)} in all" if len(cost.runs) > 1 else ""
    lines += [f"  compute: {total}"] if total else []
    workers = f"{cost.workers} worker{'s' * (cost.workers > 1)}"
    lines.append(f"  estimated: {duration(cost.seconds)} with {workers} ({'; '.join(map(escape, cost.sources))})")
    roughly = "about" if all(r.estimate.measured for r in cost.runs) else "at least"
    short = "[bold red]only[/] " if cost.disk > cost.free_disk else ""
    free = f"{short}{size_text(cost.free_disk)} free"
    lines.append(f"  disk: {roughly} {size_text(cost.disk)} of checkpoints, {free}")
    return lines


def _size(group: list[RunCost]) -> str:
    size, one = group[0].size, group[0]
    times = [r.estimate.seconds for r in group]
    span = duration(min(times))
    if max(times) > 1.2 * min(times):
        span += f" to {duration(max(times)).removeprefix('about ')}"
    return (
        f"{count_text(size.params_total)} parameters, {count_text(size.params_active)} active, "
        f"{count_text(tokens_of(one.planned.run))} tokens, {flops_text(one.flops)} a run, {span} a run"
        f" ({len(group)} run{'s' * (len(group) > 1)})"
    )


def _unjudged(plan: Plan) -> list[str]:
    """Expectations of the file that this plan cannot judge, because what was typed took their arms away."""
    expected = plan.grid.file.expect if plan.grid.file else ()
    reasons = [(e.claim, reason) for e in expected if (reason := bound(e, plan)["cannot"])]
    return [f"  [yellow]cannot be judged[/]: {escape(claim)} ({escape(reason)})" for claim, reason in reasons]
