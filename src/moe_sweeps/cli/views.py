"""What a person sees in the terminal while planning, and while one run trains in this process."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from moe_sweeps.cli.follow import STATE_STYLE
from moe_sweeps.records.numbers import CATALOGUE
from moe_sweeps.records.rundir import RunDir, State


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
        """Show what was logged at `step`; without a terminal, in every tenth of the run."""
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
        """Move the bar to `step`."""
        self.progress.update(self._task, completed=step)


class _Steps(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"step {int(task.completed):>6}/{int(task.total or 0)}")


def print_summary(console: Console, folder: RunDir, summary: dict[str, Any], state: State) -> None:
    """The short summary that ends one run."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _summary_rows(summary):
        table.add_row(name, text)
    console.print(Text(state, STATE_STYLE.get(state, "")))
    console.print(table)
    if problem := folder.status().tracking:
        console.print(Text(f"tracking: {problem}", "yellow"), soft_wrap=True)
    console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)


def _summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    events = {"diverged_at_step": "diverged at step", "collapsed_at_step": "router collapsed at step"}
    rows = [(words, str(summary[key])) for key, words in events.items() if key in summary]
    shown = [metric for metric in CATALOGUE if metric.words and metric.column in summary]
    rows += [(metric.words, metric.spell_with_unit(summary[metric.column])) for metric in shown]
    return rows + [(f"last good {key}", f"{value:.4f}") for key, value in summary.get("last_good", {}).items()]
