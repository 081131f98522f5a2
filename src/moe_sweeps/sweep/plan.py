"""The plan of a sweep: every requested combination, the distinct runs behind them, and what collapsed and why.

A plan is made before the first run starts and costs no training; it is what the manifest records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moe_sweeps.config.grammar import holds_link
from moe_sweeps.config.registry import Unread
from moe_sweeps.errors import ConfigError, RunFolderError
from moe_sweeps.experiment.compose import compose, resolved
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.identity import identity, unread_knobs, why_unread
from moe_sweeps.experiment.options import is_number
from moe_sweeps.experiment.overrides import Setting
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.paths import resolve
from moe_sweeps.records.genuine import REPLICATE_KEYS
from moe_sweeps.records.manifest import load_manifests, spell_settings, sweep_id_of
from moe_sweeps.records.mirror import require_tracker
from moe_sweeps.records.rundir import FINISHED, SETTLED, RunDir, State
from moe_sweeps.sweep.block import same_value
from moe_sweeps.sweep.forks import FILLED_IN, trunk_of
from moe_sweeps.sweep.grid import Grid, expand, first_spellings


@dataclass(frozen=True, slots=True)
class Request:
    """One combination that was asked for, links followed, and the run that answers it."""

    settings: tuple[Setting, ...]
    run_id: str
    unread: dict[str, Unread]  # swept or set by hand, but read by nothing here -> what would read it


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One distinct run. `settings` are those that made it, links followed; `typed` are those as they were typed.

    `shown` are its settings on the axes of the sweep, without seeds and without what nothing reads in this run.
    """

    run_id: str
    arm: str
    run: RunConfig
    settings: tuple[Setting, ...]
    typed: tuple[Setting, ...]
    shown: dict[str, str]
    folder: RunDir | None  # None until it is frozen

    @property
    def label(self) -> str:
        """What the run is called in its sweep, seeds apart."""
        return spell_settings(self.shown) or self.run.run_name

    @property
    def state(self) -> State:
        """What the folder says; a run whose folder cannot be read counts as failed, and its freezing says why."""
        try:
            return self.folder.trusted_status().state if self.folder else State.planned
        except RunFolderError:
            return State.failed

    @property
    def step(self) -> int:
        """How far it has come."""
        try:
            return self.folder.trusted_status().step if self.folder else 0
        except RunFolderError:
            return 0

    def frozen(self, command: str, threads: int) -> RunDir:
        """The run's folder, made now if there is none; `threads` unless others were set by hand."""
        typed = [str(s) for s in self.typed if s.key not in FILLED_IN]
        return freeze(self.run, typed, command=command, threads=threads)


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep before it runs."""

    grid: Grid
    requests: list[Request]
    runs: dict[str, PlannedRun]
    axes: dict[str, list[str]]  # every key that varies, and its values
    trunks: dict[str, PlannedRun] = field(default_factory=dict)  # of forks; they are trained, and no row of the table

    @property
    def to_train(self) -> dict[str, PlannedRun]:
        """Every run that the plan needs, trunks first: those that a run without a result continues from."""
        needed = {p.run.fork.run for p in self.runs.values() if p.state not in SETTLED}
        return {id_: trunk for id_, trunk in self.trunks.items() if id_ in needed} | self.runs

    @property
    def name(self) -> str:
        """`name=...`, else that of the sweep file, else "sweep"."""
        return next(iter(self.runs.values())).run.name or self.grid.name or "sweep"

    @property
    def sweep_id(self) -> str:
        """The same set of runs is the same sweep, in whatever order it was typed."""
        return sweep_id_of(self.name, self.runs)

    @property
    def runs_root(self) -> Path:
        """The folder of the run folders."""
        return resolve(next(iter(self.runs.values())).run.paths.runs)

    @property
    def reports_root(self) -> Path:
        """The folder of tables and pages."""
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
    asked = [(settings, _compose_combination(settings, grid)) for settings in grid.combinations]
    followed = _one_spelling([resolved(typed, run) for typed, run in asked])
    found = [(typed, settings, run) for (typed, run), settings in zip(asked, followed, strict=True)]
    axes = _axes(grid, [settings for _, settings, _ in found])
    requests, runs, folders = [], {}, _Folders()
    trunks: dict[str, PlannedRun] = {}
    for typed, settings, run in found:
        content = identity(run)
        unread = unread_settings(run, settings)
        requests.append(Request(settings, content["run_id"], unread))
        if content["run_id"] not in runs:
            runs[content["run_id"]] = PlannedRun(
                content["run_id"],
                content["arm"],
                run,
                settings,
                typed,
                _shown(settings, axes, unread),
                folders.find(resolve(run.paths.runs), content["run_id"]),
            )
            if run.fork.continues:
                trunk = _planned_trunk(*_trunk_of(typed, grid, run), folders)
                trunks.setdefault(trunk.run_id, trunk)
    require_one_place([run for _, _, run in found])
    for kind in {planned.run.tracking.kind for planned in runs.values()}:
        require_tracker(kind)
    return Plan(grid, requests, runs, axes, trunks)


def _trunk_of(typed: tuple[Setting, ...], grid: Grid, run: RunConfig) -> tuple[tuple[Setting, ...], RunConfig]:
    try:
        return trunk_of(typed, grid, run)
    except ConfigError as error:
        raise _explained(error, typed, grid) from None


def _planned_trunk(settings: tuple[Setting, ...], run: RunConfig, folders: _Folders) -> PlannedRun:
    content = identity(run)
    shown = {s.key: s.value for s in settings if s.key in ("fork.role", "fork.step")}
    folder = folders.find(resolve(run.paths.runs), content["run_id"])
    return PlannedRun(content["run_id"], content["arm"], run, settings, settings, shown, folder)


def _one_spelling(combinations: Sequence[tuple[Setting, ...]]) -> list[tuple[Setting, ...]]:
    """The combinations with a number that a link gave spelt as it was spelt before."""
    taken: dict[str, list[str]] = {}
    for setting in (s for settings in combinations for s in settings):
        taken.setdefault(setting.key, []).append(setting.value)
    firsts = {key: first_spellings(dict.fromkeys(values)) for key, values in taken.items() if is_number(key)}
    return [tuple(Setting(s.key, firsts.get(s.key, {}).get(s.value, s.value)) for s in c) for c in combinations]


def _axes(grid: Grid, combinations: Sequence[Sequence[Setting]]) -> dict[str, list[str]]:
    """The axes of the grid with what their links gave, and keys that are no axis but follow one by a link."""
    taken: dict[str, list[str]] = {}
    for setting in (s for settings in combinations for s in settings):
        taken.setdefault(setting.key, []).append(setting.value)
    linked = {s.key for settings in grid.combinations for s in settings if holds_link(s.value)}
    values = {key: list(dict.fromkeys(v)) if key in linked else [] for key, v in taken.items()}
    return grid.axes | {key: v for key, v in values.items() if len(v) > 1 or (key in linked and key in grid.axes)}


def require_one_place(runs: Sequence[RunConfig]) -> None:
    """A sweep has one folder of runs, where its manifest, tables and `watch` look for them."""
    for place in ("runs", "data", "reports"):
        folders = list(dict.fromkeys(getattr(run.paths, place) for run in runs))
        if len(folders) > 1:
            rule = "the folders are the same for all runs of a sweep"
            raise ConfigError(f"paths.{place}", ", ".join(folders[:3]), rule, "Type a line for each folder.")


def unread_settings(run: RunConfig, settings: Sequence[Setting]) -> dict[str, Unread]:
    """Of what was set by hand, the keys that nothing reads in this run -> why, and what would read them."""
    unread = unread_knobs(run)
    found = {s.key: why_unread(s.key, unread) for s in settings}
    return {key: why for key, why in found.items() if why}


def done_by(plan: Plan) -> dict[str, str]:
    """Finished runs of the plan -> the newest other sweep that they belong to; "" for none but this one."""
    finished = {p.run_id for p in plan.runs.values() if p.state in FINISHED}
    owners = dict.fromkeys(finished, "")
    for manifest in reversed(load_manifests(plan.runs_root)[0]) if finished else ():
        if manifest.sweep_id != plan.sweep_id:
            owners |= dict.fromkeys(manifest.runs, f"{manifest.name}-{manifest.sweep_id}")
    return {run_id: owners[run_id] for run_id in plan.runs if run_id in finished}


def _compose_combination(settings: Sequence[Setting], grid: Grid) -> RunConfig:
    try:
        run = compose(settings)
        if run.search.is_on:
            rule = "a grid lists its combinations, and a search chooses its own"
            raise ConfigError("search", run.search.kind, rule, "Type search=... alone, with a space of its own.")
        return run
    except ConfigError as error:
        raise _explained(error, settings, grid) from None


def _explained(error: ConfigError, settings: Sequence[Setting], grid: Grid) -> ConfigError:
    """The error with notes on where it stands."""
    swept = " ".join(str(s) for s in settings if s.key in grid.axes)
    if swept:
        error.add_note(f"in the combination {swept}; nothing was started")
    if grid.file:
        error.add_note(f"in sweeps/{grid.file.name}.yaml or typed beside it")
    return error


class _Folders:
    """Run folders by id. Each root is listed once, because a plan may ask for a thousand ids."""

    def __init__(self) -> None:
        self._ids: dict[Path, set[str]] = {}

    def find(self, root: Path, run_id: str) -> RunDir | None:
        if root not in self._ids:
            self._ids[root] = {path.name.rpartition("-")[2] for path in root.glob("*-*")}
        if run_id not in self._ids[root]:
            return None
        try:
            return RunDir.find(root, run_id)
        except RunFolderError:  # several folders; to freeze the run says so, and concerns it alone
            return None


def _has(request: Request, chosen: Mapping[str, str]) -> bool:
    """Whether the combination has these settings; one that nothing reads there is no setting of its arm."""
    settings = {s.key: s.value for s in request.settings if s.key not in request.unread}
    return all(k in settings and same_value(settings[k], v) for k, v in chosen.items())


def _shown(settings: Sequence[Setting], axes: dict[str, list[str]], unread: dict[str, Unread]) -> dict[str, str]:
    """What tells this arm from the others: its settings on the axes, without seeds and without what nothing reads."""
    own = [s for s in settings if s.key in axes and s.key not in unread and s.key not in REPLICATE_KEYS]
    return {s.key: s.value for s in own}
