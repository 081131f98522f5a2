"""`moe-sweeps note`: notes and tags on runs and sweeps, stored beside their records and shown with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from moe_sweeps.cli.naming import Line, named, the_run
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.host.locks import not_writable
from moe_sweeps.records.find import find_either
from moe_sweeps.records.manifest import load_manifests, manifest_path
from moe_sweeps.records.remarks import Remarks, change_remarks, remarks_of
from moe_sweeps.records.rundir import RunDir


def note(arguments: argparse.Namespace, console: Console) -> int:
    """Add a note and tags, remove them, or show what there is."""
    name, folder = _subject(arguments.what)
    text = " ".join(arguments.text)
    changes = text or arguments.tag or arguments.untag or arguments.remove is not None
    found = _changed(folder, arguments, text) if changes else remarks_of(folder)
    if found.problem:
        raise MoeSweepsError(f"{folder / 'notes.json'} cannot be read: {found.problem}")
    _print(console, name, found)
    return 0


def _changed(folder: Path, arguments: argparse.Namespace, text: str) -> Remarks:
    def change(remarks: Remarks) -> Remarks:
        if arguments.remove is not None:
            remarks = remarks.without_note(arguments.remove)
        for tag in arguments.untag:
            remarks = remarks.without_tag(tag)
        for tag in arguments.tag:
            remarks = remarks.with_tag(tag)
        return remarks.with_note(text) if text else remarks

    try:
        return change_remarks(folder, change)
    except PermissionError as error:
        raise not_writable(error, folder) from error


def _subject(what: str) -> tuple[str, Path]:
    """The name and the folder of the run or sweep that a word, or a quoted line, means."""
    root = runs_root()
    names = named([what])
    if not names:
        raise ConfigError("note", what, "it names no run and no sweep", "Give an id: moe-sweeps note RUN TEXT")
    if isinstance(names[0], Line):
        run = the_run([what], root)
        return run.path.name, run.path
    found = find_either(what, load_manifests(root)[0], root)
    if isinstance(found, RunDir):
        found.require_no_link()
        return found.path.name, found.path
    return found.slug, manifest_path(root, found.sweep_id).parent


def _print(console: Console, name: str, found: Remarks) -> None:
    tags = "".join(f" #{tag}" for tag in found.tags)
    lines = [f"{name}{tags}"]
    lines += [f"  {number}. {one.text}  ({one.by}, {one.time})" for number, one in enumerate(found.notes, 1)]
    lines += [] if found else ["  no notes and no tags"]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def add_command(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    one = commands.add_parser("note", help="write a note or tags on a run or sweep; they are shown wherever it is")
    one.set_defaults(command=note)
    one.add_argument("what", metavar="RUN|SWEEP", help="as for status; several settings in quotes are one line")
    one.add_argument("text", nargs="*", metavar="TEXT", help="the note (default: show what there is)")
    one.add_argument("--tag", action="append", default=[], metavar="WORD", help="may be given several times")
    one.add_argument("--untag", action="append", default=[], metavar="WORD", help="remove a tag")
    one.add_argument("--remove", type=int, metavar="N", help="remove the N-th note")
