"""`make tables`: read run folders, write and show the ablation tables.

Exit code 0: every table is complete and rests on one version of code and data. 1: some are not; they are written
anyway and say so, and ALLOW_PARTIAL=1 in the environment turns this into 0. 2: there is nothing to read.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from moe_sweeps.cli.documents.refusal import print_refusal
from moe_sweeps.cli.imports import lasting
from moe_sweeps.host.consoles import make_console, say
from moe_sweeps.host.files import NOT_ALLOWED
from moe_sweeps.host.locks import not_writable
from moe_sweeps.host.output import guarded
from moe_sweeps.host.program import run_program
from moe_sweeps.paths import resolve

if TYPE_CHECKING:
    from moe_sweeps.reports.write import Written

REFUSED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Write and show the tables; return the exit code."""
    parser = argparse.ArgumentParser("python -m moe_sweeps.cli.tables", description="Write and show ablation tables.")
    add_arguments(parser)
    with guarded():
        return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """The command, from its parsed arguments."""
    console = make_console()
    # pandas takes longer to import than most commands take; only this one needs it.
    with lasting():
        from moe_sweeps.reports.write import NothingToRead, write_tables

    try:
        written = write_tables(args.runs, args.reports, only=args.sweep, latest=args.latest)
    except NothingToRead as error:
        return _refused(args, console, error, str(error))
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            raise
        return _refused(args, console, error, str(not_writable(error)))
    if args.json:
        from moe_sweeps.cli.documents.document import print_document
        from moe_sweeps.cli.documents.tables import tables_document

        print_document(console, tables_document(written))
    else:
        _show(written, console, costs=args.costs)
    return 0 if written.clean or _partial_is_allowed() else 1


def _refused(args: argparse.Namespace, console: Console, error: Exception, message: str) -> int:
    say(f"error: {message}", stderr=True)
    return print_refusal(args, console, error, REFUSED, message)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("sweep", nargs="?", help="only sweeps of this name or id")
    parser.add_argument("--latest", action="store_true", help="only the sweep that was started last")
    parser.add_argument("--json", action="store_true", help="as one JSON document, for programs; docs/json.md")
    parser.add_argument("--costs", action="store_true", help="also show what arms cost, and their loss at equal time")
    for name in ("runs", "reports"):
        variable = f"MOE_SWEEPS_{name.upper()}"
        default = resolve(os.environ.get(variable) or name)
        parser.add_argument(f"--{name}", type=_path, default=default, help=f"folder (default: ${variable} or {name}/)")


def _partial_is_allowed() -> bool:
    return os.environ.get("ALLOW_PARTIAL") == "1"


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _show(written: Written, console: Console, *, costs: bool) -> None:
    _show_tables(written, console, costs)
    if written.problems:
        console.print(Text("Could not be read, and is part of no number:", style="bold red"))
        for problem in written.problems:
            console.print(Text(f"  {problem}"))
    for folder, files in Counter(path.parent for path in written.paths).items():
        console.print(Text(f"wrote {files} files to {folder}", style="dim"), soft_wrap=True)
    console.print(Text(f"all on one page: {written.page}", style="bold"), soft_wrap=True)
    if not written.clean:
        _show_unfinished(written, console)


def _show_tables(written: Written, console: Console, costs: bool) -> None:
    from moe_sweeps.reports import render_costs
    from moe_sweeps.reports.terminal import print_claims, print_sheet, print_table

    for found in reversed(written.evidence):  # the newest last, where the reader looks
        print_table(found.table, console)
        if costs and found.costs is not None:
            console.print(render_costs.terminal(found.costs))
        if found.verdicts:
            print_claims(found.verdicts, console)
    if written.summary is not None:
        print_sheet(written.summary, console)


def _show_unfinished(written: Written, console: Console) -> None:
    allowed, refused = "allowed by ALLOW_PARTIAL=1", "exit code 1; ALLOW_PARTIAL=1 allows it"
    console.print(Text(f"Not everything is final ({allowed if _partial_is_allowed() else refused}):", style="yellow"))
    for line in unfinished(written):
        console.print(Text(f"  {line}", style="yellow"), soft_wrap=True)


def unfinished(written: Written) -> list[str]:
    """Rows with fewer seeds than planned or with several versions of code or data, and what could not be read."""
    from moe_sweeps.results.tables import marks

    rows = [
        f"{table.title}: {arm.label}: {arm.seeds_done} of {arm.seeds_planned} seeds; {', '.join(found)}"
        for table in written.tables
        for arm in table.arms
        if (found := marks(table, arm)) and not (arm.complete and table.one_version)
    ]
    return [*rows, *map(str, written.problems)]


if __name__ == "__main__":
    run_program(main)
