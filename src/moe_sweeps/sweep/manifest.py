"""The manifest of a plan: combinations, runs, and the sweep file's expectations bound to the arms of this plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from moe_sweeps.host.files import NOT_ALLOWED
from moe_sweeps.records.claims import Statement
from moe_sweeps.records.genuine import REPLICATE_KEYS
from moe_sweeps.records.manifest import (
    FileRecord,
    ForkRecord,
    Manifest,
    RequestRecord,
    RunRecord,
    first_created,
    manifest_path,
)
from moe_sweeps.records.numbers import metric_of
from moe_sweeps.records.rundir import SETTLED
from moe_sweeps.sweep.block import same_value
from moe_sweeps.sweep.expectation import Expectation
from moe_sweeps.sweep.forks import FILLED_IN
from moe_sweeps.sweep.plan import Plan, PlannedRun, Request


def write_manifest(plan: Plan, command: str) -> Manifest:
    """Write the design matrix, known before the first run starts, and return it.

    Where this user may not write and every run has its result, the file is left out: nothing is left to start.
    """
    manifest = manifest_of(plan, command)
    try:
        manifest.write(plan.runs_root)
    except OSError as error:
        if error.errno not in NOT_ALLOWED or any(p.state not in SETTLED for p in plan.runs.values()):
            raise
    return manifest


def sweep_folder(plan: Plan) -> Path:
    """The folder of the plan's sweep."""
    return manifest_path(plan.runs_root, plan.sweep_id).parent


def manifest_of(plan: Plan, command: str) -> Manifest:
    """The manifest of `plan`, created when the sweep was typed first."""
    file = plan.grid.file
    baseline = plan.arms(file.baseline) if file else []
    return Manifest(
        sweep_id=plan.sweep_id,
        name=plan.name,
        runs={run_id: _run_record(planned) for run_id, planned in plan.runs.items()},
        requested=tuple(_request_record(request) for request in plan.requests),
        axes=plan.axes,
        created=first_created(plan.runs_root, plan.sweep_id),
        command=command,
        file=FileRecord(file.name, file.question, file.source, file.table) if file else FileRecord(),
        replaced=plan.grid.replaced,
        baseline=baseline[0] if len(baseline) == 1 else None,
        expect=tuple(bound(expectation, plan) for expectation in file.expect) if file else (),
        fork=_fork_record(plan),
    )


def _fork_record(plan: Plan) -> ForkRecord | None:
    if not plan.trunks:
        return None
    first = next(iter(plan.trunks.values()))
    recipe = {s.key: s.value for s in first.settings if s.key not in REPLICATE_KEYS}
    return ForkRecord(first.run.last_step, recipe, {run_id: _run_record(one) for run_id, one in plan.trunks.items()})


def _request_record(request: Request) -> RequestRecord:
    unread = {key: why.reader for key, why in request.unread.items()}
    settings = {s.key: s.value for s in request.settings if s.key not in FILLED_IN}
    return RequestRecord(settings, request.run_id, unread)


def _run_record(planned: PlannedRun) -> RunRecord:
    folder = planned.folder.path.name if planned.folder else f"{planned.run.run_name}-{planned.run_id}"
    fork = planned.run.fork
    trunk = (fork.run, fork.replicate) if fork.continues else (None, 0)
    return RunRecord(folder, planned.arm, planned.label, planned.run.seed, planned.shown, None, *trunk)


# --- expectations -----------------------------------------------------------------------------------------------------


class _CannotJudge(Exception):
    """The plan lacks an arm that the statement speaks of, or has several."""


def bound(expectation: Expectation, plan: Plan) -> Statement:
    """One expectation with arm ids in the place of its selections.

    Where the plan lacks an arm that it speaks of, the statement says so in `cannot`.
    """
    statement = Statement(
        expectation.claim,
        expectation.kind,
        expectation.metric,
        better=metric_of(expectation.metric).better,
        source=expectation.source,
        by=expectation.by,
        within=expectation.within,
        bound=expectation.bound,
    )
    try:
        return (_points if expectation.axis else _arms)(expectation, plan, statement)
    except _CannotJudge as reason:
        return replace(statement, cannot=str(reason))


def _arms(expectation: Expectation, plan: Plan, statement: Statement) -> Statement:
    chosen = {"arm": expectation.arm, "than": expectation.than}
    found = {role: _one_arm(settings, plan) for role, settings in chosen.items() if settings}
    if len(set(found.values())) < len(found):
        raise _CannotJudge("both sides are the same arm in this plan")
    return replace(statement, arm=found.get("arm"), than=found.get("than"))


def _points(expectation: Expectation, plan: Plan, statement: Statement) -> Statement:
    assert expectation.axis is not None
    values = _by_size(plan.axes.get(expectation.axis, []))
    here = [v for v in values if plan.arms({**expectation.where, expectation.axis: v})]
    points = tuple((v, _one_arm({**expectation.where, expectation.axis: v}, plan)) for v in here)
    if len({arm for _, arm in points}) < 2:
        raise _CannotJudge(f"fewer than two arms along {expectation.axis}")
    for value in expectation.at:
        _one_arm({**expectation.where, expectation.axis: value}, plan)
    at = tuple(v for v in here if any(same_value(v, claimed) for claimed in expectation.at))
    return replace(statement, axis=expectation.axis, points=points, at=at)


def _by_size(values: Sequence[str]) -> list[str]:
    try:
        return sorted(values, key=float)
    except ValueError:
        return list(values)


def _one_arm(chosen: Mapping[str, str], plan: Plan) -> str:
    arms = plan.arms(chosen)
    if len(arms) != 1:
        spelt = " ".join(f"{k}={v}" for k, v in chosen.items())
        raise _CannotJudge(f"{len(arms) or 'no'} arm{'s have' if arms else ' has'} {spelt}")
    return arms[0]
