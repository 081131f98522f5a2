"""What a person sees of runs that train: the live table, lines where there is no terminal, failures by their cause."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.follow import (
    DAMAGED,
    LOST,
    PAUSED,
    PRUNED,
    Follower,
    Row,
    all_finished,
    duration,
    read_row,
    tokens_per_second,
    total_seconds_left,
)

WIDTH_WITHOUT_TERMINAL = 140
NARROW = 110
MOST_ROWS = 24
REPORT_SECONDS = 60.0
BAR_WIDTH = 12
STATE_STYLE: dict[str, str] = {
    State.done: "green",
    State.running: "cyan",
    State.failed: "bold red",
    State.diverged: "magenta",
    State.preempted: "yellow",
    State.cancelled: "yellow",
    PAUSED: "blue",
    PRUNED: "blue",
    LOST: "bold red",
    DAMAGED: "bold red",
}
# Of a long sweep these are shown first.
IN_SIGHT = (State.running, LOST, State.failed, DAMAGED, State.preempted)


class SweepView:
    """Follows runs: a live table in a terminal; elsewhere a line when a run changes its state, and one a minute."""

    def __init__(
        self,
        console: Console,
        runs: Sequence[tuple[str, RunDir]],
        workers: int | None = None,
        *,
        timed: bool = True,
        agreed: Callable[[list[Row]], list[Row]] = list,
    ) -> None:
        """`timed`: these runs are all there will be, and each goes to its end, so the time left can be told.

        `agreed` corrects rows by what else is known of them, in every tick.
        """
        self.console, self.workers, self.timed, self._agreed = console, workers, timed, agreed
        self._follower = Follower(list(runs))
        self.rows = self._agreed(self._follower.read())
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self._seen = {row.folder: (row.state, row.status.attempt) for row in self.rows}
        self._reported = time.monotonic()

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

    def add(self, label: str, folder: RunDir) -> None:
        """Follow a further run."""
        self._follower.runs.append((label, folder))
        row = read_row(label, folder)
        self._seen[folder] = (row.state, row.status.attempt)

    def say(self, sentence: str) -> None:
        """A line above the table."""
        self.console.print(sentence, highlight=False, markup=False)

    def tick(self) -> None:
        """Read the status files and show what they say."""
        self.rows = self._agreed(self._follower.read())
        if self._live:
            most = max(4, min(MOST_ROWS, self.console.height - 5))
            narrow = is_narrow(self.console)
            table = status_table(self.rows, most=most, workers=self.workers, narrow=narrow, timed=self.timed)
            self._live.update(table)
        else:
            self._print_changes()

    def _print_changes(self) -> None:
        for row in self.rows:
            now = (row.state, row.status.attempt)
            if now != self._seen[row.folder]:
                self._seen[row.folder] = now
                self.say(_line(row))
        if time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            self.say(headline(self.rows, self.workers, timed=self.timed))


def status_table(
    rows: Sequence[Row],
    *,
    most: int = MOST_ROWS,
    workers: int | None = None,
    narrow: bool = False,
    timed: bool = True,
) -> RenderableType:
    """A row a run with its state, progress, last loss and MaxVio, speed and time left; a headline over all of them.

    Of more than `most` runs only those that train, or need attention, have a row. A narrow one has no progress bars.
    """
    shown = list(rows)
    if len(rows) > most:
        shown = sorted((r for r in rows if r.state in IN_SIGHT), key=lambda r: IN_SIGHT.index(r.state))[:most]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("run", overflow="ellipsis")  # the one that gives way in a narrow terminal
    table.add_column("state", no_wrap=True)
    if not narrow:
        table.add_column("progress", no_wrap=True)
    for name in ("step", "loss", "MaxVio", "tokens/s", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in shown:
        table.add_row(*_cells(row, narrow))
    title = Text(headline(rows, workers, timed=timed), "bold")
    hidden = len(rows) - len(shown)
    more = [Text(f"and {hidden} more", "dim")] if hidden else []
    return Group(title, *([table] if shown else []), *more)


def headline(rows: Sequence[Row], workers: int | None = None, *, timed: bool = True) -> str:
    """Counts by state, the speed of all runs together, and when all will be over if `timed`."""
    counts = Counter(str(row.state) for row in rows)
    parts = [", ".join(f"{n} {state}" for state, n in counts.items())]
    running = counts[State.running]
    if running:
        parts += [f"{speed:,.0f} tokens/s"] if (speed := tokens_per_second(rows)) else []
        left = total_seconds_left(rows, workers or running) if timed else None
        if left is not None:
            parts.append(f"{duration(left)} left")
    return "   ".join(parts)


def print_failures(console: Console, rows: Sequence[Row]) -> int:
    """Failed runs by the cause that they share, each with its runs and one traceback; returns how many runs failed."""
    failed = [row for row in rows if row.state in (State.failed, LOST, DAMAGED)]
    causes: dict[str, list[Row]] = {}
    for row in failed:
        causes.setdefault(_signature(row), []).append(row)
    for signature, same in sorted(causes.items(), key=lambda item: -len(item[1])):
        _print_cause(console, signature, same)
    if any(row.state == State.failed for row in failed):
        advice = "Mended? `moe-sweeps retry` trains the failed runs again, from their last checkpoints."
        console.print(advice, style="dim", soft_wrap=True)
    return len(failed)


def print_tracking(console: Console, rows: Sequence[Row]) -> None:
    """What is wrong with trackers. It is no failure: the run folders have everything."""
    problems = Counter(row.status.tracking for row in rows if row.status.tracking)
    for problem, count in problems.items():
        runs = "1 run" if count == 1 else f"{count} runs"
        console.print(Text.assemble((f"tracking: {runs}", "yellow"), f", {problem}"), soft_wrap=True)
    if problems:
        advice = "The run folders have everything. `moe-sweeps track sync` hands over what is missing."
        console.print(advice, style="dim", soft_wrap=True)


def make_console() -> Console:
    """A console as wide as the terminal; without one wide enough for the tables, unless COLUMNS says otherwise."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL)


