"""A search before it runs: what is searched, what is refused, and what it can cost at most."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from moe_sweeps.config.grammar import as_text
from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.config.search import SamplerConfig, SearchConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.compose import compose, resolved
from moe_sweeps.experiment.identity import ID_LENGTH, canonical_form, identity
from moe_sweeps.experiment.options import former_names
from moe_sweeps.experiment.overrides import Setting
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.paths import resolve
from moe_sweeps.records.genuine import flatten
from moe_sweeps.records.manifest import manifest_path
from moe_sweeps.records.mirror import require_tracker
from moe_sweeps.sweep.plan import require_one_place, unread_settings
from moe_sweeps.sweep.search.halving import expected_steps, rungs_below
from moe_sweeps.sweep.search.space import Axis, Choices, Space, read_space
from moe_sweeps.sweep.search.trials import Trial
from moe_sweeps.sweep.why import is_infrastructure

# Corners of the space that are composed and checked before anything starts: a second's worth.
MOST_CHECKED = 500
Corner = tuple[tuple[Setting, ...], RunConfig]


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """`corners` are runs at the ends of the space with the settings that made them; all are valid."""

    space: Space
    search: SamplerConfig
    corners: tuple[Corner, ...]
    sees_everything: bool  # the corners are all points of the space
    untold: tuple[str, ...] = ()  # constants that the arm of the first corner does not tell, as settings

    @property
    def base(self) -> RunConfig:
        """The run at the first corner: it has all settings that the trials share."""
        return self.corners[0][1]

    @property
    def name(self) -> str:
        """`name=...`, else search-<kind>."""
        return self.base.name or f"search-{self.search.kind}"

    @property
    def steps(self) -> int:
        """Training steps of a whole run."""
        return self.base.trainer.steps

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps at which trials stop and are compared, ascending; empty without pruning."""
        return rungs_below(self.steps, self.search.min_steps, self.search.reduction)

    @property
    def distinct_points(self) -> int | None:
        """Distinct arms of a space that is listed completely."""
        return len({identity(run)["arm"] for _, run in self.corners}) if self.sees_everything else None

    @property
    def most_trained(self) -> int:
        """Trials that can be trained: a suggestion that repeats an earlier one trains nothing."""
        return min(self.search.trials, self.distinct_points or self.search.trials)

    @property
    def most_steps(self) -> int:
        """Training steps if every trial is trained to its end, with every seed."""
        return self.most_trained * len(self.space.seeds) * self.steps

    @property
    def expected_steps(self) -> int:
        """Training steps if each rung promotes its share."""
        steps = expected_steps(self.most_trained, self.rungs, self.steps, self.search.reduction)
        return steps * len(self.space.seeds)

    @property
    def search_id(self) -> str:
        """A search with more or fewer trials has the same id."""
        asked = dataclasses.asdict(self.search) | {"metric": self.search.metric.value, "trials": None}
        axes = {key: _asked(axis) for key, axis in self.space.axes.items()}
        content = [self.name, asked, axes, self.space.seeds, identity(self.base)["arm"], *self.untold]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:ID_LENGTH]

    @property
    def runs_root(self) -> Path:
        """The folder of the run folders."""
        return resolve(self.base.paths.runs)

    @property
    def reports_root(self) -> Path:
        """The folder of tables and pages."""
        return resolve(self.base.paths.reports)

    @property
    def folder(self) -> Path:
        """The folder of the search's manifest and locks."""
        return manifest_path(self.runs_root, self.search_id).parent

    def trial(self, number: int, params: dict[str, float | int | str], earlier: Sequence[Trial]) -> Trial:
        """The trial of a suggestion. Its outcome may be a refusal, by a rule that no corner of the space broke."""
        point = self.space.point(params)
        trial = Trial(number, params, point, self.rungs[0] if self.rungs else None)
        trial.shown = dict(point)
        try:
            for seed in self.space.seeds:
                self._add_run(trial, seed)
        except ConfigError as error:
            trial.refused, trial.runs = str(error), {}
            return trial
        trial.same_as = next((t.number for t in earlier if t.runs and t.runs.keys() == trial.runs.keys()), None)
        return trial

    def _add_run(self, trial: Trial, seed: str) -> None:
        settings = self.space.settings(trial.point, seed)
        run = compose(settings)
        found = identity(run)
        unread = unread_settings(run, settings)
        trial.arm, trial.unread = found["arm"], {key: why.reader for key, why in unread.items()}
        trial.shown = {s.key: s.value for s in resolved(settings, run) if s.key in trial.point and s.key not in unread}
        trial.runs[found["run_id"]] = run


