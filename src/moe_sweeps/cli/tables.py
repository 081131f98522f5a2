"""`make tables`: read run folders, write and show the ablation tables.

Exit code 0: every table is complete and rests on one version of code and data. 1: some are not; they are written all
the same and say so, and ALLOW_PARTIAL=1 in the environment makes that 0. 2: there is nothing to read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from moe_sweeps.cli.imports import lasting
from moe_sweeps.paths import resolve

if TYPE_CHECKING:
    from moe_sweeps.results.write import Written

WIDTH_WITHOUT_TERMINAL = 140


def main(argv: Sequence[str] | None = None) -> int:
    """Write and show the tables; return the exit code."""
    parser = argparse.ArgumentParser("python -m moe_sweeps.cli.tables", description="Write and show ablation tables.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """The command, from its parsed arguments."""
    # pandas takes longer to import than most commands take; only this one needs it.
    with lasting():
        from moe_sweeps.results.write import NothingToRead, write_tables

    try:
        written = write_tables(args.runs, args.reports, only=args.sweep, latest=args.latest)
    except NothingToRead as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _show(written, _console(), costs=args.costs)
    return 0 if written.clean or _partial_is_allowed() else 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("sweep", nargs="?", help="only sweeps of this name or id")
    parser.add_argument("--latest", action="store_true", help="only the sweep that was started last")
    parser.add_argument("--costs", action="store_true", help="show what arms cost, too, and their loss at equal time")
    for name in ("runs", "reports"):
        variable = f"MOE_SWEEPS_{name.upper()}"
        default = resolve(os.environ.get(variable) or name)
        parser.add_argument(f"--{name}", type=_path, default=default, help=f"folder (default: ${variable} or {name}/)")


def _partial_is_allowed() -> bool:
    return os.environ.get("ALLOW_PARTIAL") == "1"


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _console() -> Console:
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return Console(width=wide)


def _show(written: Written, console: Console, *, costs: bool) -> None:
    from moe_sweeps.results import render_costs
    from moe_sweeps.results.terminal import print_claims, print_sheet, print_table

    for found in reversed(written.evidence):  # the newest last, where the reader looks
        print_table(found.table, console)
        if costs and found.costs is not None:
            console.print(render_costs.terminal(found.costs))
        if found.verdicts:
            print_claims(found.verdicts, console)
    if written.summary is not None:
        print_sheet(written.summary, console)
    if written.problems:
        console.print(Text("Could not be read, and is in no number:", style="bold red"))
        for problem in written.problems:
            console.print(Text(f"  {problem}"))
    page = next(path for path in written.paths if path.name == "index.html")
    folders = Counter(path.parent for path in written.paths)
    for folder, files in folders.items():
        console.print(Text(f"wrote {files} files to {folder}", style="dim"), soft_wrap=True)
    console.print(Text(f"all on one page: {page}", style="bold"), soft_wrap=True)
    if not written.clean:
        consequence = (
            "allowed by ALLOW_PARTIAL=1" if _partial_is_allowed() else "exit code 1; ALLOW_PARTIAL=1 allows it"
        )
        console.print(Text(f"Not everything is final ({consequence}):", style="yellow"))
        for line in unfinished(written):
            console.print(Text(f"  {line}", style="yellow"), soft_wrap=True)


def unfinished(written: Written) -> list[str]:
    """Rows that rest on fewer seeds than planned or on several versions, and what could not be read."""
    from moe_sweeps.results.tables import marks

    rows = [
        f"{table.title}: {arm.label}: {arm.done} of {len(arm.runs)} seeds; {', '.join(found)}"
        for table in written.tables
        for arm in table.arms
        if (found := marks(table, arm)) and not (arm.complete and table.one_version)
    ]
    return [*rows, *map(str, written.problems)]


if __name__ == "__main__":
    sys.exit(main())
