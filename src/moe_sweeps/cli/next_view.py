"""The last lines of a sweep: where its page is, and what to type next. They paste into a shell as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from moe_sweeps.cli.roots import command_at, runs_root
from moe_sweeps.launch.follow import LOST, RunRow
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.records.rundir import State


def print_next(console: Console, sweep: Manifest, page: Path | None, rows: Sequence[RunRow]) -> None:
    """Print them. `rows`: the runs of the sweep as they ended."""
    if page is not None:
        _line(console, f"page: {page}")
    _line(console, "next:")
    commands = next_commands(sweep, rows)
    longest = max(map(len, commands))
    beside = longest + max(map(len, commands.values())) + 4 <= console.width
    for command, does in commands.items():
        _line(console, f"  {command:<{longest}}  {does}" if beside else f"  {command}\n      {does}")


def next_commands(sweep: Manifest, rows: Sequence[RunRow]) -> dict[str, str]:
    """Commands, and what each does."""
    root = rows[0].folder.path.parent if rows else runs_root()
    line = partial(command_at, root)
    commands = {}
    if any(row.state in (State.failed, LOST) for row in rows):
        commands[line("retry", sweep.sweep_id)] = "resume what failed"
    if any(row.state == State.cancelled for row in rows):
        commands[line("retry", "--cancelled", sweep.sweep_id)] = "resume what was cancelled"
    best = _best(rows)
    if len(best) > 1:
        commands[line("compare", *best[:2])] = f"the two lowest in {PRIMARY.header}, curves and all"
    if best:
        commands[line("report", best[0])] = f"pictures of the run with the lowest {PRIMARY.header}"
    return commands | {
        line("status", sweep.sweep_id): "its runs, with ids and settings",
        line("note", sweep.sweep_id, "what I learned"): "write it down beside the sweep",
    }


def _best(rows: Sequence[RunRow]) -> list[str]:
    """Ids of the runs that are done, from the lowest loss; one of each label, so that seeds of an arm are one."""
    lowest: dict[str, tuple[float, str]] = {}
    for row in rows:
        value = _loss(row)
        if value is not None:
            arm = row.label.partition(" seed=")[0]
            lowest[arm] = min(lowest.get(arm, (math.inf, "")), (value, row.folder.run_id))
    return [run_id for _, run_id in sorted(lowest.values())]


def _loss(row: RunRow) -> float | None:
    if row.state != State.done or not row.folder.has_sound("summary.json"):
        return None
    summary: Mapping[str, object] = row.folder.summary() or {}
    value = summary.get(PRIMARY.column)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and isinstance(value, int | float) else None


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
