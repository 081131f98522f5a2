"""`moe-sweeps status`: what runs are doing, with what settings, and why failed ones failed."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from moe_sweeps.cli.follow import (
    SHOWN_FIRST,
    headline,
    is_failure,
    print_failures,
    print_tracking,
    run_columns,
    state_cells,
)
from moe_sweeps.cli.planning import AS_JSON
from moe_sweeps.cli.runs import WHAT, rows_of, selected
from moe_sweeps.cli.select import Selection, run_label
from moe_sweeps.cli.where import HELP, matching
from moe_sweeps.errors import ConfigError
from moe_sweeps.host.consoles import make_console
from moe_sweeps.host.folding import Column, FoldedTable
from moe_sweeps.host.reading import read_yaml
from moe_sweeps.host.shell import tool_command
from moe_sweeps.launch.follow import LOST, Follower, RunRow
from moe_sweeps.launch.slurm.agree import confirmed, repair
from moe_sweeps.records.manifest import Manifest, spell_settings
from moe_sweeps.records.remarks import remarks_of
from moe_sweeps.records.rundir import RunDir, State

MOST_RUNS, MOST_SWEEPS = 40, 10  # that are listed at once


def status(arguments: argparse.Namespace, console: Console) -> int:
    """What runs are doing; exit code 1 when one failed."""
    chosen = selected(arguments.what)
    if arguments.repair:
        _repair(make_console(stderr=True) if arguments.json else console, chosen)
    rows, unread = matching(rows_of(chosen), arguments.where)
    if arguments.json:
        settings = {row.folder.run_id: settings_known(row.folder, chosen.manifests) for row in rows}
        from moe_sweeps.cli.documents.document import print_document
        from moe_sweeps.cli.documents.state import status_document

        print_document(console, status_document(chosen, rows, settings))
        return 1 if any(is_failure(row) for row in rows) else 0
    _print(console, chosen, rows, arguments)
    if unread:
        console.print(f"{unread} more could not be asked: their config cannot be read", highlight=False)
    return 1 if any(is_failure(row) for row in rows) else 0


def _print(console: Console, chosen: Selection, rows: Sequence[RunRow], arguments: argparse.Namespace) -> None:
    if not (arguments.what or arguments.where) and chosen.sweeps:
        _print_sweeps(console, chosen, rows, every=arguments.all)
    _print_rows(console, chosen, rows, arguments)
    for row in rows:
        if why := row.folder.misplaced():
            console.print(f"{row.folder.path}: {why}", highlight=False, markup=False, soft_wrap=True)
    for problem in chosen.problems:
        text = f"{problem}; run the sweep's command again to rewrite it"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if chosen.never_started and not arguments.where:
        runs = f"{chosen.never_started} planned runs have"
        console.print(f"{runs} no folder yet; run the sweep's command again to start them", highlight=False)
    console.print() if any(row.state in (State.failed, LOST) for row in rows) else None
    print_failures(console, [_labelled(row, chosen) if is_failure(row) else row for row in rows])
    print_tracking(console, rows)


# --- the runs ---------------------------------------------------------------------------------------------------------


def _print_rows(console: Console, chosen: Selection, rows: Sequence[RunRow], arguments: argparse.Namespace) -> None:
    """A page of the runs: those that need attention first, then in their order. What is not on it is said."""
    console.print(Text(headline(rows) or "no run has all of that", "bold"))
    ordered = sorted(
        rows, key=lambda row: SHOWN_FIRST.index(row.state) if row.state in SHOWN_FIRST else len(SHOWN_FIRST)
    )
    ordered = ordered if len(rows) > MOST_RUNS else list(rows)
    pages = max(1, math.ceil(len(rows) / MOST_RUNS))
    if not 1 <= arguments.page <= pages:
        raise ConfigError("--page", arguments.page, f"there are {pages}, of {MOST_RUNS} runs each", "Name one of them.")
    first = 0 if arguments.all else MOST_RUNS * (arguments.page - 1)
    shown = ordered if arguments.all else ordered[first : first + MOST_RUNS]
    if shown:
        console.print(_table([_labelled(row, chosen) for row in shown]))
    if len(shown) < len(rows):
        console.print(Text(_not_shown(rows, shown, first, pages, arguments), "dim"), soft_wrap=True)


def _urgency(row: RunRow) -> int:
    return SHOWN_FIRST.index(row.state) if row.state in SHOWN_FIRST else len(SHOWN_FIRST)


def _not_shown(
    rows: Sequence[RunRow], shown: Sequence[RunRow], first: int, pages: int, arguments: argparse.Namespace
) -> str:
    same = [*arguments.what, *(word for text in arguments.where for word in ("--where", text))]
    seen = {row.folder.path for row in shown}
    others = headline([row for row in rows if row.folder.path not in seen])
    after = arguments.page % pages + 1
    return (
        f"runs {first + 1} to {first + len(shown)} of {len(rows)}; not on this page: {others.partition('   ')[0]}\n"
        f"  {tool_command('status', *same, '--page', after)}\n  {tool_command('status', *same, '--all')}"
    )


def _table(rows: Sequence[RunRow]) -> FoldedTable:
    """Name with id, state and numbers, settings, and what people wrote."""
    remarks = [remarks_of(row.folder.path).line for row in rows]
    columns = [Column("run"), *run_columns(), Column("settings", folds=True)]
    columns += [Column("notes", folds=True, told=True)] if any(remarks) else []
    lines = []
    for row, note in zip(rows, remarks, strict=True):
        name = row.folder.path.name
        own = "" if row.label == name else row.label
        cells = [Text(name), *state_cells(row), Text(own)]
        lines.append([*cells, Text(note, "italic")] if any(remarks) else cells)
    return FoldedTable(columns, lines)


def settings_known(folder: RunDir, manifests: Sequence[Manifest]) -> dict[str, str]:
    """What was set for a run: its values on the axes of its newest sweep, else what was typed."""
    for manifest in manifests:
        planned = manifest.trained.get(folder.run_id)
        if planned is not None and planned.settings:
            return planned.settings
    try:
        typed = read_yaml(folder.path / "overrides.yaml")
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    pairs = [str(one).partition("=") for one in typed] if isinstance(typed, list) else []
    return {key: value for key, sign, value in pairs if sign}


def _labelled(row: RunRow, chosen: Selection) -> RunRow:
    """The row under what its sweep calls it, else under its settings; under its own name where nothing was set."""
    name = row.folder.path.name
    if row.label != name:
        return row
    own = next((m for m in chosen.manifests if row.folder.run_id in m.trained), None)
    label = run_label(own, row.folder.run_id) if own else spell_settings(settings_known(row.folder, ()))
    return dataclasses.replace(row, label=label or name)


# --- the sweeps -------------------------------------------------------------------------------------------------------


def _print_sweeps(console: Console, chosen: Selection, rows: Sequence[RunRow], *, every: bool) -> None:
    """The newest sweeps, one row each, newest last."""
    by_folder = {row.folder.path.name: row for row in rows}
    newest = chosen.sweeps if every else chosen.sweeps[:MOST_SWEEPS]
    remarks = [remarks_of(chosen.folder_of(sweep)).line for sweep in newest]
    columns = [Column("sweep"), Column("name"), Column("started"), Column("runs", folds=True, told=True)]
    columns += [Column("notes", folds=True, told=True)] if any(remarks) else []
    lines: list[list[Any]] = []
    for sweep, note in reversed(list(zip(newest, remarks, strict=True))):
        own = [by_folder[run.folder] for run in sweep.runs.values() if run.folder in by_folder]
        cells = [sweep.sweep_id, sweep.name, sweep.created[:16].replace("T", " "), headline(own)]
        lines.append([*cells, *([note] if any(remarks) else []), Text(sweep.command, "dim")])
    console.print(FoldedTable([*columns, Column("command", folds=True)], lines))
    if len(newest) < len(chosen.sweeps):
        rest = len(chosen.sweeps) - len(newest)
        console.print(Text(f"and {rest} earlier sweeps: {tool_command('status', '--all')}", "dim"), soft_wrap=True)
    console.print()


def _repair(console: Console, chosen: Selection) -> None:
    """Write SLURM's word into the run folders. Where SLURM does not answer, nothing is guessed from clocks and locks.

    Raises:
        LaunchError: SLURM is not here, or does not answer.
    """
    for folder in repair(confirmed(Follower(chosen.runs).read())):
        console.print(f"repaired: {folder.path.name}: {folder.status().name}", highlight=False, markup=False)


def add_command(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    one = commands.add_parser("status", help="what runs are doing, with what settings, and why failed ones failed")
    one.set_defaults(command=status)
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help=f"{WHAT} (default: everything)")
    one.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=HELP)
    one.add_argument(
        "--repair", action="store_true", help="correct the run folders by what SLURM says, for runs whose jobs are gone"
    )
    one.add_argument("--all", action="store_true", help=f"list every run, also when there are more than {MOST_RUNS}")
    one.add_argument("--page", type=int, default=1, metavar="N", help=f"the N-th {MOST_RUNS} runs (default: 1)")
    one.add_argument("--json", action="store_true", help=AS_JSON)
