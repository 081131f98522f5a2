"""What a plan looks like in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from rich.console import Console
from rich.markup import escape

from moe_sweeps.data.account import planned_text
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.launch.follow import duration
from moe_sweeps.paths import resolve
from moe_sweeps.records.genuine import REPLICATE_KEYS
from moe_sweeps.records.noise import SWEEP
from moe_sweeps.records.rundir import SETTLED, State
from moe_sweeps.sweep.cost import PlanCost, RunCost, count_text, flops_text, size_text
from moe_sweeps.sweep.detect import Asked, Measured, SpreadOf, promise
from moe_sweeps.sweep.estimate import tokens_of
from moe_sweeps.sweep.fitting import needed_text
from moe_sweeps.sweep.forks import REPLICATE
from moe_sweeps.sweep.grid import Grid
from moe_sweeps.sweep.manifest import bound
from moe_sweeps.sweep.plan import Plan, Request, done_by
from moe_sweeps.sweep.why import is_infrastructure
from moe_sweeps.sweep.worth import Worth
from moe_sweeps.training.too_large import memory_text

_UNTOLD = ("power: not known: no finished forks of this size tell how far they scatter, nor do unforked runs",)
_NO_FORKS = "no forks of this size are finished, so the larger spread of unforked runs stands in, a cautious figure"


def print_plan(console: Console, plan: Plan, cost: PlanCost, code: Sequence[str] = ()) -> None:
    """The question, axes, requested and distinct runs, what collapsed and why, what is done, what the rest costs.

    `code`: the lines about results of other code (code_view.py).
    """
    lines = [
        *_question(plan),
        _headline(plan),
        *_axes(plan),
        *_fork(plan),
        *_replaced(plan.grid),
        *_collapsed(plan),
        _left(plan),
    ]
    lines += [*code, *text_lines(p.run for p in plan.runs.values()), *_cost(cost), *_unjudged(plan)]
    for line in lines:
        console.print(line, highlight=False, markup=True, soft_wrap=True)
    console.print()


def text_lines(runs: Iterable[RunConfig]) -> list[str]:
    """Which files the text of `runs` is read from, where it is the user's own, and which files beside them are not
    read.

    Raises:
        DataError: there is no such text.
    """
    texts = {repr((run.data, run.paths.data)): run for run in runs}.values()
    found = (planned_text(run.data, resolve(run.paths.data)) for run in texts)
    return [f"  {escape(line)}" for line in dict.fromkeys(chain.from_iterable(found))]


def collapse_reasons(plan: Plan) -> list[str]:
    """One sentence for each knob that some requested combinations set and their run does not read."""
    counts = Counter((key, why) for request in plan.requests for key, why in request.unread.items())
    reasons = [
        f"{key} is not read by {why.by} ({why.reader} reads it): set in {count} combination{'s' * (count > 1)}"
        for (key, why), count in counts.items()
    ]
    reasons += _infrastructure_reasons(plan)
    saved = len(plan.requests) - len(plan.runs)
    if saved and not reasons:
        reasons.append(f"{saved} combination{' means' if saved == 1 else 's mean'} the same as another one")
    return reasons


def _infrastructure_reasons(plan: Plan) -> Iterator[str]:
    """A sentence for each axis that cannot change a result, so that the run has the value of the first combination."""
    for key in plan.axes:
        lost = dict.fromkeys(filter(None, (_lost(plan, request, key) for request in plan.requests)))
        for kept in dict.fromkeys(kept for kept, _ in lost):
            others = ", ".join(other for first, other in lost if first == kept)
            yield f"{key} cannot change a result: runs are trained with {kept}, and not again with {others}"


def _lost(plan: Plan, request: Request, key: str) -> tuple[str, str] | None:
    """The value of an infrastructure key that a combination's run has, and that which the combination asked for."""
    planned = plan.runs[request.run_id]
    first, asked = ({s.key: s.value for s in settings}.get(key) for settings in (planned.settings, request.settings))
    if first is None or asked is None or first == asked or not is_infrastructure(key, planned.run):
        return None
    return first, asked


def print_worth(console: Console, found: Worth | None, untold: bool = False) -> None:
    """What the plan finds before anything is trained, and cheaper plans that find as much.

    `untold`: where nothing tells, that is said.
    """
    lines = _found(found) if found else _UNTOLD if untold else ()
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    if lines:
        console.print()


