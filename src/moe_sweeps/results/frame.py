"""All run folders as one tidy table: the public way to ask a question of the results.

    runs, problems = load_runs(Path("runs"))
    runs.query("state == 'done'").groupby("arm")["val_loss"].agg(["mean", "std", "count"])
    curves, _ = load_curves(runs["folder"])

Columns of the runs, one row each:
    run_id, arm, folder              arm: hash of the experiment without its seeds; what replicates share
    state, attempt, step, ...        from status.json; failure: "Type: message"
    source_hash, data_fingerprint, pairing.*, git.*, command     from provenance.json
    balancer, aux.coef, seed, ...    the frozen config by its Hydra names
    val_loss, val_accuracy, ...      final numbers of runs that are done
    collapsed, collapsed_at_step     whether and when the router collapsed; stopped_early: the run ended there
    last_good.val_loss, ...          the same of runs that diverged, apart, so that no mean takes them in by accident
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from moe_sweeps.errors import RunFolderError
from moe_sweeps.files import read_json
from moe_sweeps.results.problem import Problem
from moe_sweeps.rundir import YAML_LOADER, RunDir, State, Status

METRICS = (
    *("val_loss", "val_perplexity", "val_accuracy", "val_maxvio_global", "train_maxvio_batch"),
    *("val_load_balancing_loss", "val_z_loss"),
)
_IDENTITY = ("run_id", "arm", "folder")
_STATUS = ("state", "attempt", "step", "total_steps", "heartbeat", "host", "slurm_job_id")
_FAILURE = ("failure", "failure_signature")
_VERSIONS = ("source_hash", "data_fingerprint")  # each attempt has its own
_PROVENANCE = (*_VERSIONS, "pairing.initial_weights", "pairing.batches", "git.commit", "git.dirty", "command")
_FIXED = _IDENTITY + _STATUS + _FAILURE + _PROVENANCE
_TOP_LEVEL_KEY = re.compile(rb"^(?=[A-Za-z_])", re.MULTILINE)
_RUN_FOLDER = re.compile(r".+-[0-9a-f]{12}")


class Loaded(NamedTuple):
    """A frame, and what could not be read into it."""

    frame: pd.DataFrame
    problems: list[Problem]


def load_runs(root: Path) -> Loaded:
    """Every run folder under `root` as a row; a folder that cannot be read completely is a problem instead."""
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for folder in _run_folders(root):
        try:
            rows.append(_row(RunDir(folder)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RunFolderError) as error:
            problems.append(Problem(folder, _reason(folder, error)))
    rows, doubles = _without_doubles(rows)
    return Loaded(_frame(rows).copy(), problems + doubles)  # in one block: a column can be added without a warning


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by Hydra's dotted names; the `kind` of a group stands under the group's own name."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix[:-1] if key == "kind" and prefix else f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
    return flat


def _run_folders(root: Path) -> list[Path]:
    """What is, or looks like, a run folder. Hidden folders are drafts that were never finished."""
    if not root.is_dir():
        return []
    folders = (p for p in root.iterdir() if not p.name.startswith(".") and p.is_dir())
    return sorted(p for p in folders if (p / "identity.json").exists() or _RUN_FOLDER.fullmatch(p.name))


def _row(run: RunDir) -> dict[str, Any]:
    identity = _read(run, "identity.json")
    if identity["run_id"] != run.run_id:
        raise RunFolderError(f"identity.json says that this is run {identity['run_id']}")
    status = Status.from_dict(_read(run, "status.json"))
    config = _config(run)
    int(config["seed"])
    summary = _summary(run, status.state)
    fixed = {"run_id": run.run_id, "arm": identity["arm"], "folder": str(run.path)}
    fixed |= _status_columns(status) | _provenance_columns(_read(run, "provenance.json"))
    renamed = {f"summary.{k}" if k in config or k in fixed else k: v for k, v in summary.items()}
    return fixed | {k: v for k, v in config.items() if k not in fixed} | renamed


def _config(run: RunDir) -> dict[str, Any]:
    try:
        text = (run.path / "config.yaml").read_bytes()
    except FileNotFoundError:
        raise RunFolderError("config.yaml is missing") from None
    blocks = [_flat_block(block) for block in _TOP_LEVEL_KEY.split(text) if block]
    found = {key: value for block in blocks if block for key, value in block.items()}
    return found if found and None not in blocks else _whole_config(text)


@functools.lru_cache(maxsize=4096)
def _flat_block(text: bytes) -> dict[str, Any] | None:
    """The lines of one key at the top, or None if they mean nothing alone. The runs of a sweep have most of theirs in
    common, and to parse each run's again takes more than all the rest of reading it."""
    try:
        content = yaml.load(text, Loader=YAML_LOADER)
    except yaml.YAMLError:
        return None
    return flatten(content) if isinstance(content, dict) and len(content) == 1 else None


def _whole_config(text: bytes) -> dict[str, Any]:
    try:
        content = yaml.load(text, Loader=YAML_LOADER)
    except yaml.YAMLError as error:
        raise RunFolderError(f"config.yaml is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise RunFolderError(f"config.yaml holds {type(content).__name__} instead of a mapping")
    return flatten(content)


def _status_columns(status: Status) -> dict[str, Any]:
    columns = {name: getattr(status, name) for name in _STATUS}
    columns["state"] = status.state.value
    failure = status.failure
    columns["failure"] = f"{failure.type}: {failure.message}" if failure else None
    columns["failure_signature"] = failure.signature if failure else None
    return columns


def _provenance_columns(provenance: dict[str, Any]) -> dict[str, Any]:
    flat = flatten(provenance)
    return {name: flat.get(name) for name in _PROVENANCE} | {name: _versions(provenance, name) for name in _VERSIONS}


def _versions(provenance: dict[str, Any], name: str) -> str | None:
    """What the run was trained with; several versions in one run are joined, and so never pass for one."""
    found = [attempt[name] for attempt in provenance.get("attempts", []) if attempt.get(name)]
    return "+".join(dict.fromkeys(found)) or provenance.get(name)


def _summary(run: RunDir, state: State) -> dict[str, Any]:
    """Final numbers. Those of a diverged run are moved out of the way of means; those of other states are not final."""
    if state not in (State.done, State.diverged):
        return {}
    path = run.path / "summary.json"
    summary = flatten(_read(run, path.name)) if state is State.done or path.exists() else {}
    if state is State.diverged:
        own = ("diverged_at_step", "last_good.", "collapsed")
        return {k if k.startswith(own) else f"last_good.{k}": v for k, v in summary.items()}
    _check_numbers(summary)
    return summary


def _check_numbers(summary: dict[str, Any]) -> None:
    """A run that is done has a finite loss; the other metrics are finite or none (a dense model has no MaxVio)."""
    for name in METRICS:
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
    """One line. Our own errors explain themselves; the others name what was wrong with the content."""
    if isinstance(error, RunFolderError):
        return str(error)
    if isinstance(error, OSError):
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"
    text = f"missing key {error}" if isinstance(error, KeyError) else str(error)
    return f"unexpected content ({' '.join(text.split())})"


def _without_doubles(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Two folders of one run contradict each other: neither is believed."""
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


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    names = dict.fromkeys(_FIXED)
    for row in rows:
        names |= dict.fromkeys(row)
    names |= dict.fromkeys(("seed", "scale", "tokens", *METRICS))
    frame = pd.DataFrame(rows, columns=pd.Index(names))
    return frame.astype(dict.fromkeys(METRICS, float))
