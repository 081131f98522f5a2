"""`moe-sweeps`: everything around training. Commands import what they need, so that the light ones start at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from moe_sweeps.cli.follow import make_console
from moe_sweeps.cli.imports import lasting
from moe_sweeps.cli.planning import add_commands as add_planning_commands
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.cli.runs import add_commands as add_run_commands
from moe_sweeps.cli.tables import add_arguments as add_table_arguments
from moe_sweeps.cli.tables import run as run_tables
from moe_sweeps.cli.track import add_commands as add_track_commands
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.paths import resolve

REFUSED, STOPPED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    arguments = _parse(argv)
    command: Callable[[argparse.Namespace, Console], int] = arguments.command
    try:
        return command(arguments, make_console())
    except MoeSweepsError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        print(f"error: {error}{notes}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("\nstopped; runs that were training here have saved their state", file=sys.stderr)
        return STOPPED


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


def knobs(arguments: argparse.Namespace, console: Console) -> int:
    """Every key, or those with a word in them; exit code 1 when there is none."""
    from moe_sweeps.cli.knobs import knobs as found
    from moe_sweeps.cli.knobs import markdown

    if arguments.markdown:
        console.out(markdown(), end="", highlight=False)
        return 0
    matching = found(arguments.word)
    for knob in matching:
        only = f"  ({', '.join(knob.options)})" if knob.options else ""
        console.print(f"{knob.key}={knob.default}{only}  {knob.values}", highlight=False, markup=False, soft_wrap=True)
        if knob.meaning:
            console.print(f"    {knob.meaning}", style="dim", highlight=False, markup=False, soft_wrap=True)
    if not matching:
        console.print(f"no key has {arguments.word} in its name or explanation", highlight=False, markup=False)
    return 0 if matching else 1


def archive(arguments: argparse.Namespace, console: Console) -> int:
    """Keep the records of finished runs without their checkpoints."""
    from moe_sweeps.cli.select import select
    from moe_sweeps.results.archive import archive as add

    chosen, folder = select(arguments.what, runs_root()), resolve(arguments.folder)
    found = add([run for _, run in chosen.runs], chosen.sweeps, runs_root(), folder)
    text = f"{len(found.copied)} runs copied to {folder}, {len(found.kept)} were there, {len(found.left_out)} not over"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
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


def verify_resume(arguments: argparse.Namespace, console: Console) -> int:
    """Kill a run on purpose, and see whether that changes it; exit code 1 when it does."""
    with lasting():
        from moe_sweeps.cli.resume_view import run_verify_resume

    try:
        same = run_verify_resume(console, arguments.overrides, arguments.steps, arguments.kills)
    except KeyboardInterrupt:
        print("\nstopped; nothing of it is kept", file=sys.stderr)
        return STOPPED
    return 0 if same else 1


def prepare_data(arguments: argparse.Namespace, console: Console) -> int:
    """Prepare the data of a config now instead of at the first run."""
    from moe_sweeps.config.compose import compose
    from moe_sweeps.data.memmap import SplitName
    from moe_sweeps.data.prepare import prepared
    from moe_sweeps.sweep.grid import single

    settings = [f"data={arguments.data}", *arguments.overrides]
    settings += [f"data.max_tokens={arguments.max_tokens}"] if arguments.max_tokens else []
    settings += [f"data.workers={arguments.workers}"] if arguments.workers else []
    run = compose(single(settings))
    try:
        data = prepared(run.data, resolve(run.paths.data), asked_for=True)
    except KeyboardInterrupt:
        print("\nstopped; the same line typed again goes on where it stopped", file=sys.stderr)
        return STOPPED
    if data.meta.get("subset"):
        documents = data.meta["subset"]["documents"]
        console.print(f"a subset: the first {documents:,} documents of {arguments.data}", highlight=False)
    splits: tuple[SplitName, ...] = ("train", "val")
    for split in splits:
        for domain, start, end in data.domain_spans(split):
            console.print(f"{split:<6} {domain:<12} {end - start:>12,} tokens", highlight=False)
    console.print(f"{data.folder}  fingerprint {data.fingerprint[:12]}", highlight=False, soft_wrap=True)
    return 0


def doctor(arguments: argparse.Namespace, console: Console) -> int:
    """What of this machine a run needs, what is wrong with it, and how to put it right."""
    from moe_sweeps.cli.doctor import examine, print_findings

    return print_findings(console, examine(runs_root(), resolve(os.environ.get("MOE_SWEEPS_DATA") or "data")))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Options may stand before, between and after the overrides, which argparse does not allow in a subcommand."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(arguments, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _number(text: str) -> int:
    """A count such as 500000, 10M or 1.5G."""
    scale = {"k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}.get(text[-1:], 1)
    return int(float(text[:-1]) * scale) if scale > 1 else int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moe-sweeps", description="Everything around training: plans, what runs are doing, tables, pictures, data."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    add_planning_commands(commands)
    add_run_commands(commands)
    add_track_commands(commands)
    one = commands.add_parser("tables", help="write and show the ablation tables, as make tables does")
    add_table_arguments(one)
    one.set_defaults(command=tables)
    one = commands.add_parser("report", help="pictures of one run: load, balance, bias, specialisation, norms, loss")
    one.add_argument("run", help="a run folder, a run id, or a beginning of one")
    one.set_defaults(command=report)
    one = commands.add_parser("archive", help="copy the records of finished runs, without checkpoints, to be committed")
    one.add_argument("folder", help="where to, such as results/proxy/runs; it has the layout of a runs folder")
    one.add_argument("what", nargs="*", help="sweeps or runs; default: all")
    one.set_defaults(command=archive)
    one = commands.add_parser("explain", help="parameter groups of a run, or the runs behind a cell of a table")
    one.add_argument("run", nargs="+", help="a run, overrides as for python train.py, or TABLE:ROW,COLUMN")
    one.set_defaults(command=explain)
    one = commands.add_parser("knobs", help="every key of the config: default, values, what it does")
    one.add_argument("word", nargs="?", default="", help="only keys with this word in their name or explanation")
    one.add_argument("--markdown", action="store_true", help="as docs/knobs.md has it")
    one.set_defaults(command=knobs)
    one = commands.add_parser("verify-resume", help="kill a run on purpose: do its numbers stay the same?")
    one.add_argument("overrides", nargs="*", metavar="run", help="overrides as for python train.py, or a run")
    one.add_argument("--steps", type=int, default=60, help="of the run, trained twice (default: %(default)s)")
    one.add_argument("--kills", type=int, default=2, help="on the way (default: %(default)s)")
    one.set_defaults(command=verify_resume)
    one = commands.add_parser("doctor", help="check this machine: Python, torch, devices, SLURM, disk, data, trackers")
    one.set_defaults(command=doctor)
    data = commands.add_parser("data", help="prepared data").add_subparsers(required=True, metavar="action")
    one = data.add_parser("prepare", help="prepare a data set now: moe-sweeps data prepare corpus")
    one.add_argument("data", nargs="?", default="corpus")
    one.add_argument("--max-tokens", type=_number, help="a labelled subset of the first documents: 10M, 1G, 500000")
    one.add_argument("--workers", type=int, help="threads that encode; default: one a core")
    one.add_argument("overrides", nargs="*")
    one.set_defaults(command=prepare_data)
    return parser
