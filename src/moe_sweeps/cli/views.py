"""What a person sees in the terminal while planning and training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from moe_sweeps.rundir import RunDir, State, Status
from moe_sweeps.sweep.budget import duration

MOST_ROWS = 24
STATE_STYLE = {
    State.done: "green",
    State.running: "cyan",
    State.failed: "bold red",
    State.diverged: "magenta",
    State.preempted: "yellow",
    State.cancelled: "yellow",
}


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


class SweepView:
    """Follows the runs of a sweep: a live table in a terminal, elsewhere a line whenever a run changes its state."""

    def __init__(self, console: Console, rows: Sequence[tuple[str, RunDir]]) -> None:
        self.console, self.rows = console, rows
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self._seen = {folder: folder.status().state for _, folder in rows}

    def __enter__(self) -> SweepView:
        if self._live:
            self._live.start()
        self.tick()
        return self

    def __exit__(self, *error: object) -> None:
        self.tick()
        if self._live:
            self._live.stop()
        self.console.print()

    def tick(self) -> None:
        """Read the status files and show what they say."""
        if self._live:
            self._live.update(status_table(self.rows))
            return
        for label, folder in self.rows:
            status = folder.status()
            if status.state is not self._seen[folder]:
                self._seen[folder] = status.state
                step, loss, *_ = _progress(status)
                self.console.print(f"{escape(label)}: {status.state}, step {step}, loss {loss}", highlight=False)


def status_table(rows: Sequence[tuple[str, RunDir]], most: int = MOST_ROWS) -> Table:
    """The live table: a row a run with its state, progress, last loss and MaxVio, speed and time left.

    Of a long sweep only the runs that train or failed have a row; the title counts all.
    """
    states = [folder.status().state for _, folder in rows]
    counts = ", ".join(f"{n} {state}" for state, n in Counter(states).items())
    if len(rows) > most:
        shown = (State.running, State.failed)
        rows = [row for row, state in zip(rows, states, strict=True) if state in shown][-most:]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title=counts, title_justify="left")
    table.add_column("run", no_wrap=True)
    table.add_column("state")
    for name in ("step", "loss", "MaxVio", "tokens/s", "left"):
        table.add_column(name, justify="right")
    for label, folder in rows:
        status = folder.status()
        table.add_row(escape(label), Text(status.state, STATE_STYLE.get(status.state, "dim")), *_progress(status))
    return table


def print_failures(console: Console, rows: Sequence[tuple[str, RunDir]]) -> int:
    """List failed runs with their message and the place of the traceback; returns how many there are."""
    failed = [(label, f, s.failure) for label, f in rows if (s := f.status()).state is State.failed]
    for label, folder, failure in failed:
        reason = f"{failure.type}: {failure.message}" if failure else "no reason was recorded"
        console.print(f"[bold red]failed[/] {escape(label)}: {escape(reason)}", highlight=False, soft_wrap=True)
        trace = folder.path / "traceback.txt"
        console.print(f"       see {trace if trace.exists() else folder.log}", highlight=False, soft_wrap=True)
    return len(failed)


def print_summary(console: Console, folder: RunDir, summary: dict[str, Any], state: State) -> None:
    """The short summary that ends one run."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _summary_rows(summary):
        table.add_row(name, text)
    console.print(Text(state, STATE_STYLE.get(state, "")))
    console.print(table)
    console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)


def _progress(status: Status) -> tuple[str, str, str, str, str]:
    number = "-" if status.loss is None else f"{status.loss:.4f}"
    maxvio = "-" if status.maxvio is None else f"{status.maxvio:.2f}"
    speed = "-" if status.tokens_per_second is None else f"{status.tokens_per_second:,.0f}"
    return f"{status.step}/{status.total_steps}", number, maxvio, speed, _time_left(status)


def _time_left(status: Status) -> str:
    if status.state is not State.running or not status.tokens_per_second:
        return ""
    tokens = (status.total_steps - status.step) * status.tokens_per_step
    return duration(tokens / status.tokens_per_second).removeprefix("about ")


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
