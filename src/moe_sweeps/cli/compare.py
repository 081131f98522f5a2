"""`moe-sweeps compare RUN RUN ...`: settings that differ, final numbers, and the curves as a picture."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from moe_sweeps.cli.planning import AS_JSON
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.cli.runs import WHAT
from moe_sweeps.cli.select import select
from moe_sweeps.cli.status import settings_known
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.folding import Column, FoldedTable
from moe_sweeps.host.shell import tool_command
from moe_sweeps.paths import resolve
from moe_sweeps.records.manifest import spell_settings
from moe_sweeps.records.remarks import remarks_of

if TYPE_CHECKING:
    from moe_sweeps.reports.side_by_side import Pictures
    from moe_sweeps.results.side_by_side import SideBySide

NOTHING = "–"


def compare(arguments: argparse.Namespace, console: Console) -> int:
    """Set runs side by side. No verdict: `judge` gives those."""
    from moe_sweeps.reports.side_by_side import LETTERS, MOST_RUNS, write_curves
    from moe_sweeps.results.side_by_side import side_by_side

    chosen = select(arguments.runs, runs_root(), each=True)
    if len(chosen.runs) > MOST_RUNS:
        raise MoeSweepsError(f"these are {len(chosen.runs)} runs, and {MOST_RUNS} can be told apart. Give fewer.")
    runs = [(spell_settings(settings_known(folder, chosen.manifests)) or label if label == folder.path.name else label,
             folder) for label, folder in chosen.runs]  # fmt: skip
    found = side_by_side(runs)
    pictures = write_curves(found, resolve(os.environ.get("MOE_SWEEPS_REPORTS") or "reports"), arguments.metric)
    if arguments.json:
        from moe_sweeps.cli.documents.compare import compare_document
        from moe_sweeps.cli.documents.document import print_document

        print_document(console, compare_document(found, pictures))
        return 0
    letters = LETTERS[: len(found.sides)]
    _print_runs(console, found, letters)
    _print_settings(console, found, letters)
    _print_numbers(console, found, letters)
    _print_end(console, found, pictures)
    return 0


def _print_runs(console: Console, found: SideBySide, letters: str) -> None:
    remarks = [remarks_of(side.folder.path).line for side in found.sides]
    rows = [[letter, side.folder.path.name, side.state, "" if side.label == side.folder.path.name else side.label, note]
            for letter, side, note in zip(letters, found.sides, remarks, strict=True)]  # fmt: skip
    columns = [Column(""), Column("run"), Column("state"), Column("settings", folds=True)]
    console.print(FoldedTable([*columns, Column("notes", folds=True, told=True)], rows))


def _print_settings(console: Console, found: SideBySide, letters: str) -> None:
    _title(console, "Settings that differ")
    if not found.settings:
        console.print("  none", highlight=False)
        return
    rows = [[setting.key, *(NOTHING if value is None else value for value in setting.values),
             "" if setting.counts else "cannot change a result"] for setting in found.settings]  # fmt: skip
    console.print(FoldedTable([Column("key"), *(Column(letter, folds=True, told=True) for letter in letters),
                               Column("", folds=True)], rows))  # fmt: skip
    if any(None in setting.values for setting in found.settings):
        console.print(Text(f"  {NOTHING}: not read, or not known to the code that froze it", "dim"))


def _print_numbers(console: Console, found: SideBySide, letters: str) -> None:
    _title(console, "Final numbers")
    if not found.numbers:
        console.print("  no run has any", highlight=False)
        return
    columns = [Column("number"), *(Column(letter, right=True) for letter in letters)]
    columns += [Column(f"{letter} - {letters[0]}", right=True) for letter in letters[1:]]
    rows = []
    for number in found.numbers:
        values = [NOTHING if value is None else number.metric.spell(value) for value in number.values]
        apart = [
            NOTHING if value is None else number.metric.spell(value, sign=True) for value in number.differences[1:]
        ]
        rows.append([number.metric.header, *values, *apart])
    console.print(FoldedTable(columns, rows))


def _print_end(console: Console, found: SideBySide, pictures: Pictures) -> None:
    console.print()
    for remark in found.remarks:
        _line(console, remark)
    ids: Sequence[str] = [side.folder.run_id for side in found.sides]
    _line(console, f"one run each: is it more than a seed does? {tool_command('judge', ids[1], ids[0])}")
    for path in pictures.paths:
        _line(console, f"curves: {path}")
    if pictures.left_out:
        _line(console, f"no curves: {pictures.left_out}")


def _title(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, "bold"))


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def add_command(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    one = commands.add_parser("compare", help="runs side by side: settings that differ, final numbers, curves")
    one.set_defaults(command=compare)
    one.add_argument("runs", nargs="+", metavar="RUN", help=f"{WHAT}; several settings in quotes are one line")
    one.add_argument("--metric", default="loss", help="a number of metrics.jsonl to draw (default: %(default)s)")
    one.add_argument("--json", action="store_true", help=AS_JSON)
