"""All run folders as plain rows, each a mapping from column to value: what tables, noise and claims are made of.

results/frame.py lists the columns, and makes a DataFrame of the rows for those who want one.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.files import exists
from moe_sweeps.host.reading import CONFIG_BYTES, parse_yaml, read_bytes, read_json
from moe_sweeps.records import numbers
from moe_sweeps.records.code_record import records, text_of, trunk_records
from moe_sweeps.records.genuine import RECORD, flatten, why_no_evidence
from moe_sweeps.records.noise import size_of
from moe_sweeps.records.problem import Problem
from moe_sweeps.records.remarks import remarks_of
from moe_sweeps.records.rundir import RunDir, State, Status

QUALITY = tuple(metric.column for metric in numbers.QUALITY)
_IDENTITY = ("run_id", "arm", "folder")
_STATUS = ("state", "attempt", "step", "total_steps", "heartbeat", "host", "slurm_job_id")
_FAILURE = ("failure", "failure_signature")
_VERSIONS = ("source_hash", "data_fingerprint")  # each attempt has its own
ARITHMETIC = ("arithmetic.kernels", "arithmetic.products")
_PROVENANCE = (
    *_VERSIONS, "pairing.initial_weights", "pairing.batches", *ARITHMETIC, "git.commit", "git.dirty", "command",
)  # fmt: skip
FIXED = (*_IDENTITY, *_STATUS, *_FAILURE, *_PROVENANCE, "sources", "size")
ALWAYS = (*FIXED, "seed", "scale", "tokens", *QUALITY)  # columns that every row has
REMARKS = "remarks"  # tags and notes in one line; of runs that have any
EDITED = "edited"  # the state of a run whose config is not the one that its run id stands for
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, RunFolderError)
_TOP_LEVEL_KEY = re.compile(rb"^(?=[A-Za-z_])", re.MULTILINE)
_RUN_FOLDER = re.compile(r".+-[0-9a-f]{12}")

Row = Mapping[str, Any]  # None where a run has no such value


@dataclass(frozen=True, slots=True)
class Runs:
    """The rows by run id, in the order of the folders, and what could not be read into one."""

    rows: dict[str, Row]
    problems: list[Problem]

    def of(self, run_ids: Iterable[str]) -> dict[str, Row]:
        """The rows of these runs, as far as there are any."""
        wanted = set(run_ids)
        return {run_id: row for run_id, row in self.rows.items() if run_id in wanted}


def read_runs(root: Path) -> Runs:
    """Every run folder under `root` as a row; a folder that cannot be read completely is a problem instead."""
    rows: list[Row] = []
    problems: list[Problem] = []
    for folder in _run_folders(root):
        try:
            rows.append(_plain(_row(RunDir(folder))))
        except _DAMAGE as error:
            problems.append(Problem(folder, _reason(folder, error)))
    rows, doubles = _without_doubles(rows)
    return Runs({row["run_id"]: row for row in rows}, problems + doubles)


def read_run(run: RunDir) -> Row:
    """One run folder as a row.

    Raises:
        RunFolderError: it cannot be read completely.
    """
    try:
        return _plain(_row(run))
    except _DAMAGE as error:
        raise RunFolderError(f"{run.path} cannot be read: {_reason(run.path, error)}") from error


def is_finished(row: Row) -> bool:
    """Whether it was trained to its last step, so that its numbers compare with those of others."""
    return row["state"] == State.done and not row.get("stopped_early")


def _run_folders(root: Path) -> list[Path]:
    """Every folder that is or looks like a run folder. Hidden folders are unfinished drafts."""
    if not root.is_dir():
        return []
    folders = (p for p in root.iterdir() if not p.name.startswith(".") and (p.is_symlink() or p.is_dir()))
    return sorted(p for p in folders if _RUN_FOLDER.fullmatch(p.name) or exists(p / "identity.json"))


def _row(run: RunDir) -> dict[str, Any]:
    if misplaced := run.misplaced():
        raise RunFolderError(misplaced)
    identity = _read(run, "identity.json")
    if identity["run_id"] != run.run_id:
        raise RunFolderError(f"identity.json says that this is run {identity['run_id']}")
    status = Status.from_dict(_read(run, "status.json"))
    config = flat_config(run)
    int(config["seed"])
    provenance = _read(run, "provenance.json")
    fixed = {"run_id": run.run_id, "arm": identity["arm"], "folder": str(run.path)}
    fixed |= _status_columns(status) | _provenance_columns(provenance)
    fixed |= {REMARKS: remarks.line} if (remarks := remarks_of(run.path)) else {}
    edited = why_no_evidence(config, identity, flatten(identity.get("canonical") or {}), provenance.get(RECORD))
    if edited:  # no state that anything takes numbers from
        return fixed | {"state": EDITED, "failure": edited} | {k: v for k, v in config.items() if k not in fixed}
    summary = _summary(run, status.state)
    fixed["size"] = size_of(identity["canonical"])
    renamed = {f"summary.{k}" if k in config or k in fixed else k: v for k, v in summary.items()}
    row = fixed | {k: v for k, v in config.items() if k not in fixed} | renamed
    if not _is_unicode(fixed["folder"]):
        raise RunFolderError("the folder's name is not UTF-8")
    return {_unicode(k): _unicode(v) for k, v in row.items()}


def _plain(row: Row) -> Row:
    """With every column of ALWAYS, and None for NaN."""
    full = {**row, **{k: None for k in ALWAYS if k not in row}}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in full.items()}


def _unicode(value: Any) -> Any:
    """JSON can spell half of a surrogate pair, at which pandas would fail for all runs."""
    return value if not isinstance(value, str) or _is_unicode(value) else value.encode(errors="replace").decode()


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def flat_config(run: RunDir) -> dict[str, Any]:
    """The frozen config by Hydra's dotted names.

    Raises:
        RunFolderError, OSError, ValueError: it is missing or damaged.
    """
    try:
        text = read_bytes(run.path / "config.yaml", CONFIG_BYTES)
    except FileNotFoundError:
        raise RunFolderError("config.yaml is missing") from None
    blocks = [_flat_block(block) for block in _TOP_LEVEL_KEY.split(text) if block]
    found = {key: value for block in blocks if block for key, value in block.items()}
    return found if found and None not in blocks else _whole_config(text)


@functools.lru_cache(maxsize=4096)
def _flat_block(text: bytes) -> dict[str, Any] | None:
    """The lines of one top-level key, or None if they mean nothing alone.

    Cached: the runs of a sweep share most blocks, and parsing them takes longer than all the rest of reading a run.
    """
    try:
        content = parse_yaml(text)
    except (ValueError, yaml.YAMLError):
        return None
    return flatten(content) if isinstance(content, dict) and len(content) == 1 else None


def _whole_config(text: bytes) -> dict[str, Any]:
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        raise RunFolderError(f"config.yaml is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise RunFolderError(f"config.yaml holds {type(content).__name__} instead of a mapping")
    return flatten(content)


def _status_columns(status: Status) -> dict[str, Any]:
    columns = {name: getattr(status, name) for name in _STATUS}
    columns["state"] = status.name
    failure = status.failure
    columns["failure"] = f"{failure.type}: {failure.message}" if failure else None
    columns["failure_signature"] = failure.signature if failure else None
    return columns


def _provenance_columns(provenance: dict[str, Any]) -> dict[str, Any]:
    flat = flatten({k: v for k, v in provenance.items() if k != "sources"})
    found = {name: flat.get(name) for name in _PROVENANCE} | {name: _versions(provenance, name) for name in _VERSIONS}
    code = [*records(provenance), *trunk_records(provenance)]
    return found | {"sources": text_of(code) if any(record.files for record in code) else None}


def _versions(provenance: dict[str, Any], name: str) -> str | None:
    """The version that the run was trained with. Several versions are joined, so they never pass for one."""
    found = [attempt[name] for attempt in provenance.get("attempts", []) if attempt.get(name)]
    return "+".join(dict.fromkeys(found)) or provenance.get(name)


def _summary(run: RunDir, state: State) -> dict[str, Any]:
    """Final numbers of a run that is done. A diverged run's are renamed, so that no mean takes them in."""
    if state not in (State.done, State.diverged):
        return {}
    path = run.path / "summary.json"
    summary = flatten(_read(run, path.name)) if state is State.done or path.exists() else {}
    _check_types(summary)
    if state is State.diverged:
        own = ("diverged_at_step", "last_good.", "collapsed")
        return {k if k.startswith(own) else f"last_good.{k}": v for k, v in summary.items()}
    _check_numbers(summary)
    return summary


