"""`moe-sweeps track sync`: bring what trackers hold up to what the run folders say, as often as one likes."""

from __future__ import annotations

import argparse
import dataclasses
from enum import Enum
from typing import Any

from rich.console import Console

from moe_sweeps.cli.roots import runs_root
from moe_sweeps.cli.select import select
from moe_sweeps.config.tracking import MirrorConfig, TensorBoardConfig, WandbConfig, WandbMode
from moe_sweeps.errors import MoeSweepsError, RunBusyError
from moe_sweeps.mirroring import Mirror, Record, destination_of, require_tracker
from moe_sweeps.rundir import RunDir

OK, FAILED = 0, 1
SECONDS = 300.0  # a tracker that does not answer for so long is given up
KINDS: dict[str, type[MirrorConfig]] = {"wandb": WandbConfig, "tensorboard": TensorBoardConfig}


def sync(arguments: argparse.Namespace, console: Console) -> int:
    """Hand over what the trackers do not hold yet; exit code 1 when one could not take it."""
    chosen = select(arguments.what, runs_root())
    begun = [folder for _, folder in chosen.runs if (folder.path / "metrics.jsonl").exists()]
    if not begun:
        raise MoeSweepsError(f"no run with results is meant; runs are in {runs_root()}, `moe-sweeps status` lists them")
    problems = [sync_run(console, folder, arguments) for folder in begun]
    return FAILED if any(problems) else OK


def sync_run(console: Console, folder: RunDir, arguments: argparse.Namespace) -> str | None:
    """The same for one run; returns what went wrong."""
    settings = settings_for(folder, arguments)
    destination = str(destination_of(settings))
    before = Record.read(folder, destination)

    def say(text: str) -> None:
        console.print(f"{folder.path.name}: {destination}: {text}", highlight=False, markup=False, soft_wrap=True)

    if before.complete and not arguments.again:
        say(f"has all {before.last_step:,} steps (--again asks the tracker itself)")
        return None
    problem = Mirror(folder, settings).end(folder.status().state)
    after = Record.read(folder, destination)
    if problem:
        say(problem.removeprefix(f"{destination}: "))
        return problem
    _forget_problem(folder)
    say(f"has all steps up to {after.last_step:,}{'' if after.complete else ', the run is not over'}")
    if after.url:
        say(after.url)
    return None


def settings_for(folder: RunDir, arguments: argparse.Namespace) -> dict[str, Any]:
    """The tracking config to use: the run's own where it is of the kind that is asked for, changed by the options."""
    own = folder.config().get("tracking") or {}
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
    """Add `track sync` to a parser's sub-commands."""
    track = commands.add_parser("track", help="mirrors of runs in wandb and TensorBoard")
    actions = track.add_subparsers(required=True, metavar="action")
    one = actions.add_parser("sync", help="hand over what a tracker does not hold yet; a second time nothing is new")
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help="as for status (default: everything)")
    one.add_argument("--to", choices=sorted(KINDS), help="default: the run's own tracker, else wandb")
    one.add_argument("--offline", action="store_true", help="wandb: into files that `wandb sync` sends")
    one.add_argument("--project", help="wandb: default: the run's own, else moe_sweeps")
    one.add_argument("--entity", help="wandb: default: the run's own, else wandb's")
    one.add_argument("--again", action="store_true", help="ask the tracker also where all was handed over")
    one.set_defaults(command=sync)


def _forget_problem(folder: RunDir) -> None:
    """The status of a run that nobody trains need not complain any more."""
    try:
        with folder.lock():
            status = folder.status()
            if status.tracking:
                status.tracking = None
                folder.write_status(status, beat=False)
    except RunBusyError:
        return
