"""What a person sees of runs that train: the live table, lines without a terminal, failures grouped by cause."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.folding import Column, FoldedTable
from moe_sweeps.host.machine_memory import out_of_memory
from moe_sweeps.launch.follow import (
    DAMAGED,
    LOST,
    PAUSED,
    PRUNED,
    Follower,
    RunRow,
    all_finished,
    duration,
    read_row,
    tokens_per_second,
    total_seconds_left,
)
from moe_sweeps.records.rundir import RunDir, State

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
_STATE_COLUMN = [Column("state", folds=True, told=True)]
_NUMBER_COLUMNS = [Column(name, right=True) for name in ("step", "train loss", "batch MaxVio", "tokens/s", "left")]
# A table of more runs than it has rows shows these, in this order.
SHOWN_FIRST = (State.running, LOST, State.failed, DAMAGED, State.preempted)


class SweepView:
    """Follows runs: a live table in a terminal; elsewhere a line when a run changes its state, and one a minute."""

    def __init__(
        self,
        console: Console,
        runs: Sequence[tuple[str, RunDir]],
        workers: int | None = None,
        *,
        timed: bool = True,
        agreed: Callable[[list[RunRow]], list[RunRow]] = list,
    ) -> None:
        """`timed`: no further runs will come and each is trained to its end, so that the time left can be estimated.

        `agreed` corrects the rows at every tick by what else is known, such as SLURM's queue.
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
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

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
    rows: Sequence[RunRow],
    *,
    most: int = MOST_ROWS,
    workers: int | None = None,
    narrow: bool = False,
    timed: bool = True,
) -> RenderableType:
    """One row per run: state, progress, last loss and MaxVio, speed, time left; above them a headline over all runs.

    Of more than `most` runs, only those that train or need attention have a row. A `narrow` table has no progress bars.
    """
    shown = list(rows)
    if len(rows) > most:
        shown = sorted((r for r in rows if r.state in SHOWN_FIRST), key=lambda r: SHOWN_FIRST.index(r.state))[:most]
    progress = [] if narrow else [Column("progress")]
    columns = [Column("run", folds=True), *_STATE_COLUMN, *progress, *_NUMBER_COLUMNS]
    table = FoldedTable(columns, [[Text(row.label), *_cells(row, narrow)] for row in shown])
    title = Text(headline(rows, workers, timed=timed), "bold")
    hidden = len(rows) - len(shown)
    more = [Text(f"and {hidden} more", "dim")] if hidden else []
    return Group(title, *([table] if shown else []), *more)


def run_columns() -> list[Column]:
    """The columns of `state_cells`."""
    return [*_STATE_COLUMN, *_NUMBER_COLUMNS]


def state_cells(row: RunRow) -> list[Text]:
    """State, step, loss, MaxVio, speed and time left of a run."""
    return _cells(row, narrow=True)


def headline(rows: Sequence[RunRow], workers: int | None = None, *, timed: bool = True) -> str:
    """Counts by state, the total speed of the runs that train, and if `timed` the time left."""
    counts = Counter(str(row.state) for row in rows)
    parts = [", ".join(f"{n} {state}" for state, n in counts.items())]
    running = counts[State.running]
    if running:
        parts += [f"{speed:,.0f} tokens/s"] if (speed := tokens_per_second(rows)) else []
        left = total_seconds_left(rows, workers or running) if timed else None
        if left is not None:
            parts.append(f"{duration(left)} left")
    return "   ".join(parts)


def is_failure(row: RunRow) -> bool:
    """Whether a run needs somebody: it failed, lost its worker, or cannot be read."""
    return row.state in (State.failed, LOST, DAMAGED)


def print_failures(console: Console, rows: Sequence[RunRow]) -> int:
    """Failed runs grouped by cause, with one traceback per cause; returns how many runs failed."""
    failed = [row for row in rows if is_failure(row)]
    causes: dict[str, list[RunRow]] = {}
    for row in failed:
        causes.setdefault(_signature(row), []).append(row)
    for signature, same in sorted(causes.items(), key=lambda item: -len(item[1])):
        _print_cause(console, signature, same)
    if any(row.state == State.failed for row in failed):
        advice = "Fixed it? `moe-sweeps retry` resumes the failed runs from their last checkpoints."
        console.print(advice, style="dim", soft_wrap=True)
    return len(failed)


