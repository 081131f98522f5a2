"""What a search looks like in the terminal: its plan, and its trials, best first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from moe_sweeps.cli.follow import STATE_STYLE
from moe_sweeps.cli.plan_view import text_lines
from moe_sweeps.cli.roots import command_at
from moe_sweeps.host.folding import Column, FoldedTable
from moe_sweeps.host.shell import train_command
from moe_sweeps.launch.follow import duration
from moe_sweeps.sweep.cost import count_text, flops_text, size_text
from moe_sweeps.sweep.estimate import tokens_of
from moe_sweeps.sweep.plan import unread_settings
from moe_sweeps.sweep.search.cost import SearchCost
from moe_sweeps.sweep.search.drive import Search
from moe_sweeps.sweep.search.plan import SearchPlan
from moe_sweeps.sweep.search.trials import Outcome, Standing, Trial

MOST_ROWS = 40
STYLES = {**STATE_STYLE, Outcome.refused: "magenta", Outcome.open: "dim"}


def print_search_plan(console: Console, search: Search, cost: SearchCost) -> None:
    """Space, trials, seeds, rungs, what is trained already, and what the rest can cost."""
    plan = search.plan
    lines = [_headline(plan), *_space(plan), *_rungs(plan), *_collapsed(plan), *_so_far(search)]
    lines += text_lines([plan.base])
    lines += ["  complete: nothing is left to train"] if search.is_complete else _cost(cost)
    for line in lines:
        console.print(line, highlight=False, markup=True, soft_wrap=True)
    console.print()


def print_trials(console: Console, search: Search) -> None:
    """The trials, best first, and how to train the best one again."""
    trials, metric = search.ranked(), search.plan.search.metric
    over = not any(found.outcome is Outcome.open for _, found in trials)
    columns = [Column("trial", right=True), *(Column(key, told=True) for key in search.plan.space.axes)]
    columns += [Column(name, right=True) for name in ("step", metric.value, "seeds")]
    columns.append(Column("outcome", folds=True, told=True))
    table = FoldedTable(columns, [_row(search, trial, found, over) for trial, found in trials[:MOST_ROWS]])
    console.print(Text(f"{search.plan.name} ({search.plan.search_id})", "bold"))
    console.print(table)
    if len(trials) > MOST_ROWS:
        console.print(
            f"and {len(trials) - MOST_ROWS} more: {command_at(search.plan.runs_root, 'tables', search.plan.search_id)}",
            style="dim",
        )
    for line in _conclusion(search, trials):
        console.print(line, highlight=False, markup=True, soft_wrap=True)
    console.print()


def value_text(value: float | None, search: Search) -> str:
    """A metric in its own direction and unit."""
    if value is None or math.isinf(value):
        return "-"
    metric = search.plan.search.number
    return metric.spell(value if metric.lower_is_better else -value)


def reproduce(search: Search, trial: Trial) -> str:
    """The command line that trains a trial's runs."""
    space = search.plan.space
    seeds = {"seed": ",".join(space.seeds)} if space.seeds != ("0",) else {}
    settings = {**space.constants, **{k: v for k, v in trial.point.items() if k not in trial.unread}, **seeds}
    return train_command((f"{k}={v}" for k, v in settings.items()), several=len(space.seeds) > 1)


# --- the plan ---


def _headline(plan: SearchPlan) -> str:
    seeds = len(plan.space.seeds)
    each = f" x {seeds} seeds" if seeds > 1 else ""
    goal = "lowest" if plan.search.number.lower_is_better else "highest"
    return f"[bold]Search[/]: {plan.search.kind}, {plan.search.trials} trials{each}, {goal} {plan.search.metric.value}"


def _space(plan: SearchPlan) -> list[str]:
    lines = [f"  {escape(key)}: {escape(str(axis))}" for key, axis in plan.space.axes.items()]
    if len(plan.space.seeds) > 1:
        lines.append(f"  seed: {', '.join(plan.space.seeds)}; a trial's value is the mean over them")
    return lines


def _rungs(plan: SearchPlan) -> list[str]:
    if not plan.rungs:
        return ["  pruning: none; every trial is trained to its end (search.min_steps=N stops bad ones at N steps)"]
    rungs = ", ".join(map(str, plan.rungs))
    share = f"the best 1 in {plan.search.reduction} resumes from its checkpoint"
    return [f"  rungs: {rungs} of {plan.steps} steps; of the trials at a rung {share}"]


