"""An archive of finished runs: their records without checkpoints, small enough to commit.

It has the layout of a runs folder, so every command reads it. With MOE_SWEEPS_RUNS set to a copy of it, a sweep that is
typed again trains only what is missing.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.files import sync_folder, sync_tree, write_atomic
from moe_sweeps.host.reading import LOG_BYTES, MANIFEST_BYTES, Refused, opened, read_bytes, read_json
from moe_sweeps.records.manifest import Manifest, decisions, load_manifests, manifest_path
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

    Each run appears complete or not at all. Manifests are copied whole, so that a table shows what is missing. What
    cannot be copied, such as a run of which the archive has another result, is a problem of its own.

    Raises:
        OSError: the disk is full.
    """
    destination.mkdir(parents=True, exist_ok=True)
    found = Archived()
    for run in runs:
        with _told(run.path, found):
            _sort(run, destination, found)
    for manifest in manifests:
        with _told(manifest_path(source, manifest.sweep_id), found):
            _take_manifest(manifest, source, destination)
    _take_decisions({manifest.name for manifest in manifests}, source, destination, found)
    return found


@contextmanager
def _told(path: Path, found: Archived) -> Iterator[None]:
    """What goes wrong is a problem of this path, and stops nothing else, unless nothing can be written any more."""
    try:
        yield
    except (RunFolderError, Refused, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        found.problems.append(Problem(path, str(error)))


def _take_manifest(manifest: Manifest, source: Path, destination: Path) -> None:
    old, new = (manifest_path(root, manifest.sweep_id) for root in (source, destination))
    if os.path.lexists(new) and not Manifest.load(new).runs.keys() <= manifest.runs.keys():
        raise RunFolderError(f"{new} has runs that this sweep lacks, so it stays. Move it away to replace it.")
    new.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(new, read_bytes(old, MANIFEST_BYTES), durable=True)
    _take_remarks(old.parent, new.parent)


def _take_decisions(names: Collection[str], source: Path, destination: Path, found: Archived) -> None:
    """Copy the records of decisions on these sweeps: without them every look that was begun counts as taken."""
    for path in decisions(source):
        with _told(path, found):
            if path.parent.is_symlink():
                raise RunFolderError(f"{path.parent.name} is a link, and links are not followed")
            own = read_json(path)
            if own["name"] in names:
                _take_decision(path, own, source, destination)


def _take_decision(path: Path, own: Any, source: Path, destination: Path) -> None:
    there = destination / path.relative_to(source)
    looks, paid = _looks(own)
    kept, paid_there = _looks(read_json(there)) if os.path.lexists(there) else ([], set())
    if kept != looks[: len(kept)] or not paid_there <= paid:
        raise RunFolderError(f"{there} has looks that this decision lacks, so it stays. Move it away to replace it.")
    there.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(there, read_bytes(path), durable=True)
    ids = {look["sweep_id"] for look in looks}
    for manifest in load_manifests(source)[0]:  # a record's ids are data, and no paths
        if manifest.sweep_id in ids:  # those that were not asked for, too: tables count looks by their manifests
            _take_manifest(manifest, source, destination)


def _looks(decision: Any) -> tuple[list[dict[str, Any]], set[str]]:
    """Its looks in order, and the runs that it has paid for."""
    looks = [{**look, "sweep_id": look["sweep_id"]} for look in decision["closed"]]
    for look in looks:
        look.pop("left_open", None)  # came with a later version, and is no answer
    return looks, {*decision["trained"]}


def _sort(run: RunDir, destination: Path, found: Archived) -> None:
    if run.status().state not in FINISHED:
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