def _found(found: Worth) -> Iterator[str]:
    from moe_sweeps.results.looks import level_of_look
    from moe_sweeps.results.power import POWER

    noise = found.noise
    seeds = _counted(found.seeds, noise.of_forks)
    if found.counts != (found.seeds, found.seeds):
        seeds += f", {_from_to(*found.counts)} with the finished runs that are there,"
    if noise.spread_of is SpreadOf.unforked:
        yield f"power: {_NO_FORKS}"
    if found.look > 1:
        level = level_of_look(found.look)
        yield f"power: it is look {found.look} at these arms, so a finding needs a p below {level:g}"
    if found.finds is None:
        yield f"power: {seeds} promises nothing: no difference is found with a chance of {POWER:.0%}"
    else:
        text = f"an arm that differs by {found.finds:.2g} nats from the baseline with a chance of {POWER:.0%}"
        yield f"power: with {seeds} it finds {text} ({_spread(noise)})"
    yield from _few(min(found.counts), noise.of_forks)
    if found.asked is not None and found.power is not None:
        yield f"  the smallest margin of its claims, {found.asked:g} nats, is found with a chance of {found.power:.0%}"
    for one in found.cheaper:
        what = "as much is found" if one.finds is None else f"{one.finds:g} nats are found"
        change = f"with {one.change}" if "=" in one.change else one.change
        but = f", but {one.caveat}" if one.caveat else ""
        yield f"  {what} {change}, {_counted(one.seeds, one.forks)}: {one.share:.0%} of its core time{but}"


def _few(seeds: int, of_forks: bool) -> Iterator[str]:
    """What a promise with one or two seeds rests on: with one the own spread is assumed, with two it counts and is
    hardly known, so that two seem worse than one."""
    unit = "trunk" if of_forks else "seed"
    if seeds == 1:
        yield f"  one {unit}: an arm is taken to scatter as the others do, and nothing checks it; take three or more"
    elif seeds == 2:
        yield f"  two {unit}s say almost nothing of an arm's own spread, which counts from two on; take three or more"


