"""An archive of finished runs: their records without checkpoints, small enough to commit.

It has the layout of a runs folder, so every command reads it. With MOE_SWEEPS_RUNS set to a copy of it, a sweep that is
typed again trains only what is missing.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.files import sync_folder, sync_tree, write_atomic
from moe_sweeps.host.reading import LOG_BYTES, MANIFEST_BYTES, Refused, opened, read_bytes, read_json
from moe_sweeps.records.manifest import Manifest, decisions, manifest_path
from moe_sweeps.records.problem import Problem
from moe_sweeps.records.remarks import FILE as REMARKS
from moe_sweeps.records.remarks import MOST_BYTES
from moe_sweeps.records.rundir import FINISHED, DamagedFile, RunDir

# Settings and identity, where it came from, how it ended. The routing log is ten times as large as all of these.
RECORDS = (
    *("config.yaml", "overrides.yaml", "identity.json", "provenance.json", "status.json"),
    *("metrics.jsonl", "summary.json", REMARKS),
)


@dataclass(slots=True)
class Archived:
    """Folder names: copied now, already there, and left out because they have not finished."""

    problems: list[Problem] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def archive(runs: Sequence[RunDir], manifests: Sequence[Manifest], source: Path, destination: Path) -> Archived:
    """Copy the records of those of `runs` that are done or diverged, and the manifests, from `source`.

    Each run appears complete or not at all. Manifests are copied whole, so that a table shows what is missing.

    Raises:
        RunFolderError: the archive has a run of this id with another result.
    """
    destination.mkdir(parents=True, exist_ok=True)
    found = Archived()
    for run in runs:
        try:
            _sort(run, destination, found)
        except (DamagedFile, Refused) as error:
            found.problems.append(Problem(run.path, str(error)))
    for manifest in manifests:
        old, new = (manifest_path(root, manifest.sweep_id) for root in (source, destination))
        new.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(new, read_bytes(old, MANIFEST_BYTES), durable=True)
        _take_remarks(old.parent, new.parent)
    _take_decisions({manifest.name for manifest in manifests}, source, destination, found)
    return found


def _take_decisions(names: Collection[str], source: Path, destination: Path, found: Archived) -> None:
    """Copy the records of decisions on these sweeps: without them every look that was begun counts as taken."""
    for path in decisions(source):
        try:
            if path.parent.is_symlink():
                raise RunFolderError(f"{path.parent.name} is a link, and links are not followed")
            own = read_json(path)
            if own["name"] in names:
                _take_decision(path, own, destination / path.relative_to(source))
        except (OSError, ValueError, KeyError, TypeError, RunFolderError) as error:
            found.problems.append(Problem(path, str(error)))


def _take_decision(path: Path, own: Any, there: Path) -> None:
    kept = _looks(read_json(there)) if os.path.lexists(there) else []
    if kept != _looks(own)[: len(kept)]:
        raise RunFolderError(f"{there} has looks that this decision lacks, so it stays. Move it away to replace it.")
    there.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(there, read_bytes(path), durable=True)


def _looks(decision: Any) -> list[str]:
    return [look["sweep_id"] for look in decision["closed"]]


def _sort(run: RunDir, destination: Path, found: Archived) -> None:
    try:
        state = run.status().state
    except RunFolderError as error:  # closed to this user, or no folder of a run
        found.problems.append(Problem(run.path, str(error)))
        return
    if state not in FINISHED:
        found.left_out.append(run.path.name)
        return
    if run.identity().get("run_id") != run.run_id:
        raise DamagedFile(run.path / "identity.json", "identity.json is that of another run")
    (found.copied if _add(run, destination) else found.kept).append(run.path.name)


def _add(run: RunDir, destination: Path) -> bool:
    """Copy one run; False if it is there already."""
    there = RunDir.find(destination, run.run_id)
    if there is not None:
        if there.summary() != run.summary():
            raise RunFolderError(f"{there.path} holds another result of run {run.run_id}. Move it away.")
        _take_remarks(run.path, there.path)
        return False
    draft = destination / f".{run.run_id}.{uuid.uuid4().hex[:8]}-draft"
    draft.mkdir()
    try:
        for name in RECORDS:
            if os.path.lexists(run.path / name):
                _copy(run.path / name, draft / name)
        sync_tree(draft)
        draft.rename(destination / run.path.name)
        sync_folder(destination)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return True


def _take_remarks(source: Path, destination: Path) -> None:
    """Copy what people wrote, which goes on after a result is archived."""
    if os.path.lexists(source / REMARKS):
        write_atomic(destination / REMARKS, read_bytes(source / REMARKS, MOST_BYTES), durable=True)


def _copy(source: Path, destination: Path) -> None:
    """The bytes of a regular file of the run itself."""
    with opened(source, LOG_BYTES) as read, destination.open("xb") as written:
        shutil.copyfileobj(read, written)
