"""The manifest of a search: that of a sweep, so that status and tables read it, plus what was suggested.

Its trials are every suggestion in order, with the step that it is trained to. Everything else about a trial follows
from that and from the run folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from moe_sweeps.errors import RunFolderError
from moe_sweeps.experiment.compose import resolved
from moe_sweeps.records.manifest import (
    Manifest,
    RequestRecord,
    RunRecord,
    SearchRecord,
    TrialRecord,
    first_created,
    manifest_path,
)
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.search.plan import SearchPlan
from moe_sweeps.sweep.search.trials import Outcome, Standing, Trial

Ranked = Sequence[tuple[Trial, Standing]]


def path_of(plan: SearchPlan) -> Path:
    """Where the manifest of a search lies."""
    return manifest_path(plan.runs_root, plan.search_id)


def load_trials(plan: SearchPlan) -> list[Trial]:
    """The trials that were suggested so far.

    Raises:
        RunFolderError: the manifest cannot be read.
    """
    path = path_of(plan)
    if not path.exists():
        return []
    trials: list[Trial] = []
    try:
        search = Manifest.load(path).search
        if search is None:
            raise ValueError("it is the manifest of a grid")
        for number, entry in enumerate(search.trials):
            trials.append(plan.trial(number, entry.params, trials))
            trials[-1].target = entry.target
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}. Move it away to restart the search.") from error
    return trials


def save(
    plan: SearchPlan,
    trials: Sequence[Trial],
    command: str,
    folders: Mapping[str, RunDir],
    over: Ranked | None = None,
) -> None:
    """Write the manifest, once there is a trial that can be trained.

    `over`: once the search is over, its trials with their standings, best first. Tables then know which runs were
    pruned, and the best trial becomes the baseline.
    """
    if any(trial.runs for trial in trials):
        manifest_of(plan, trials, command, folders, over).write(plan.runs_root)


def manifest_of(
    plan: SearchPlan,
    trials: Sequence[Trial],
    command: str,
    folders: Mapping[str, RunDir],
    over: Ranked | None = None,
) -> Manifest:
    """The manifest of a search as it stands."""
    return Manifest(
        sweep_id=plan.search_id,
        name=plan.name,
        runs=_runs(trials, folders, over or ()),
        requested=tuple(RequestRecord(s, id_, t.unread) for t in trials for id_, s in _requested(plan, t)),
        axes=_axes(plan, trials),
        created=first_created(plan.runs_root, plan.search_id),
        command=command,
        baseline=over[0][0].arm if over and over[0][1].outcome is Outcome.done else None,
        search=_search(plan, trials, over is not None),
    )


def _runs(trials: Sequence[Trial], folders: Mapping[str, RunDir], over: Ranked) -> dict[str, RunRecord]:
    pruned = {id_: found.step for trial, found in over if found.outcome is Outcome.paused for id_ in trial.runs}
    found = {}
    for trial in trials:
        for id_, run in trial.runs.items() if trial.same_as is None else ():
            name = folders[id_].path.name if id_ in folders else f"{run.run_name}-{id_}"
            found[id_] = RunRecord(name, trial.arm, trial.label, run.seed, trial.shown, pruned.get(id_))
    return found


def _axes(plan: SearchPlan, trials: Sequence[Trial]) -> dict[str, list[str]]:
    points = [t.point for t in trials if not t.runs]
    points += [settings for t in trials for _, settings in _requested(plan, t)]
    axes = {key: list(dict.fromkeys(point[key] for point in points)) for key in plan.space.axes}
    return axes | ({"seed": list(plan.space.seeds)} if len(plan.space.seeds) > 1 else {})


def _requested(plan: SearchPlan, trial: Trial) -> Iterator[tuple[str, dict[str, str]]]:
    """Run ids of a trial, with the settings that made them, links followed."""
    for seed, (id_, run) in zip(plan.space.seeds, trial.runs.items(), strict=False):
        yield id_, {s.key: s.value for s in resolved(plan.space.settings(trial.point, seed), run)}


def _search(plan: SearchPlan, trials: Sequence[Trial], over: bool) -> SearchRecord:
    return SearchRecord(
        kind=plan.search.kind,
        metric=plan.search.number.column,
        space={key: str(axis) for key, axis in plan.space.axes.items()},
        seeds=tuple(plan.space.seeds),
        rungs=tuple(plan.rungs),
        reduction=plan.search.reduction,
        trials=tuple(TrialRecord(t.params, t.target, t.same_as, t.refused) for t in trials),
        over=over,
    )
