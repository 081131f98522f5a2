"""`moe-sweeps track sync`: send trackers what the run folders have and they lack. Safe to repeat."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from enum import Enum
from typing import Any

from rich.console import Console

from moe_sweeps.cli.roots import runs_root
from moe_sweeps.cli.select import select
from moe_sweeps.config.tracking import MirrorConfig, TensorBoardConfig, WandbConfig, WandbMode
from moe_sweeps.errors import MoeSweepsError, RunBusyError, RunFolderError
from moe_sweeps.host.shell import tool_command
from moe_sweeps.records.mirror import Mirror, Record, destination_of, require_tracker
from moe_sweeps.records.rundir import RunDir

OK, FAILED = 0, 1
MOST_NAMES = 3  # runs that are named where all of them have one thing to say
SECONDS = 300.0  # a tracker that does not answer for this long is given up
KINDS: dict[str, type[MirrorConfig]] = {"wandb": WandbConfig, "tensorboard": TensorBoardConfig}


@dataclasses.dataclass(slots=True)
class _Told:
    """What there is to say of all runs together: each thing once, with the runs that it is about."""

    complete: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # by destination and step
    problems: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # by what went wrong


def sync(arguments: argparse.Namespace, console: Console) -> int:
    """Send what the trackers do not have yet; exit code 1 when one could not take it."""
    chosen = select(arguments.what, runs_root())
    begun = [folder for _, folder in chosen.runs if (folder.path / "metrics.jsonl").exists()]
    if not begun:
        raise MoeSweepsError(f"none of these runs has results yet; `moe-sweeps status` lists the runs in {runs_root()}")
    told = _Told()
    for folder in begun:
        try:
            sync_run(console, folder, arguments, told)
        except RunFolderError as error:  # a damaged folder does not stop the others
            told.problems.setdefault(str(error), []).append(folder.path.name)
    _print_told(console, told, arguments)
    return FAILED if told.problems else OK


def sync_run(console: Console, folder: RunDir, arguments: argparse.Namespace, told: _Told) -> None:
    """Send what the tracker of one run lacks; what went wrong is added to `told`."""
    settings = settings_for(folder, arguments)
    destination = str(destination_of(settings))
    before = Record.read(folder, destination)
    if before.complete and not arguments.again:
        text = f"{destination}: has all {before.last_step:,} steps"
        told.complete.setdefault(text, []).append(folder.path.name)
        return
    problem = Mirror(folder, settings).end(folder.status().state)
    after = Record.read(folder, destination)
    if problem:
        told.problems.setdefault(_of_all(problem, destination, folder), []).append(folder.path.name)
        return
    _forget_problem(folder)
    more = "" if after.complete else ", the run is not over"
    _line(console, f"{folder.path.name}: {destination}: has all steps up to {after.last_step:,}{more}")
    if after.url:
        _line(console, f"  {after.url}")


def _of_all(problem: str, destination: str, folder: RunDir) -> str:
    """What went wrong without what is of this run alone, so that one cause is one text."""
    told = f"{destination}: {problem.removeprefix(f'{destination}: ')}"
    return told.replace(str(folder.path), "the run folder").replace(folder.run_id, "the run")


def _print_told(console: Console, told: _Told, arguments: argparse.Namespace) -> None:
    for text, names in told.complete.items():
        _line(console, f"{_names(names)}: {text}")
    if told.complete:
        _line(console, "(--again asks the tracker itself)")
    for text, names in told.problems.items():
        _line(console, f"{_names(names)}: {text}")
    unsent = [text for text in told.problems if text.startswith("wandb")]
    if unsent and not arguments.offline:
        words = [*arguments.what, *(["--to", arguments.to] if arguments.to else [])]
        offline = tool_command("track", "sync", *words, "--offline")
        _line(console, f"Without a connection or a key: {offline} writes files that `wandb sync` sends later.")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more runs"


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def settings_for(folder: RunDir, arguments: argparse.Namespace) -> dict[str, Any]:
    """The tracking config to use: the run's own if it is of the requested kind, changed by the options."""
    own = folder.settings("tracking")
    kind = arguments.to or (own["kind"] if own.get("kind") in KINDS else "wandb")
    require_tracker(kind)
    config: MirrorConfig = KINDS[kind]()
    content = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    content |= {k: v for k, v in own.items() if k in content} if own.get("kind") == kind else {}
    content |= {"finish_seconds": SECONDS}
    if kind == "wandb":
        content["mode"] = (WandbMode.offline if arguments.offline else WandbMode.online).value
        content |= {k: v for k in ("project", "entity") if (v := getattr(arguments, k))}
    return {name: value.value if isinstance(value, Enum) else value for name, value in content.items()}


def add_commands(commands: Any) -> None:
    """Add `track sync` to a parser's subcommands."""
    track = commands.add_parser("track", help="mirrors of runs in wandb and TensorBoard")
    actions = track.add_subparsers(required=True, metavar="action")
    one = actions.add_parser("sync", help="send what a tracker does not have yet; safe to repeat")
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help="as for status (default: everything)")
    one.add_argument("--to", choices=sorted(KINDS), help="default: the run's own tracker, else wandb")
    one.add_argument("--offline", action="store_true", help="wandb: write files that `wandb sync` sends later")
    one.add_argument("--project", help="wandb: default: the run's own, else moe_sweeps")
    one.add_argument("--entity", help="wandb: default: the run's own, else wandb's")
    one.add_argument("--again", action="store_true", help="ask the tracker what it has, even where everything was sent")
    one.set_defaults(command=sync)


def _forget_problem(folder: RunDir) -> None:
    """Clear the tracking problem in the status of a run that nobody trains."""
    try:
        with folder.lock():
            status = folder.status()
            if status.tracking:
                status.tracking = None
                folder.write_status(status, beat=False)
    except RunBusyError:
        return
