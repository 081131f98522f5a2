"""`moe-sweeps retry`: runs are made ready for training, and put back where nothing comes of it.

A run is `failed` until it is made ready. If SLURM then refuses, or Ctrl-C comes, it must be `failed` again: else the
same command would find nothing to retry, and the cause of the failure would be forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from moe_sweeps.errors import ConfigError, MoeSweepsError, RunFolderError
from moe_sweeps.host.files import NOT_ALLOWED
from moe_sweeps.host.locks import not_writable
from moe_sweeps.records.rundir import PROBE_SECONDS, RunDir, State, Status

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readied:
    """A run that was made ready: its status `before`, the state it was `left` in, and what else was changed."""

    folder: RunDir
    before: Status
    left: State
    kept: Path | None  # where its summary is, if it had one
    changed: dict[str, Any]  # entries of provenance.json as they were

    def put_back(self) -> None:
        """Restore the run, unless somebody has begun with it since."""
        try:
            with self.folder.lock(wait=PROBE_SECONDS):
                now = self.folder.status()
                if (now.state, now.attempt) != (self.left, self.before.attempt):
                    return
                if self.kept is not None:
                    self.kept.replace(self.folder.path / "summary.json")
                if self.changed:
                    self.folder.update_provenance(**self.changed)
                self.folder.write_status(self.before, beat=False)
        except (MoeSweepsError, OSError) as error:
            log.warning("%s stays %s: %s", self.folder.path.name, self.left, error)


@contextmanager
def put_back_if_refused() -> Iterator[list[Readied]]:
    """The runs that the block adds to the list are put back if it ends with an error, or by Ctrl-C.

    Not where nobody knows whether SLURM has their job: it would find them failed, and train nothing.
    """
    from moe_sweeps.launch.slurm.script import NoAnswer

    readied: list[Readied] = []
    try:
        yield readied
    except NoAnswer as error:
        error.add_note("The runs wait: the line of their sweep asks the queue, and submits what SLURM does not have.")
        raise
    except BaseException:
        for one in readied:
            one.put_back()
        raise


def make_ready(folder: RunDir, seen: Status, current_code: bool = False) -> Readied:
    """Let a run that failed, diverged or was cancelled be trained again. The summary of a diverged run is kept aside.

    `seen` is the status for which it was chosen.

    Raises:
        RunBusyError: somebody trains it at this moment.
        RunFolderError: its status is another one by now: somebody else retries it.
    """
    with folder.lock():
        found = folder.status()
        if (found.state, found.attempt) != (seen.state, seen.attempt):
            raise RunFolderError(
                f"{folder.path.name} is {found.state} by now, so it is left alone: somebody retries it"
            )
        left = State.preempted if found.attempt else State.planned
        changed = {"snapshot": folder.provenance().get("snapshot")} if current_code else {}
        readied = Readied(folder, replace(found), left, _summary_aside(folder, found.attempt), changed)
        folder.drop_cancel_request()
        if current_code:
            folder.update_provenance(snapshot=None)
        found.state, found.failure, found.paused_at = left, None, None
        found.forget_deaths()
        folder.write_status(found)
        return readied


def _summary_aside(folder: RunDir, attempt: int) -> Path | None:
    summary = folder.path / "summary.json"
    return summary.replace(folder.path / f"summary.attempt-{attempt}.json") if summary.exists() else None


def require_trainable(folder: RunDir) -> None:
    """Refuse a run that could not be trained once it is ready.

    Raises:
        MoeSweepsError: its config was edited or is of other code, or it needs more than a job, or this machine, has.
    """
    from moe_sweeps.config.groups import SlurmConfig
    from moe_sweeps.experiment.frozen_run import frozen_run
    from moe_sweeps.launch.slurm.resources import resources
    from moe_sweeps.sweep.fitting import require_memory

    try:
        run = frozen_run(folder)
        if isinstance(run.launch, SlurmConfig):
            resources(run, 0.0)
        else:
            require_memory([run])
    except ConfigError as error:
        raise MoeSweepsError(f"{folder.path.name} is left out: {error}") from error


def is_allowed(console: Console, action: Callable[[], object]) -> bool:
    """Do `action`; where it is refused that is reported, and the others go on."""
    problem = refusal(action)
    if problem is not None:
        console.print(problem, highlight=False, markup=False, soft_wrap=True)
    return problem is None


def refusal(action: Callable[[], object]) -> str | None:
    """Do `action`; why it cannot be done, or None. What it acts on is damaged, in other hands, closed to this user, or
    refused by the system, such as a lock that is a folder or a link."""
    try:
        action()
        return None
    except MoeSweepsError as error:
        return str(error)
    except OSError as error:
        return str(not_writable(error)) if error.errno in NOT_ALLOWED else f"left out: {error}"