def print_tracking(console: Console, rows: Sequence[RunRow]) -> None:
    """What is wrong with trackers. It is no failure: the run folders have everything."""
    problems = Counter(row.status.tracking for row in rows if row.status.tracking)
    for problem, count in problems.items():
        runs = "1 run" if count == 1 else f"{count} runs"
        console.print(Text.assemble((f"tracking: {runs}", "yellow"), f", {problem}"), soft_wrap=True)
    if problems:
        advice = "The run folders have everything. `moe-sweeps track sync` sends what is missing."
        console.print(advice, style="dim", soft_wrap=True)


def is_narrow(console: Console) -> bool:
    """Whether the console lacks room for progress bars and commands."""
    return console.width < NARROW


def exit_code(rows: Sequence[RunRow]) -> int:
    """0 when every run has its result, or stopped where it was told to; else 1."""
    return 0 if all_finished(rows) else 1


def _cells(row: RunRow, narrow: bool) -> list[Text]:
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
    bar = [] if narrow else [_bar(status.step / max(status.total_steps, 1))]
    return [state, *bar, *map(Text, _numbers(row))]


def _bar(share: float) -> Text:
    """Progress in characters, so that it is told without colours, too."""
    done = round(min(1.0, share) * BAR_WIDTH)
    return Text.assemble(("━" * done, "bar.complete"), ("·" * (BAR_WIDTH - done), "dim"))


def _numbers(row: RunRow) -> tuple[str, str, str, str, str]:
    status = row.status
    loss = "-" if status.loss is None else f"{status.loss:.4f}"
    maxvio = "-" if status.maxvio is None else f"{status.maxvio:.2f}"
    speed = "-" if status.tokens_per_second is None else f"{status.tokens_per_second:,.0f}"
    left = "" if row.seconds_left is None else duration(row.seconds_left).removeprefix("about ")
    return f"{status.step}/{status.total_steps}", loss, maxvio, speed, left


def _line(row: RunRow) -> str:
    step, loss, *_ = _numbers(row)
    failure = row.status.failure
    why = f" ({failure.message})" if failure and row.state in (State.failed, State.preempted) else ""
    attempt = f" (attempt {row.status.attempt})" if row.state == State.running and row.status.attempt > 1 else ""
    note = f" ({row.note})" if row.note else ""
    return f"{row.label}: {row.state}{note}{attempt}, step {step}, train loss {loss}{why}"


def _signature(row: RunRow) -> str:
    if row.state == LOST:
        slurm = f" (SLURM says {row.note})" if row.note else ""
        if not slurm and (killed := out_of_memory(row.status.host, row.status.oom_kills)):
            return f"its worker was {killed}"
        if row.status.state is State.queued and row.status.attempt:
            return f"its job is gone{slurm}; run the same command again to resume"
        if row.status.state is State.queued:
            return f"{_why_no_job(row.folder)}{slurm}; run the same command again to submit it"
        return f"its worker died without a traceback{slurm}; run the same command again to resume"
    if row.state == DAMAGED:
        return "its folder is gone, or closed to you; docs/running.md (A shared folder) says who may read what"
    return row.status.failure.signature if row.status.failure else "no reason was recorded"


NO_TRUNK = (State.failed, State.diverged, State.cancelled, State.preempted, LOST)  # nothing continues from these


def _why_no_job(folder: RunDir) -> str:
    """Why a run that waited for its job has none any more: SLURM removes those of arms whose trunk did not end well."""
    try:
        name = folder.trunk_id()
        folder_of_trunk = RunDir.find(folder.path.parent, name) if name else None
    except RunFolderError:
        folder_of_trunk = None
    trunk = read_row("", folder_of_trunk) if folder_of_trunk else None
    if trunk is None or trunk.state not in NO_TRUNK:
        return "its job is gone and has trained nothing"
    return f"its trunk {trunk.folder.path.name} is {trunk.state}, so SLURM removed its job"


def _print_cause(console: Console, signature: str, same: Sequence[RunRow]) -> None:
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