def make_search_plan(arguments: Sequence[str]) -> SearchPlan:
    """Parse and check a search.

    Raises:
        ConfigError: this cannot be searched; nothing was started.
    """
    space = read_space(arguments)
    extra = tuple(Setting(k, v) for k, v in space.search.items())
    corners: list[Corner] = []
    for point in space.corners(MOST_CHECKED):
        for seed in space.seeds if not corners else space.seeds[:1]:
            settings = space.settings(point, seed)
            run = _composed((*settings, *extra), point)
            corners.append((settings, run))
    search = corners[0][1].search
    assert isinstance(search, SamplerConfig)
    plain = [(s, dataclasses.replace(r, search=SearchConfig())) for s, r in corners]
    listed = all(isinstance(axis, Choices) for axis in space.axes.values())
    sees_everything = listed and (space.size or 0) <= MOST_CHECKED
    plan = SearchPlan(space, search, tuple(plain), sees_everything, _untold(space, plain))
    _require_possible(plan)
    return plan


def _asked(axis: Axis) -> str | list[str]:
    """What the id says of an axis. The parameters of an ordered one are places in its order, not values."""
    return [str(axis), "ordered"] if isinstance(axis, Choices) and axis.ordered else str(axis)


def _untold(space: Space, corners: Sequence[Corner]) -> tuple[str, ...]:
    """The constants that the first corner does not read and another one does, and links that lead to an axis."""
    base, *others = (flatten(canonical_form(run)) for _, run in corners)
    read = {key for form in others for key in form if key not in base}
    first_names = {now: was for was, now in former_names().items()}
    values = [{s.key: s.value for s in resolved(*corner)} for corner in corners]
    linked = {key for key in space.constants if len({spelt[key] for spelt in values}) > 1}
    untold = {key for key in space.constants if first_names.get(key, key) in read and key not in linked}
    told = {key for key in untold if _is_default(key, corners[0])}
    found = [f"{key}={as_text(Setting(key, values[0][key]).meaning)}" for key in untold - told]
    return tuple(sorted([*found, *(f"{key}={space.constants[key]}" for key in linked)]))


def _is_default(key: str, corner: Corner) -> bool:
    """Whether the run of a corner has the same value of `key` without that setting."""
    settings, run = corner
    try:
        return bool(attrgetter(key)(compose([s for s in settings if s.key != key])) == attrgetter(key)(run))
    except (ConfigError, AttributeError):
        return False


def _composed(settings: Sequence[Setting], point: dict[str, str]) -> RunConfig:
    try:
        return compose(settings)
    except ConfigError as error:
        if error.field in point and "a whole number" in error.rule:
            error.add_note("an interval of whole numbers is int(interval(1,8))")
        error.add_note(f"at the point {' '.join(f'{k}={v}' for k, v in point.items())}; nothing was started")
        raise


def _require_possible(plan: SearchPlan) -> None:
    runs = [run for _, run in plan.corners]
    _require_axes_that_count(plan.space, runs)
    require_one_place(runs)
    for kind in {run.tracking.kind for run in runs}:
        require_tracker(kind)
    if any(isinstance(run.launch, SlurmConfig) for run in runs):
        rule = "a search chooses the next run by results, which a queue of jobs cannot"
        raise ConfigError("launch", "slurm", rule, "Run it in one job with launch=local, or submit a grid.")
    _require_one_length(plan)


def _require_axes_that_count(space: Space, runs: Sequence[RunConfig]) -> None:
    for key, axis in space.axes.items():
        if all(is_infrastructure(key, run) for run in runs):
            rule = "it cannot change a result, so there is nothing to search"
            raise ConfigError(key, str(axis), rule, "Give it one value.")


def _require_one_length(plan: SearchPlan) -> None:
    if plan.base.trainer.stop_at is not None:
        rule = "a search stops runs at its own rungs"
        raise ConfigError("trainer.stop_at", plan.base.trainer.stop_at, rule, "Leave it out; see search.min_steps.")
    lengths = sorted({run.trainer.steps for _, run in plan.corners})
    if plan.rungs and len(lengths) > 1:
        rule = f"rungs compare runs of one length, and here trainer.steps goes from {lengths[0]} to {lengths[-1]}"
        raise ConfigError(
            "search.min_steps", plan.search.min_steps, rule, "Fix trainer.steps and scale, or leave it out."
        )
