"""What a person sees in the terminal while planning, and while one run trains in this process."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from moe_sweeps.cli.follow import STATE_STYLE, duration
from moe_sweeps.rundir import FINISHED, SETTLED, RunDir, State
from moe_sweeps.sweep.estimate import History, wall_time
from moe_sweeps.sweep.plan import Plan


class TrainingBar:
    """Progress bar of one run: step, loss, MaxVio, tokens/s, time left. Without a terminal, a line every tenth."""

    def __init__(self, console: Console, total_steps: int, completed: int = 0) -> None:
        values = TextColumn("loss {task.fields[loss]}  MaxVio {task.fields[maxvio]}  {task.fields[speed]} tokens/s")
        columns: list[ProgressColumn] = [_Steps(), BarColumn(24), values, TimeRemainingColumn()]
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self.progress.add_task(
            "training", total=total_steps, completed=completed, loss="-", maxvio="-", speed="-"
        )
        self._total, self._tenths = total_steps, completed * 10 // total_steps

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        maxvio = f"{values['maxvio_batch']:.2f}" if "maxvio_batch" in values else "-"
        fields: dict[str, Any] = {
            "loss": f"{values['loss']:.4f}",
            "maxvio": maxvio,
            "speed": f"{tokens_per_second:,.0f}",
        }
        self.progress.update(self._task, completed=step, **fields)
        if self.progress.disable and step * 10 // self._total > self._tenths:
            self._tenths = step * 10 // self._total
            line = f"step {step}/{self._total}  loss {fields['loss']}  MaxVio {maxvio}  {fields['speed']} tokens/s"
            self.progress.console.print(line, highlight=False)

    def alive(self, step: int) -> None:
        self.progress.update(self._task, completed=step)


class _Steps(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"step {int(task.completed):>6}/{int(task.total or 0)}")


def print_plan(console: Console, plan: Plan, history: History, workers: int) -> None:
    """Axes, requested and distinct runs, what collapsed and why, what is done, and the time that the rest takes."""
    console.print(_headline(plan), highlight=False)
    for key, values in plan.axes.items():
        console.print(f"  {escape(key)}: {escape(', '.join(values))}", highlight=False)
    word = "collapsed" if len(plan.requests) > len(plan.runs) else "not read"
    for line in collapse_reasons(plan):
        console.print(f"  [yellow]{word}[/]: {escape(line)}", highlight=False)
    states = Counter(p.state for p in plan.runs.values())
    todo = [p for p in plan.runs.values() if p.state not in SETTLED]
    started = sum(1 for p in todo if p.folder is not None and p.folder.status().step > 0)
    resume = f" ({started} of them go on from where they stopped)" if started else ""
    done, cancelled = sum(states[state] for state in FINISHED), states[State.cancelled]
    left_out = f", cancelled: {cancelled} (moe-sweeps retry --cancelled brings them back)" if cancelled else ""
    console.print(f"  already done: {done}, to run: {len(todo)}{resume}{left_out}", highlight=False, soft_wrap=True)
    if todo:
        estimates = [history.estimate(p.run) for p in todo]
        total = wall_time((e.seconds for e in estimates), workers)
        source = Counter(e.source for e in estimates).most_common(1)[0][0]
        plural = "worker" if workers == 1 else "workers"
        console.print(f"  estimated: {duration(total)} with {workers} {plural} ({source})", highlight=False)
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


def print_summary(console: Console, folder: RunDir, summary: dict[str, Any], state: State) -> None:
    """The short summary that ends one run."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _summary_rows(summary):
        table.add_row(name, text)
    console.print(Text(state, STATE_STYLE.get(state, "")))
    console.print(table)
    console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)


def _headline(plan: Plan) -> str:
    axes = " x ".join(f"{escape(key)} ({len(values)})" for key, values in plan.axes.items()) or "one run"
    runs = len(plan.runs)
    return f"[bold]Plan[/]: {axes} = {len(plan.requests)} combinations, [bold]{runs} distinct run{'s' * (runs > 1)}[/]"


def _summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    formats = {
        "diverged_at_step": ("diverged at step", "{}"),
        "collapsed_at_step": ("router collapsed at step", "{}"),
        "val_loss": ("validation loss", "{:.4f} nats"),
        "val_perplexity": ("validation perplexity", "{:.2f}"),
        "val_accuracy": ("next-token accuracy", "{:.2%}"),
        "val_maxvio_global": ("MaxVio, validation set", "{:.3f}"),
        "train_maxvio_batch": ("MaxVio, batch, last tenth", "{:.3f}"),
        "params_total": ("parameters, total", "{:,}"),
        "params_active": ("parameters, active", "{:,}"),
        "tokens": ("tokens", "{:,}"),
        "tokens_per_second": ("tokens/s", "{:,.0f}"),
        "share_of_gemm_peak": ("share of GEMM peak", "{:.1%}"),
        "wall_seconds": ("wall time", "{:.1f} s"),
    }
    rows = [(name, form.format(summary[key])) for key, (name, form) in formats.items() if key in summary]
    return rows + [(f"last good {key}", f"{value:.4f}") for key, value in summary.get("last_good", {}).items()]