def _from_to(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _counted(count: int, of_forks: bool) -> str:
    """So many seeds or trunks, in words."""
    return f"{count} trunk{'s' * (count != 1)}" if of_forks else f"{count} seed{'s' * (count != 1)} an arm"


def _spread(noise: Measured) -> str:
    of = {SpreadOf.runs: "", SpreadOf.unforked: " of unforked runs"}
    replicates = f" of forks within trunks, {noise.replicates} replicate{'s' * (noise.replicates != 1)} an arm"
    return f"sd {noise.sd:.2g}{of.get(noise.spread_of, replicates)}, {noise.freedom} degrees of freedom"


def print_detect(console: Console, difference: float, noise: Measured | None, asked: Asked) -> None:
    """How many seeds show `difference`, and the chance that the plan's table has."""
    from moe_sweeps.results.power import MOST_SEEDS, POWER

    console.print(
        f"To see a difference of {difference:g} in validation loss in a table of {len(asked.counts)} arms:",
        highlight=False,
    )
    if noise is None:
        text = f"no arm of this size and length has two finished seeds; run -m sweep={SWEEP} at this scale"
        console.print(f"  [yellow]not known[/]: {text}\n", highlight=False, markup=True)
        return
    found = promise(difference, noise, asked)
    counts = (found.least, found.seeds, found.most)
    least, best, most = (f"more than {MOST_SEEDS}" if count is None else str(count) for count in counts)
    unit, each, behind = ("trunks", "", "") if noise.of_forks else ("seeds", " an arm", f" in {_arms(len(noise.lent))}")
    console.print(
        f"  [bold]{best} {unit}[/]{each} find it with a chance of {POWER:.0%}; {least} to "
        f"{most} for the 95% interval of the standard deviation, which is {noise.sd:.2g} ({noise.freedom} degrees of "
        f"freedom{behind})",
        highlight=False,
        markup=True,
    )
    console.print(f"  {_pairing(noise)}", highlight=False)
    console.print(
        f"  this plan has {asked.spelt(unit)}{each}, and finds it with a chance of [bold]{found.power:.0%}[/]"
        f"{' in the arm with the fewest' * (len({*asked.counts}) > 1)}, if all its runs end{_of_look(asked.look)}",
        highlight=False,
        markup=True,
    )
    for line in _few(min(asked.counts), noise.of_forks):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print()


def _of_look(look: int) -> str:
    from moe_sweeps.results.looks import level_of_look

    return f"; it is look {look} at these arms, held against {level_of_look(look):g}" if look > 1 else ""


def _arms(count: int) -> str:
    return f"{count} arm{'s' * (count != 1)}"


def _pairing(noise: Measured) -> str:
    if noise.of_forks:
        return _NO_FORKS if noise.spread_of is SpreadOf.unforked else "trunks are blocks by design, replicates no seeds"
    if noise.correlation is None:
        return "seeds are taken to be independent: no two arms of this size have two seeds in common"
    at, low, high = noise.correlation
    shown = f"the correlation of seeds between arms is {at:.2f} ({low:.2f} to {high:.2f})"
    return f"{shown}: pairing helps and is used" if low > 0 else f"{shown}: pairing is not shown to help"


def _question(plan: Plan) -> list[str]:
    file = plan.grid.file
    return [f"[bold]{escape(file.question)}[/]", f"  source: {escape(file.source)}"] if file else []


def _headline(plan: Plan) -> str:
    runs, asked = len(plan.runs), len(plan.requests)
    replicates = _replicates(plan)
    products = [_product({**block.axes, **replicates}, block.zips) for block in plan.grid.blocks]
    shape = "one run" if products in ([""], ["1"]) else " + ".join(products)
    out = f" ({plan.grid.excluded} more are excluded)" if plan.grid.excluded else ""
    combinations = f"{asked} combination{'s' * (asked > 1)}"
    return f"[bold]Plan[/]: {shape} = {combinations}{out}, [bold]{runs} distinct run{'s' * (runs > 1)}[/]"


def _replicates(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The axis that `fork.replicates` adds to each block."""
    typed = any(REPLICATE in block.keys for block in plan.grid.blocks)
    return {} if typed else {key: tuple(values) for key, values in plan.axes.items() if key == REPLICATE}


def _product(axes: dict[str, tuple[str, ...]], zips: tuple[dict[str, tuple[str, ...]], ...]) -> str:
    factors = [f"{escape(key)} ({len(values)})" for key, values in axes.items() if len(values) > 1]
    factors += [f"{escape('+'.join(group))} ({len(next(iter(group.values())))})" for group in zips]
    return " x ".join(factors) or ("1" if axes else "")


def _axes(plan: Plan) -> list[str]:
    return [f"  {escape(key)}: {escape(', '.join(values))}" for key, values in plan.axes.items()]


def _fork(plan: Plan) -> list[str]:
    """From which step on arms differ, and what they share before it."""
    if not plan.trunks:
        return []
    first, states = next(iter(plan.trunks.values())), [p.state for p in plan.trunks.values()]
    recipe = " ".join(
        str(s) for s in first.settings if s.key not in REPLICATE_KEYS and s.key not in ("fork.step", "fork.role")
    )
    left = sum(1 for p in plan.to_train.values() if p.run_id in plan.trunks and p.state not in SETTLED)
    count = f"{len(states)} trunk{'s' * (len(states) > 1)}, one for each seed, {left} to train"
    return [f"  [cyan]forked[/]: from step {first.run.last_step} on; {count} ({escape(recipe or 'the defaults')})"]


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
    started = sum(1 for p in todo if p.step > 0)
    resume = f" ({started} of them resume from their checkpoints)" if started else ""
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
    lines += [f"  [yellow]no probe[/]: {escape(problem)}" for problem in cost.problems]
    short = "[bold red]only[/] " if cost.disk > cost.free_disk else ""
    free = f"{short}{size_text(cost.free_disk)} free"
    lines.append(f"  disk: about {size_text(cost.disk)} of checkpoints, {free}")
    return lines + _memory(cost)


def _memory(cost: PlanCost) -> list[str]:
    """What the largest run needs, what there is, and what follows from that."""
    largest = max(cost.runs, key=lambda r: r.memory.estimate)
    needs, machine = largest.memory, cost.machine
    of = " on a GPU" if needs.on_gpu else ""
    each = "a process" if len({r.memory for r in cost.runs}) == 1 else "the largest process"
    lines = [f"  memory: about {memory_text(needs.estimate)} {each}{of} ({needed_text(needs)})"]
    if machine is None or machine.ram is None:
        return lines
    lines[0] += f"; {machine.ram.where} {memory_text(machine.ram.bytes)}"
    if cost.workers < cost.wanted_workers:
        fewer = f"{cost.workers} instead of {cost.wanted_workers}"
        lines.append(f"  [yellow]fewer workers[/]: {fewer}, since no more fit into memory at once")
    at_once = sorted((r.memory.estimate_ram for r in cost.runs), reverse=True)[: cost.workers]
    if not all(machine.holds(r.planned.run) for r in cost.runs):
        lines.append(
            "  [bold red]too large[/]: the largest run does not fit into this machine, which refuses to train it"
        )
    elif sum(at_once) > machine.free:
        free = f"{memory_text(machine.free)} can be had now"
        lines.append(f"  [yellow]memory is short[/]: about {memory_text(sum(at_once))} will be needed, and {free}")
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
    """Expectations of the file that this plan cannot judge, because the command line removed their arms."""
    expected = plan.grid.file.expect if plan.grid.file else ()
    reasons = [(e.claim, reason) for e in expected if (reason := bound(e, plan).cannot)]
    return [f"  [yellow]cannot be judged[/]: {escape(claim)} ({escape(reason)})" for claim, reason in reasons]