def _check_types(summary: dict[str, Any]) -> None:
    """Refuse a final number that is neither a number nor null."""
    for name, value in summary.items():
        if value is not None and not isinstance(value, int | float):
            raise RunFolderError(f"{name} in summary.json is {value!r:.80} instead of a number")


def _check_numbers(summary: dict[str, Any]) -> None:
    """Refuse a done run without a finite loss, or with another metric that is neither finite nor null."""
    for name in QUALITY:
        value = summary.get(name)
        if value is None and name != "val_loss":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RunFolderError(f"the run is done, but {name} in summary.json is {value!r} instead of a finite number")


def _read(run: RunDir, name: str) -> dict[str, Any]:
    try:
        content = read_json(run.path / name)
    except FileNotFoundError:
        raise RunFolderError(f"{name} is missing") from None
    except ValueError as error:
        raise RunFolderError(f"{name} is not complete JSON ({error})") from None
    if not isinstance(content, dict):
        raise RunFolderError(f"{name} holds {type(content).__name__} instead of an object")
    return content


def _reason(folder: Path, error: Exception) -> str:
    """One line on why a folder cannot be read."""
    if isinstance(error, RunFolderError):
        return str(error)
    if isinstance(error, OSError):
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"
    text = f"missing key {error}" if isinstance(error, KeyError) else str(error)
    return f"unexpected content ({' '.join(text.split())})"


def _without_doubles(rows: list[Row]) -> tuple[list[Row], list[Problem]]:
    """Leave out runs that have several folders: neither is believed."""
    folders: dict[str, list[str]] = {}
    for row in rows:
        folders.setdefault(row["run_id"], []).append(row["folder"])
    doubles = {run_id: found for run_id, found in folders.items() if len(found) > 1}
    problems = [
        Problem(Path(folder), f"run {run_id} has several folders; move all but one away")
        for run_id, found in doubles.items()
        for folder in found
    ]
    return [row for row in rows if row["run_id"] not in doubles], problems