def is_narrow(console: Console) -> bool:
    return console.width < NARROW


def exit_code(rows: Sequence[Row]) -> int:
    """0 when every run has its result, or stopped where it was told to; else 1."""
    return 0 if all_finished(rows) else 1


def _cells(row: Row, narrow: bool) -> list[RenderableType]:
    status = row.status
    state = Text(row.state, STATE_STYLE.get(row.state, "dim"))
    if row.note:
        state.append(f" ({row.note})", "dim")
    if status.collapsed:
        state.append(" (router collapsed)", "magenta")
    if status.tracking:
        state.append(" (tracking failed)", "yellow")
    if status.code_changed:
        state.append(" (code changed since submission)", "yellow")
    bar = ProgressBar(total=max(status.total_steps, 1), completed=status.step, width=BAR_WIDTH)
    return [escape(row.label), state, *([] if narrow else [bar]), *_numbers(row)]


def _numbers(row: Row) -> tuple[str, str, str, str, str]:
    status = row.status
    loss = "-" if status.loss is None else f"{status.loss:.4f}"
    maxvio = "-" if status.maxvio is None else f"{status.maxvio:.2f}"
    speed = "-" if status.tokens_per_second is None else f"{status.tokens_per_second:,.0f}"
    left = "" if row.seconds_left is None else duration(row.seconds_left).removeprefix("about ")
    return f"{status.step}/{status.total_steps}", loss, maxvio, speed, left


def _line(row: Row) -> str:
    step, loss, *_ = _numbers(row)
    failure = row.status.failure
    why = f" ({failure.message})" if failure and row.state in (State.failed, State.preempted) else ""
    attempt = f" (attempt {row.status.attempt})" if row.state == State.running and row.status.attempt > 1 else ""
    note = f" ({row.note})" if row.note else ""
    return f"{row.label}: {row.state}{note}{attempt}, step {step}, loss {loss}{why}"


def _signature(row: Row) -> str:
    if row.state == LOST:
        slurm = f" (SLURM says {row.note})" if row.note else ""
        return f"its worker is gone without a word{slurm}; the same line typed again goes on from the last checkpoint"
    if row.state == DAMAGED:
        return "status.json is missing or damaged; move the folder away, and the run is trained again"
    return row.status.failure.signature if row.status.failure else "no reason was recorded"


def _print_cause(console: Console, signature: str, same: Sequence[Row]) -> None:
    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    runs = "1 run" if len(same) == 1 else f"{len(same)} runs"
    console.print(Text.assemble((f"{same[0].state}: {runs}", "bold red"), f", {signature}"), soft_wrap=True)
    messages = Counter(f"{f.type}: {f.message}" for row in same if (f := row.status.failure))
    for row in same:
        failure = row.status.failure
        own = f": {failure.type}: {failure.message}" if failure and (len(messages) > 1 or len(same) == 1) else ""
        say(f"  {row.label}{own}")
    if len(messages) == 1 and len(same) > 1:
        say(f"  all: {next(iter(messages))}")
    example = next((row for row in same if row.folder.last_traceback()), None)
    if example and same[0].state == State.failed:
        say(f"  traceback of {example.label} ({example.folder.path / 'traceback.txt'}):", "dim")
        say("\n".join(f"    {line}" for line in (example.folder.last_traceback() or "").splitlines()), "dim")
