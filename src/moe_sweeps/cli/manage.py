"""`moe-sweeps`: everything around training. Commands import what they need, so that the light ones start at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from moe_sweeps.cli.planning import add_commands as add_planning_commands
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.cli.tables import add_arguments as add_table_arguments
from moe_sweeps.cli.tables import run as run_tables
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.paths import resolve

REFUSED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace, Console], int] = arguments.command
    try:
        return command(arguments, Console())
    except MoeSweepsError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        print(f"error: {error}{notes}", file=sys.stderr)
        return REFUSED


def status(arguments: argparse.Namespace, console: Console) -> int:
    """The state of every run, from its folder."""
    from moe_sweeps.cli.views import print_failures, status_table
    from moe_sweeps.rundir import RunDir

    rows = [(folder.path.name, folder) for folder in RunDir.all(runs_root())]
    if not rows:
        raise MoeSweepsError(f"there are no runs in {runs_root()}. Start one: python train.py scale=smoke")
    console.print(status_table(rows, most=len(rows)))
    return 1 if print_failures(console, rows) else 0


def tables(arguments: argparse.Namespace, console: Console) -> int:
    """The same as `make tables`."""
    return run_tables(arguments)


def report(arguments: argparse.Namespace, console: Console) -> int:
    """Pictures of one run and a page that says how to read them."""
    from moe_sweeps.results.history import find_run
    from moe_sweeps.results.pictures import write_pictures

    run = find_run(arguments.run, runs_root())
    written = write_pictures(run, resolve(os.environ.get("MOE_SWEEPS_REPORTS") or "reports"))
    for slug, reason in written.left_out.items():
        console.print(f"not drawn: {slug}: {reason}", highlight=False, markup=False)
    count = len(written.drawn)
    pictures = f"{count} {'picture' if count == 1 else 'pictures'}"
    console.print(f"wrote {pictures}: {written.folder / 'index.md'}", highlight=False, markup=False, soft_wrap=True)
    return 0


def explain(arguments: argparse.Namespace, console: Console) -> int:
    """The parameter groups of a run that exists or that a command line describes, or the runs behind a table's cell."""
    from moe_sweeps.results.lineage import is_cell

    if len(arguments.run) == 1 and is_cell(arguments.run[0]):
        return explain_cell(arguments.run[0], console)
    from moe_sweeps.cli.explain import configured_run, print_explanation

    print_explanation(console, configured_run(arguments.run, runs_root()))
    return 0


def explain_cell(word: str, console: Console) -> int:
    """What a number of a table rests on: TABLE:ROW,COLUMN."""
    from moe_sweeps.results.lineage import find_cell, lineage

    for line in lineage(find_cell(word, runs_root())):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def prepare_data(arguments: argparse.Namespace, console: Console) -> int:
    """Prepare the data of a config now instead of at the first run."""
    from moe_sweeps.config.compose import compose
    from moe_sweeps.data.memmap import SplitName
    from moe_sweeps.data.prepare import prepared
    from moe_sweeps.sweep.grid import single

    run = compose(single([f"data={arguments.data}", *arguments.overrides]))
    data = prepared(run.data, resolve(run.paths.data))
    splits: tuple[SplitName, ...] = ("train", "val")
    for split in splits:
        for domain, start, end in data.domain_spans(split):
            console.print(f"{split:<6} {domain:<12} {end - start:>12,} tokens", highlight=False)
    console.print(f"{data.folder}  fingerprint {data.fingerprint[:12]}", highlight=False, soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moe-sweeps", description="Everything around training: plans, what runs are doing, tables, pictures, data."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    add_planning_commands(commands)
    one = commands.add_parser("status", help="the state of every run, and why failed ones failed")
    one.set_defaults(command=status)
    one = commands.add_parser("tables", help="write and show the ablation tables, as make tables does")
    add_table_arguments(one)
    one.set_defaults(command=tables)
    one = commands.add_parser("report", help="pictures of one run: load, balance, bias, specialisation, norms, loss")
    one.add_argument("run", help="a run folder, a run id, or a beginning of one")
    one.set_defaults(command=report)
    one = commands.add_parser("explain", help="parameter groups of a run, or the runs behind a cell of a table")
    one.add_argument("run", nargs="+", help="a run, overrides as for python train.py, or TABLE:ROW,COLUMN")
    one.set_defaults(command=explain)
    data = commands.add_parser("data", help="prepared data").add_subparsers(required=True, metavar="action")
    one = data.add_parser("prepare", help="prepare a data set now: moe-sweeps data prepare corpus")
    one.add_argument("data", nargs="?", default="corpus")
    one.add_argument("overrides", nargs="*")
    one.set_defaults(command=prepare_data)
    return parser
