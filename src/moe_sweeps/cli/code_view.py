"""Results and runs that rest on other code than the current: what a plan says about them, and what to type."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from moe_sweeps.cli.roots import command_at
from moe_sweeps.records.code_record import name_files
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.other_code import OtherCode

AS_THEY_ARE = "--as-they-are"
# Exit code of train.py when a result that it shows is of other code than the current, without AS_THEY_ARE.
OTHER_CODE = 3
MOST_IDS = 8


def code_lines(found: OtherCode, sweep_id: str | None, as_they_are: bool = False) -> list[str]:
    """Lines of a plan. `sweep_id`: None while the sweep has no manifest. `as_they_are`: such results are accepted."""
    lines = []
    if found.trained:
        names = escape(name_files(found.files))
        lines.append(f"  [bold yellow]trained by other code[/]: {len(found.trained)} ({names})")
        lines += [] if as_they_are else _what_to_type(found.trained, sweep_id)
    if found.begun:
        names = escape(name_files(found.files_of_begun))
        lines.append(
            f"  [yellow]begun by other code[/]: {len(found.begun)} ({names}); they resume with the current code"
        )
    return lines


def exit_code_by_code(console: Console, found: OtherCode, code: int, as_they_are: bool) -> int:
    """`code` where it is not 0; else OTHER_CODE, with a sentence, if results of other code are not accepted."""
    if code or as_they_are or not found.trained:
        return code
    runs = "1 result is" if len(found.trained) == 1 else f"{len(found.trained)} results are"
    console.print(
        f"[bold yellow]{runs} of other code[/] ({escape(name_files(found.files))}); see the plan above", markup=True
    )
    return OTHER_CODE


def _what_to_type(runs: Sequence[RunDir], sweep_id: str | None) -> list[str]:
    ids = [run.run_id for run in runs]
    what = ["--other-code", sweep_id] if sweep_id else ids if len(runs) <= MOST_IDS else ["--other-code"]
    return [
        f"    train them again: {escape(command_at(runs[0].path.parent, 'retry', '--done', *what))}",
        f"    or accept them: the same command with {AS_THEY_ARE}",
    ]
