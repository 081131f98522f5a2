"""The manifest of a search: a sweep's manifest, so that status and tables read it, with what was suggested.

`search.trials` holds every suggestion in order, with the step that it is trained to. Everything else about a trial
follows from that and from the run folders.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from moe_sweeps.errors import RunFolderError
from moe_sweeps.files import read_json, write_json
from moe_sweeps.rundir import RunDir
from moe_sweeps.sweep.plan import MANIFEST_VERSION
from moe_sweeps.sweep.search.plan import SearchPlan
from moe_sweeps.sweep.search.trials import Outcome, Standing, Trial

FILE = "manifest.json"


def load_trials(plan: SearchPlan) -> list[Trial]:
    """The trials that were suggested so far.

    Raises:
        RunFolderError: the manifest cannot be read.
    """
    path = plan.folder / FILE
    if not path.exists():
        return []
    trials: list[Trial] = []
    try:
        for number, entry in enumerate(read_json(path)["search"]["trials"]):
            trial = plan.trial(number, dict(entry["params"]), trials)
            trial.target = None if entry["target"] is None else int(entry["target"])
            trials.append(trial)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} cannot be read: {error!r}. Move it away to begin the search anew.") from error
    return trials


def save(
    plan: SearchPlan,
    trials: Sequence[Trial],
    command: str,
    folders: Mapping[str, RunDir],
    over: Sequence[tuple[Trial, Standing]] | None = None,
) -> None:
    """Write the manifest. `over`, once the search is: its trials, best first, and how they stand, so that tables know
    what was pruned and what the others are compared with.

    There is no manifest before the first trial that can be trained.
    """
    path = plan.folder / FILE
    if not any(trial.runs for trial in trials):
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    created = read_json(path)["created"] if path.exists() else time.strftime("%Y-%m-%dT%H:%M:%S%z")
    pruned = {id_: found.step for trial, found in over or () if found.outcome is Outcome.paused for id_ in trial.runs}
    content = _manifest(plan, trials, command, created, folders, pruned)
    content["search"]["over"] = over is not None
    content["baseline"] = over[0][0].arm if over and over[0][1].outcome is Outcome.done else None
    write_json(path, content, durable=True)


def _manifest(
    plan: SearchPlan,
    trials: Sequence[Trial],
    command: str,
    created: str,
    folders: Mapping[str, RunDir],
    pruned: Mapping[str, int],
) -> dict[str, Any]:
    axes = {key: list(dict.fromkeys(t.point[key] for t in trials)) for key in plan.space.axes}
    return {
        "version": MANIFEST_VERSION,
        "sweep_id": plan.search_id,
        "name": plan.name,
        "created": created,
        "command": command,
        "axes": axes | ({"seed": list(plan.space.seeds)} if len(plan.space.seeds) > 1 else {}),
        "requested": [
            {
                "overrides": {s.key: s.value for s in plan.space.settings(t.point, seed)},
                "run_id": id_,
                "unread": t.unread,
            }
            for t in trials
            for seed, id_ in zip(plan.space.seeds, t.runs, strict=False)
        ],
        "runs": {
            id_: {
                "folder": folders[id_].path.name if id_ in folders else f"{run.run_name}-{id_}",
                "arm": t.arm,
                "label": t.label,
                "seed": run.seed,
                "pruned": pruned.get(id_),
            }
            for t in trials
            if t.same_as is None
            for id_, run in t.runs.items()
        },
        "search": {
            "kind": plan.search.kind,
            "metric": plan.search.metric.value,
            "space": {key: str(axis) for key, axis in plan.space.axes.items()},
            "seeds": list(plan.space.seeds),
            "rungs": list(plan.rungs),
            "reduction": plan.search.reduction,
            "trials": [
                {"params": t.params, "target": t.target, "same_as": t.same_as, "refused": t.refused} for t in trials
            ],
        },
    }
