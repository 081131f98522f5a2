"""The plan of a sweep: every requested combination, the distinct runs behind them, and what collapsed and why.

A plan is made before the first run starts and costs no training; it is what the manifest records.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_sweeps.config.compose import Setting, compose
from moe_sweeps.config.registry import Unread
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.files import read_json, write_json
from moe_sweeps.freeze import freeze
from moe_sweeps.identity import ID_LENGTH, SEED_KEYS, identity, unread_knobs, why_unread
from moe_sweeps.mirroring import require_tracker
from moe_sweeps.paths import resolve
from moe_sweeps.rundir import FINISHED, RunDir, State
from moe_sweeps.sweep.block import same_value
from moe_sweeps.sweep.claims import file_record
from moe_sweeps.sweep.grid import Grid, expand

MANIFEST_VERSION = 2


@dataclass(frozen=True, slots=True)
class Request:
    """One combination that was asked for, and the run that answers it."""

    settings: tuple[Setting, ...]
    run_id: str
    unread: dict[str, Unread]  # swept or set by hand, but read by nothing here -> what would read it


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One distinct run."""

    run_id: str
    arm: str
    label: str
    run: RunConfig
    settings: tuple[Setting, ...]
    folder: RunDir | None  # None until it is frozen

    @property
    def state(self) -> State:
        return self.folder.status().state if self.folder else State.planned

    def frozen(self, command: str, threads: int) -> RunDir:
        """The run's folder, made now if there is none; `threads` unless others were set by hand."""
        return freeze(self.run, [str(s) for s in self.settings], command=command, threads=threads)


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep before it runs."""

    grid: Grid
    requests: list[Request]
    runs: dict[str, PlannedRun]

    @property
    def axes(self) -> dict[str, list[str]]:
        return self.grid.axes

    @property
    def name(self) -> str:
        return next(iter(self.runs.values())).run.name or self.grid.name or "sweep"

    @property
    def sweep_id(self) -> str:
        """The same set of runs is the same sweep, in whatever order it was typed."""
        return hashlib.sha256(json.dumps([self.name, sorted(self.runs)]).encode()).hexdigest()[:ID_LENGTH]

    @property
    def runs_root(self) -> Path:
        return resolve(next(iter(self.runs.values())).run.paths.runs)

    @property
    def reports_root(self) -> Path:
        return resolve(next(iter(self.runs.values())).run.paths.reports)

    def arms(self, chosen: Mapping[str, str]) -> list[str]:
        """The arms that the settings `chosen` select, without doubles, in the order of the plan."""
        asked = [r for r in self.requests if _has(r, chosen)]
        return list(dict.fromkeys(self.runs[r.run_id].arm for r in asked))


def make_plan(arguments: Sequence[str]) -> Plan:
    """Compose and validate every combination.

    Raises:
        ConfigError: the first combination that is refused; nothing was started.
    """
    grid = expand(arguments)
    requests, runs, folders = [], {}, _Folders()
    for settings in grid.combinations:
        run = _compose_combination(settings, grid)
        if run.search.is_on:
            rule = "a grid lists its combinations, and a search chooses its own"
            raise ConfigError("search", run.search.kind, rule, "Type search=... alone, with a space of its own.")
        content = identity(run)
        unread = unread_settings(run, settings)
        requests.append(Request(settings, content["run_id"], unread))
        if content["run_id"] not in runs:
            runs[content["run_id"]] = PlannedRun(
                content["run_id"],
                content["arm"],
                _label(settings, grid.axes, unread) or run.run_name,
                run,
                settings,
                folders.find(resolve(run.paths.runs), content["run_id"]),
            )
    for kind in {planned.run.tracking.kind for planned in runs.values()}:
        require_tracker(kind)
    return Plan(grid, requests, runs)


def unread_settings(run: RunConfig, settings: Sequence[Setting]) -> dict[str, Unread]:
    """Of what was set by hand, the keys that nothing reads in this run -> why, and what would read them."""
    unread = unread_knobs(run)
    found = {s.key: why_unread(s.key, unread) for s in settings}
    return {key: why for key, why in found.items() if why}


def done_by(plan: Plan) -> dict[str, str]:
    """Finished runs of the plan -> the name of another sweep that they belong to; "" for none but this one."""
    finished = {p.run_id for p in plan.runs.values() if p.state in FINISHED}
    owners = dict.fromkeys(finished, "")
    for path in sorted((plan.runs_root / "sweeps").glob("[!.]*/manifest.json")) if finished else []:
        try:
            content = read_json(path)
            owners |= {
                i: f"{content['name']}-{content['sweep_id']}"
                for i in content["runs"]
                if content["sweep_id"] != plan.sweep_id
            }
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged manifest is the tables' business
    return {run_id: owners[run_id] for run_id in plan.runs if run_id in finished}


def write_manifest(plan: Plan, command: str) -> Path:
    """Write runs/sweeps/<sweep id>/manifest.json: the design matrix, known before the first run starts."""
    path = plan.runs_root / "sweeps" / plan.sweep_id / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, manifest(plan, command, created=_first_created(path)), durable=True)
    return path


def manifest(plan: Plan, command: str, created: str) -> dict[str, Any]:
    """The manifest as plain data."""
    return {
        "version": MANIFEST_VERSION,
        "sweep_id": plan.sweep_id,
        "name": plan.name,
        "created": created,
        "command": command,
        "axes": plan.axes,
        **file_record(plan),
        "requested": [
            {"overrides": {s.key: s.value for s in r.settings}, "run_id": r.run_id, "unread": _readers(r)}
            for r in plan.requests
        ],
        "runs": {
            run_id: {
                "folder": planned.folder.path.name if planned.folder else f"{planned.run.run_name}-{run_id}",
                "arm": planned.arm,
                "label": planned.label,
                "seed": planned.run.seed,
            }
            for run_id, planned in plan.runs.items()
        },
    }


def _readers(request: Request) -> dict[str, str]:
    return {key: why.reader for key, why in request.unread.items()}


def _compose_combination(settings: Sequence[Setting], grid: Grid) -> RunConfig:
    try:
        return compose(settings)
    except ConfigError as error:
        swept = " ".join(str(s) for s in settings if s.key in grid.axes)
        if swept:
            error.add_note(f"in the combination {swept}; nothing was started")
        if grid.file:
            error.add_note(f"in sweeps/{grid.file.name}.yaml or typed beside it")
        raise


class _Folders:
    """Run folders by id. Each root is listed once, because a plan may ask for a thousand ids."""

    def __init__(self) -> None:
        self._ids: dict[Path, set[str]] = {}

    def find(self, root: Path, run_id: str) -> RunDir | None:
        if root not in self._ids:
            self._ids[root] = {path.name.rpartition("-")[2] for path in root.glob("*-*")}
        return RunDir.find(root, run_id) if run_id in self._ids[root] else None


def _has(request: Request, chosen: Mapping[str, str]) -> bool:
    """Whether the combination has these settings; one that nothing reads there is no setting of its arm."""
    settings = {s.key: s.value for s in request.settings if s.key not in request.unread}
    return all(k in settings and same_value(settings[k], v) for k, v in chosen.items())


def _label(settings: Sequence[Setting], axes: dict[str, list[str]], unread: dict[str, Unread]) -> str:
    """What tells this arm from the others: its settings on the axes, without seeds and without what nothing reads."""
    return " ".join(str(s) for s in settings if s.key in axes and s.key not in unread and s.key not in SEED_KEYS)


def _first_created(path: Path) -> str:
    if path.exists():
        return str(read_json(path)["created"])
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
