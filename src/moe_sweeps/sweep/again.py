"""Restart a finished run: its result moves into a subfolder, and the run is as if it had never started.

    runs/<name>-<run id>/superseded/<n>/      the n-th result that was replaced, as a run folder

Nothing that reads runs looks there, so tables count the newest result alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moe_sweeps.experiment.freeze import code_entry
from moe_sweeps.experiment.frozen import from_dict
from moe_sweeps.experiment.provenance import command_line, provenance
from moe_sweeps.host.files import write_json
from moe_sweeps.records.remarks import FILE as REMARKS
from moe_sweeps.records.rundir import FINISHED, RunDir, Status

SUPERSEDED = "superseded"
# The files that define a run, and what people wrote about it; all others are its results.
KEPT = ("config.yaml", "overrides.yaml", "identity.json", "provenance.json", "status.json", REMARKS)


def supersede(folder: RunDir) -> Path | None:
    """Move the result of a finished run aside, so that the current code trains it again; returns the new place.

    Returns None when somebody has restarted the run in the meantime. If this is killed at any moment, the folder holds
    the old result or a run that never started: the copy is complete before the original is removed.

    Raises:
        RunBusyError: somebody trains it at this moment.
    """
    with folder.lock():
        status = folder.status()
        if status.state not in FINISHED:
            return None
        run = from_dict(folder.config())
        before = folder.provenance()
        kept = _kept_aside(folder)
        replaced = [*before.get("superseded", []), {"folder": f"{SUPERSEDED}/{kept.name}"} | _version(before)]
        fresh = provenance(command_line()) | code_entry(run) | {"superseded": replaced}
        folder.write_status(Status(total_steps=status.total_steps))
        _forget_result(folder)
        write_json(
            folder.path / "provenance.json", fresh, durable=True
        )  # last, because the old result is not of this code
        return kept


def _kept_aside(folder: RunDir) -> Path:
    """Copy the folder's content into superseded/<n>, completely or not at all. Checkpoints are moved: they are
    large."""
    place = folder.path / SUPERSEDED
    place.mkdir(exist_ok=True)
    number = 1 + max((int(p.name) for p in place.iterdir() if p.name.isdecimal()), default=0)
    draft = place / f".{number}-draft"  # may be left by a process that was killed here, and hold the checkpoints
    draft.mkdir(exist_ok=True)
    for path in _content(folder, (SUPERSEDED, folder.checkpoints.name)):
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, draft / path.name, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(path, draft / path.name, follow_symlinks=False)
    if folder.checkpoints.exists() and not (draft / folder.checkpoints.name).exists():
        folder.checkpoints.rename(draft / folder.checkpoints.name)
    folder.checkpoints.mkdir(exist_ok=True)
    return draft.rename(place / str(number))


def _forget_result(folder: RunDir) -> None:
    for path in _content(folder, (*KEPT, SUPERSEDED, folder.checkpoints.name)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _content(folder: RunDir, but: Sequence[str]) -> list[Path]:
    """The paths in the folder, except locks and drafts, which are hidden files."""
    return [p for p in folder.path.iterdir() if not p.name.startswith(".") and p.name not in but]


def _version(before: Mapping[str, Any]) -> dict[str, Any]:
    last = (before.get("attempts") or [before])[-1]
    return {"source_hash": last.get("source_hash"), "submitted": before.get("submitted")}