def _collapsed(plan: SearchPlan) -> list[str]:
    """Axes that nothing reads at some corner of the space, and how many of its points are distinct."""
    unread = {
        (key, why.by, why.reader)
        for settings, run in plan.corners
        for key, why in unread_settings(run, settings).items()
        if key in plan.space.axes
    }
    lines = [
        f"  [yellow]not read[/]: {escape(f'{key} by {by} ({reader} reads it)')}" for key, by, reader in sorted(unread)
    ]
    if plan.distinct_points is not None:
        few = f"; no more than {plan.most_trained} trials are trained" if plan.most_trained < plan.search.trials else ""
        lines.append(f"  points: {plan.space.size}, {plan.distinct_points} of them distinct{few}")
    return lines


def _so_far(search: Search) -> list[str]:
    if not search.trials:
        return []
    counts = Counter(search.standing(t).outcome.value for t in search.trials if t.same_as is None)
    repeated = sum(t.same_as is not None for t in search.trials)
    known = ", ".join(f"{n} {name}" for name, n in counts.items()) + (f", {repeated} repeated" if repeated else "")
    asked = f"{len(search.trials)} trial{'s' * (len(search.trials) > 1)}"
    return [f"  already suggested: {asked} ({known})"]


def _cost(cost: SearchCost) -> list[str]:
    plan, size = cost.plan, cost.size
    runs = plan.most_trained * len(plan.space.seeds)
    flops = flops_text(cost.flops_of_run / plan.steps * plan.most_steps)
    most = cost.seconds(plan.most_steps)
    workers = f"{cost.workers} worker{'s' * (cost.workers > 1)}"
    model = f"{count_text(size.params_total)} parameters, {count_text(size.params_active)} active"
    tokens = f"{count_text(tokens_of(plan.base))} tokens"
    lines = [
        f"  model: up to {model}, {tokens}, {flops_text(cost.flops_of_run)} a run",
        f"  at most: {runs} runs, {plan.most_steps:,} steps, {flops}, {duration(most)} with {workers} "
        f"({escape(cost.estimate.source)})",
    ]
    if plan.rungs:
        expected = f"about {plan.expected_steps:,} steps ({plan.expected_steps / plan.most_steps:.0%})"
        passed = f"if 1 in {plan.search.reduction} is promoted from each rung; more if good trials come late"
        lines.append(f"  with pruning: {expected}, {duration(cost.seconds(plan.expected_steps))}, {passed}")
    done = f"; {cost.trained:,} steps are trained already" if cost.trained else ""
    free = f"{size_text(cost.free_disk)} free"
    return [*lines, f"  disk: at most {size_text(cost.disk)} of checkpoints, {free}{done}"]


# --- the result ---


def _row(search: Search, trial: Trial, found: Standing, over: bool) -> list[str | Text]:
    point = ["–" if key in trial.unread else trial.point[key] for key in search.plan.space.axes]
    runs = list(trial.runs.values())
    total = runs[0].trainer.steps if runs else search.plan.steps
    outcome = "pruned" if over and found.outcome is Outcome.paused else found.outcome.value
    text = Text(outcome, STYLES.get(outcome, ""))
    if trial.refused:
        text.append(f": {trial.refused}")
    seeds = f"{found.seeds_done}/{len(search.plan.space.seeds)}"
    return [str(trial.number), *point, f"{found.step}/{total}", value_text(found.best_known, search), seeds, text]


def _conclusion(search: Search, trials: Sequence[tuple[Trial, Standing]]) -> list[str]:
    lines = []
    if any(found.outcome is Outcome.paused for _, found in trials):
        lines.append(
            f"A run that stopped at a rung has its value there, on {search.plan.base.trainer.eval_sequences} sequences "
            "of the validation set and the schedule of the whole run. It is not final and in no table's mean."
        )
    if not trials or trials[0][1].outcome is not Outcome.done:
        return [*lines, "No trial was trained to its end."]
    trial, stand = trials[0]
    lines.append(f"[bold]Best[/]: trial {trial.number}, {search.plan.search.metric.value} "
                 f"{value_text(stand.final, search)}")  # fmt: skip
    lines.append(f"  {escape(reproduce(search, trial))}")
    others = sum(s.outcome is Outcome.done for _, s in trials)
    if others > 1:
        lines.append(
            f"[dim]  The best of {others} is partly the luckiest: before you believe a difference, train it and its "
            "rivals with seeds that the search did not use.[/]"
        )
    return lines
