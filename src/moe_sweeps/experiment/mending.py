"""Lost files of a run folder are written again if their content follows from something else.

status.json follows from what training left, identity.json from the frozen config, and a folder in which nothing was
trained yet from the line that asks for it. A file that cannot be restored makes that run fail, and no other.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import yaml

from moe_sweeps.errors import ConfigError, RunBusyError, RunFolderError
from moe_sweeps.experiment.frozen import from_dict
from moe_sweeps.experiment.identity import identity
from moe_sweeps.host.files import write_atomic
from moe_sweeps.records.genuine import RECORD
from moe_sweeps.records.recovery import has_results, unknown_provenance
from moe_sweeps.records.rundir import DamagedFile, RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What a line asks for: the files of a run folder before anything is trained."""

    identity: dict[str, Any]
    config: dict[str, Any]
    overrides: list[str]
    provenance: dict[str, Any]


def mend(folder: RunDir, asked: Request) -> None:
    """Restore what is missing or damaged in the folder of the run that `asked` describes, and log it.

    A run that is being trained is left to its worker.

    Raises:
        RunFolderError: something cannot be restored; the message says what, and what to do.
    """
    if not _needs_it(folder):
        return
    try:
        with folder.lock():
            is_new = not has_results(folder.path)
            _mend_config(folder, asked, is_new)
            _mend_identity(folder, asked)
            _mend_provenance(folder, asked, is_new)
            mend_status(folder)
    except RunBusyError:
        return


def mend_status(folder: RunDir) -> None:
    """Write the status that the rest of the folder shows, if status.json is lost. The caller holds the lock."""
    status = folder.trusted_status()
    if status.rebuilt:
        folder.write_status(status, beat=False)
        _say(folder, f"{status.rebuilt}; the rest of the folder says: {status.state}, step {status.step}")


def _needs_it(folder: RunDir) -> bool:
    names = ("identity.json", "provenance.json", "status.json")
    if not all(folder.has_sound(name) for name in names) or folder.trusted_status().rebuilt:
        return True
    try:
        folder.config()
    except DamagedFile:
        return True
    return False


def _mend_config(folder: RunDir, asked: Request, is_new: bool) -> None:
    try:
        folder.config()
    except DamagedFile as error:
        if not is_new:  # the number of threads is recorded nowhere else, and may change the last bit of a sum
            raise
        if folder.has_sound("provenance.json"):
            folder.update_provenance(**{RECORD: asked.provenance.get(RECORD)})
        folder.write_config(asked.config)
        write_atomic(folder.path / "overrides.yaml", yaml.safe_dump(asked.overrides), durable=True)
        _say(folder, f"{error.reason}; nothing was trained yet, so it is written again from the line")


def _mend_identity(folder: RunDir, asked: Request) -> None:
    if folder.has_sound("identity.json"):
        return
    try:
        found = identity(from_dict(folder.config()))
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(_no_identity(folder, f"its config.yaml cannot be read today: {error}")) from error
    if found != asked.identity or found["run_id"] != folder.run_id:
        raise RunFolderError(_no_identity(folder, f"its config.yaml is that of run {found['run_id']}"))
    folder.write_identity(found)
    _say(folder, "identity.json was missing or damaged; it follows from config.yaml, which has this folder's run id")


def _no_identity(folder: RunDir, why: str) -> str:
    return (
        f"{folder.path / 'identity.json'} is missing or damaged, and cannot be made again: {why}. "
        "Move the folder away; the run is then trained again."
    )


def _mend_provenance(folder: RunDir, asked: Request, is_new: bool) -> None:
    if folder.has_sound("provenance.json"):
        return
    problem = "provenance.json was missing or damaged"
    lost = {k: v for k, v in asked.provenance.items() if k != RECORD} | unknown_provenance(problem)
    folder.write_provenance(asked.provenance if is_new else lost)
    _say(
        folder,
        f"{problem}; {'it describes the current code' if is_new else 'tables say that code and data are not known'}",
    )


def _say(folder: RunDir, sentence: str) -> None:
    log.warning("%s: %s", folder.path.name, sentence)
