"""`moe-sweeps`: everything around training. Commands import what they need, so that the light ones start at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from moe_sweeps.cli.compare import add_command as add_compare_command
from moe_sweeps.cli.documents.refusal import print_refusal
from moe_sweeps.cli.imports import lasting
from moe_sweeps.cli.note import add_command as add_note_command
from moe_sweeps.cli.note import note
from moe_sweeps.cli.planning import AS_JSON
from moe_sweeps.cli.planning import add_commands as add_planning_commands
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.cli.runs import add_commands as add_run_commands
from moe_sweeps.cli.runs import cancel, retry
from moe_sweeps.cli.status import add_command as add_status_command
from moe_sweeps.cli.tables import add_arguments as add_table_arguments
from moe_sweeps.cli.tables import run as run_tables
from moe_sweeps.cli.track import add_commands as add_track_commands
from moe_sweeps.cli.track import sync
from moe_sweeps.cli.version import HELP, OPTION, print_version, version_line
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.consoles import make_console, say
from moe_sweeps.host.files import NOT_ALLOWED
from moe_sweeps.host.locks import not_writable
from moe_sweeps.host.output import Policy, guarded
from moe_sweeps.host.program import run_program, stopped
from moe_sweeps.paths import require_given_folders, resolve

if TYPE_CHECKING:
    from moe_sweeps.data.memmap import TokenData

REFUSED = 2
JUDGE_HELP = "is A better than B? exit code 0: better, 10: worse, 11: equivalent, 12: undecided"
DECIDE_HELP = "train the runs that decide a sweep's questions, within a budget; exit code 0: all decided, 12: not all"
LARGEST = 2**63 - 1  # tokens; the config has the same bound


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["train"]:
        return train(words[1:])
    with guarded() as output:
        return _run(words, output)


def _run(words: Sequence[str], output: Policy) -> int:
    console = make_console()  # before the help, which has characters that stdout may lack
    arguments = _parse(words)
    command: Callable[[argparse.Namespace, Console], int] = arguments.command
    output.may_be_lost = command in WORKING
    try:
        if command is not doctor:  # it reports missing folders itself
            require_given_folders()
        code = command(arguments, console)
        sys.stdout.flush()
        return code
    except MoeSweepsError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        say(f"error: {error}{notes}", stderr=True)
        return print_refusal(arguments, console, error, REFUSED)
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            raise
        say(f"error: {not_writable(error)}", stderr=True)
        return print_refusal(arguments, console, error, REFUSED, str(not_writable(error)))
    except KeyboardInterrupt:
        return stopped("runs that were training here have saved their state")


def train(words: Sequence[str]) -> int:
    """The same as `python train.py`, for an installed package, which has no train.py."""
    if print_version(words):
        return 0
    with lasting():
        from moe_sweeps.cli.train import main as train_main
    return train_main(words, fresh=True)


def tables(arguments: argparse.Namespace, console: Console) -> int:
    """The same as `make tables`."""
    return run_tables(arguments)


def judge(arguments: argparse.Namespace, console: Console) -> int:
    """Is A better than B?"""
    from moe_sweeps.cli.judge import judge as run

    return run(arguments, console)


def add_judge_arguments(parser: argparse.ArgumentParser) -> None:
    """What `judge` is told."""
    parser.add_argument("a", help="a run (for all seeds of its arm), runs with commas, or settings: aux.coef=0.1")
    parser.add_argument("b", help="what A is held against, given in the same way")
    parser.add_argument("--metric", default="val_loss", help="a number of summary.json (default: %(default)s)")
    parser.add_argument("--within", type=float, help="a difference that counts as none; default: what a seed does")
    parser.add_argument("--look", type=int, default=1, help="which look this is, if seeds were added since the first")
    parser.add_argument("--json", action="store_true", help=AS_JSON)


def decide(arguments: argparse.Namespace, console: Console) -> int:
    """Train what the open questions need, and say what was decided."""
    with lasting():
        from moe_sweeps.cli.decide import decide as run

    return run(arguments, console)


def add_decide_arguments(parser: argparse.ArgumentParser) -> None:
    """What `decide` is told."""
    parser.add_argument("overrides", nargs="*", help="as for python train.py -m: sweep=aux_coef, sweep=a,b, key=values")
    parser.add_argument("--all", action="store_true", help="every sweep of sweeps/ that does not say all: false")
    parser.add_argument("--budget", metavar="TIME", required=True, help="core time of all calls together: 4h, 30m, ...")
    parser.add_argument("--max-seeds", metavar="N", type=int, help="seeds an arm at most (default: 40)")
    parser.add_argument("--dry-run", action="store_true", help="print the first batch and why, and train nothing")
    parser.add_argument("--json", action="store_true", help=AS_JSON)


def report(arguments: argparse.Namespace, console: Console) -> int:
    """Pictures of one run and a page that says how to read them."""
    from moe_sweeps.cli.naming import the_run
    from moe_sweeps.reports.pictures import write_pictures

    run = the_run(arguments.run, runs_root())
    written = write_pictures(run, resolve(os.environ.get("MOE_SWEEPS_REPORTS") or "reports"))
    for slug, reason in written.left_out.items():
        console.print(f"not drawn: {slug}: {reason}", highlight=False, markup=False)
    count = len(written.drawn)
    pictures = f"{count} {'picture' if count == 1 else 'pictures'}"
    console.print(f"wrote {pictures}: {written.folder / 'index.md'}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"page: {written.folder / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
    return 0


def knobs(arguments: argparse.Namespace, console: Console) -> int:
    """Every key, or those with a word in them; exit code 1 when there is none."""
    from moe_sweeps.cli.knobs import knobs as found
    from moe_sweeps.cli.knobs import markdown

    if arguments.markdown:
        console.out(markdown(), end="", highlight=False)
        return 0
    matching = found(arguments.word)
    if arguments.json:
        from moe_sweeps.cli.documents.document import print_document
        from moe_sweeps.cli.documents.knobs import knobs_document

        print_document(console, knobs_document(matching))
        return 0 if matching else 1
    for knob in matching:
        only = f"  ({', '.join(knob.options)})" if knob.options else ""
        console.print(f"{knob.key}={knob.default}{only}  {knob.values}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"    {knob.meaning}", style="dim", highlight=False, markup=False, soft_wrap=True)
    if not matching:
        console.print(f"no key has {arguments.word} in its name or explanation", highlight=False, markup=False)
    return 0 if matching else 1


def archive(arguments: argparse.Namespace, console: Console) -> int:
    """Keep the records of finished runs without their checkpoints."""
    from moe_sweeps.cli.select import select
    from moe_sweeps.results.archive import archive as add

    chosen = select(arguments.what, runs_root())
    folder = Path.cwd() / Path(arguments.folder).expanduser()  # as the shell completes it
    found = add([run for _, run in chosen.runs], chosen.sweeps, runs_root(), folder)
    text = f"{len(found.copied)} runs copied to {folder}, {len(found.kept)} were there, {len(found.left_out)} not over"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    for problem in (*chosen.problems, *found.problems):
        console.print(f"left out: {problem}", highlight=False, markup=False, soft_wrap=True)
    return 1 if found.problems else 0


def explain(arguments: argparse.Namespace, console: Console) -> int:
    """The parameter groups of a run that exists or that a command line describes, or the runs behind a table's cell."""
    from moe_sweeps.reports.lineage import is_cell

    if len(arguments.run) == 1 and is_cell(arguments.run[0]):
        return explain_cell(arguments.run[0], console, as_data=arguments.json)
    from moe_sweeps.cli.explain import configured_run, print_explanation

    run = configured_run(arguments.run, runs_root())
    if arguments.json:
        from moe_sweeps.cli.documents.document import print_document
        from moe_sweeps.cli.documents.explain import explain_document

        print_document(console, explain_document(run))
        return 0
    print_explanation(console, run)
    return 0


