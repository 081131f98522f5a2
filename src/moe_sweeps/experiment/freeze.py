"""Freeze at submission: a run becomes a folder whose config no later edit can change."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moe_sweeps.config.outside import owner
from moe_sweeps.credentials import has_key
from moe_sweeps.errors import RunBusyError, key_refused
from moe_sweeps.experiment.code_version import code_version
from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.experiment.identity import identity, infrastructure
from moe_sweeps.experiment.mending import Request, mend
from moe_sweeps.experiment.provenance import provenance
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.experiment.snapshot import SNAPSHOTS, take_snapshot
from moe_sweeps.host.hardware import available_cores
from moe_sweeps.host.reading import is_name
from moe_sweeps.paths import resolve
from moe_sweeps.records.genuine import RECORD, flatten, record
from moe_sweeps.records.rundir import SETTLED, DamagedFile, RunDir, State

# The operations of a model of proxy size are too small to be shared by more threads.
MOST_THREADS = 4


def freeze(run: RunConfig, overrides: Sequence[str], *, command: str, threads: int | None = None) -> RunDir:
    """The folder of `run`, existing or new. The infrastructure of an unfinished run follows this request.

    `threads` is the number of CPU threads for training unless `launch.threads` is set; None: those of a process that
    has all cores. It can change the last bit of a sum, so all attempts use that of the first.

    Raises:
        ConfigError: the config holds an API key.
        RunFolderError: the folder is damaged, or holds another experiment.
    """
    found, root = identity(run), resolve(run.paths.runs)
    existing = RunDir.find(root, found["run_id"])
    if existing is not None and _is_over(existing, found):
        return existing  # without a lock, and without writing: it may be another user's
    require_no_keys(to_dict(run))
    frozen = _with_threads(run, run.launch.threads or threads or default_threads(1))
    submission = provenance(command) | code_entry(run) | outside_entry(run) | {RECORD: config_record(frozen)}
    if existing is not None:
        mend(existing, Request(found, to_dict(frozen), list(overrides), submission))
    folder = RunDir.create(
        root,
        run.run_name,
        found["run_id"],
        config=to_dict(frozen),
        overrides=list(overrides),
        identity=found,
        provenance=submission,
        total_steps=run.last_step,
    )
    if existing is not None:
        _refresh(folder, run, frozen, submission)
    return folder


def require_no_keys(config: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse a config that holds an API key, whether from a YAML file, a sweep or the environment.

    Raises:
        ConfigError: it names the knob, and does not show the key.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            require_no_keys(value, f"{prefix}{name}.")
        elif any(_is_key(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)):
            raise key_refused(f"{prefix}{name}")


@functools.lru_cache(maxsize=4096)
def _is_key(text: str) -> bool:
    """Cached, since the runs of a sweep share most of their settings."""
    return has_key(text)


def _is_over(folder: RunDir, found: dict[str, Any]) -> bool:
    """Whether an intact folder has its result, or was cancelled, so that freezing it again changes nothing."""
    status = folder.trusted_status()
    if status.state not in SETTLED or status.rebuilt or not folder.has_sound("identity.json"):
        return False
    folder.require_identity(found)
    return True


def config_record(frozen: RunConfig, before: Any = None) -> dict[str, Any]:
    """The record by which a later edit of config.yaml is detected (records/genuine.py)."""
    return record(flatten(to_dict(frozen)), infrastructure(frozen), before)


def code_entry(run: RunConfig) -> dict[str, Any]:
    """The part of provenance.json about the code that workers import: version, hashes of files, name of the snapshot.

    The snapshot is None where workers import from the repository itself.
    """
    snapshot = _snapshot(resolve(run.paths.runs)) if run.launch.snapshot else None
    return code_version(run, snapshot).entry() | {"snapshot": snapshot.name if snapshot else None}


def outside_entry(run: RunConfig) -> dict[str, dict[str, str]]:
    """The part of provenance.json about components from other packages; empty if all are the repository's own."""
    chosen = {f"{group}={config.kind}": owner(group, config.kind) for group, config in run.groups()}
    found = {key: str(package) for key, package in chosen.items() if package}
    return {"components": found} if found else {}


@functools.cache
def _snapshot(runs_root: Path) -> Path:
    """One snapshot for all runs that this process submits, even if sources are edited meanwhile."""
    return take_snapshot(runs_root)


def snapshot_of(folder: RunDir) -> Path | None:
    """The snapshot that the run's workers import from; None for the repository itself."""
    name = folder.provenance().get("snapshot")
    if name and not is_name(name):
        raise DamagedFile(folder.path / "provenance.json", "provenance.json names no snapshot of this runs folder")
    return folder.path.parent / SNAPSHOTS / name if name else None


def default_threads(workers: int) -> int:
    """CPU threads of one of `workers` processes: its share of the cores, up to MOST_THREADS."""
    return max(1, min(MOST_THREADS, available_cores() // workers))


def _refresh(folder: RunDir, run: RunConfig, frozen: RunConfig, submission: dict[str, Any]) -> None:
    """Write the requested devices, folders and intervals into the config of a run that is neither over nor in use.

    A run that never started is submitted again with the current code. So is one that failed: the code may have been
    fixed. Any other run that has a snapshot resumes with it.
    """
    try:
        with folder.lock():
            status = folder.status()
            if status.state in SETTLED:
                return
            if not status.attempt:
                changes = {k: v for k, v in submission.items() if k not in ("submitted", RECORD)}
                if folder.provenance().get("attempts"):  # again.py was killed before it could forget them
                    changes["attempts"] = []
                _update(folder, changes)
            elif status.state is State.failed or not folder.provenance().get("snapshot"):
                _update(folder, {"snapshot": submission["snapshot"]})
            if status.attempt and run.launch.threads is None:
                frozen = _with_threads(run, _threads_of(folder))
            wanted = to_dict(frozen)
            if wanted != folder.config():
                # Written before the config, beside the hash of the old one: if killed in between, both are valid.
                _update(folder, {RECORD: config_record(frozen, folder.provenance().get(RECORD))})
                folder.write_config(wanted)
    except RunBusyError:
        return


def _threads_of(folder: RunDir) -> int:
    """The number of threads of the run's first attempt."""
    launch = folder.config().get("launch")
    threads = launch.get("threads") if isinstance(launch, dict) else None
    if not isinstance(threads, int):
        raise DamagedFile(folder.path / "config.yaml", "config.yaml is cut: it lacks launch.threads")
    return threads


def _update(folder: RunDir, changes: dict[str, Any]) -> None:
    before = folder.provenance()
    if before | changes != before:
        folder.update_provenance(**changes)


def _with_threads(run: RunConfig, threads: int) -> RunConfig:
    return dataclasses.replace(run, launch=dataclasses.replace(run.launch, threads=threads))