def explain_cell(word: str, console: Console, *, as_data: bool = False) -> int:
    """What a number of a table rests on: TABLE:ROW,COLUMN."""
    from moe_sweeps.cli.naming import meant_today
    from moe_sweeps.reports.lineage import find_cell, lineage

    cell = find_cell(word, runs_root())
    if as_data:
        from moe_sweeps.cli.documents.document import print_document
        from moe_sweeps.cli.documents.explain import cell_document

        print_document(console, cell_document(cell))
        return 0
    for line in lineage(cell, meant_today):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def verify_resume(arguments: argparse.Namespace, console: Console) -> int:
    """Kill and resume a run on purpose, and compare; exit code 1 when its numbers differ."""
    with lasting():
        from moe_sweeps.cli.resume_view import run_verify_resume

    try:
        same = run_verify_resume(console, arguments.overrides, arguments.steps, arguments.kills)
    except KeyboardInterrupt:
        return stopped("its folders are removed")
    return 0 if same else 1


def prepare_data(arguments: argparse.Namespace, console: Console) -> int:
    """Prepare the data of a config now instead of at the first run."""
    from moe_sweeps.data.prepare import prepared
    from moe_sweeps.experiment.compose import compose
    from moe_sweeps.sweep.grid import ONE_RUN, single

    settings = [f"data={arguments.data}", *arguments.overrides]
    settings += [f"data.max_tokens={arguments.max_tokens}"] if arguments.max_tokens else []
    settings += [f"data.workers={arguments.workers}"] if arguments.workers else []
    run = compose(single(settings, *ONE_RUN))
    try:
        data = prepared(run.data, resolve(run.paths.data), asked_for=True)
    except KeyboardInterrupt:
        return stopped("run the same command again to resume")
    _print_data(console, data, arguments.data)
    return 0


def _print_data(console: Console, data: TokenData, name: str) -> None:
    """The sizes of prepared data, what happened to its documents, and where it lies."""
    from moe_sweeps.data.account import sentences
    from moe_sweeps.data.memmap import SplitName

    if data.meta.get("subset"):
        documents = data.meta["subset"]["documents"]
        console.print(f"a subset: the first {documents:,} documents of {name}", highlight=False)
    splits: tuple[SplitName, ...] = ("train", "val")
    for split in splits:
        for domain, start, end in data.domain_spans(split):
            console.print(f"{split:<6} {domain:<12} {end - start:>12,} tokens", highlight=False)
    for sentence in sentences(data.meta):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{data.folder}  fingerprint {data.fingerprint[:12]}", highlight=False, soft_wrap=True)


def doctor(arguments: argparse.Namespace, console: Console) -> int:
    """What a run needs of this machine, what is wrong with it, and how to fix it."""
    from moe_sweeps.cli.doctor import examine, print_findings

    return print_findings(console, examine(runs_root(), resolve(os.environ.get("MOE_SWEEPS_DATA") or "data")))


# These work on when nobody reads their output (`| head`); the other commands only print, and end with their reader.
WORKING = (retry, cancel, sync, decide, archive, verify_resume, prepare_data, note)


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
    count = int(Fraction(text[:-1]) * scale) if scale > 1 else int(text)
    if not 0 < count <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is refused: it must be above 0 and at most {LARGEST}")
    return count


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moe-sweeps", description="Everything around training: plans, what runs are doing, tables, pictures, data."
    )
    parser.add_argument(OPTION, action="version", version=version_line(), help=HELP)
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("train", help="the same as python train.py", add_help=False)  # main() passes its words on
    add_planning_commands(commands)
    add_status_command(commands)
    add_compare_command(commands)
    add_note_command(commands)
    add_run_commands(commands)
    add_track_commands(commands)
    one = commands.add_parser("tables", help="write and show the ablation tables, as make tables does")
    add_table_arguments(one)
    one.set_defaults(command=tables)
    one = commands.add_parser("judge", help=JUDGE_HELP)
    add_judge_arguments(one)
    one.set_defaults(command=judge)
    one = commands.add_parser("decide", help=DECIDE_HELP)
    add_decide_arguments(one)
    one.set_defaults(command=decide)
    one = commands.add_parser("report", help="pictures of one run: load, balance, bias, specialisation, norms, loss")
    one.add_argument("run", nargs="+", help="a run's id, its beginning, its folder, or its line of settings")
    one.set_defaults(command=report)
    one = commands.add_parser("archive", help="copy the records of finished runs, without checkpoints, for committing")
    one.add_argument("folder", help="where to, such as results/proxy/runs; it has the layout of a runs folder")
    one.add_argument("what", nargs="*", help="sweeps or runs; default: all")
    one.set_defaults(command=archive)
    one = commands.add_parser("explain", help="parameter groups of a run, or the runs behind a cell of a table")
    one.add_argument("run", nargs="+", help="a run, overrides as for python train.py, or TABLE:ROW,COLUMN")
    one.add_argument("--json", action="store_true", help=AS_JSON)
    one.set_defaults(command=explain)
    one = commands.add_parser("knobs", help="every key of the config: default, values, what it does")
    one.add_argument("word", nargs="?", default="", help="only keys with this word in their name or explanation")
    one.add_argument("--markdown", action="store_true", help="as docs/knobs.md has it")
    one.add_argument("--json", action="store_true", help=AS_JSON)
    one.set_defaults(command=knobs)
    one = commands.add_parser("verify-resume", help="kill and resume a run on purpose: do its numbers stay the same?")
    one.add_argument("overrides", nargs="*", metavar="run", help="overrides as for python train.py, or a run")
    one.add_argument("--steps", type=int, default=60, help="of the run, trained twice (default: %(default)s)")
    one.add_argument("--kills", type=int, default=2, help="on the way (default: %(default)s)")
    one.set_defaults(command=verify_resume)
    one = commands.add_parser("doctor", help="check this machine: Python, torch, devices, SLURM, disk, data, trackers")
    one.set_defaults(command=doctor)
    data = commands.add_parser("data", help="prepared data").add_subparsers(required=True, metavar="action")
    one = data.add_parser("prepare", help="prepare a data set now: moe-sweeps data prepare corpus")
    one.add_argument("data", nargs="?", default="corpus")
    one.add_argument(
        "--max-tokens", type=_number, help="only the first documents, labelled as a subset: 10M, 1G, 500000"
    )
    one.add_argument("--workers", type=int, help="threads that encode; default: one a core")
    one.add_argument("overrides", nargs="*")
    one.set_defaults(command=prepare_data)
    return parser


if __name__ == "__main__":
    run_program(main)
