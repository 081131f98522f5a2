"""Expectations of a sweep file, bound to the arms of one plan: what the manifest carries to whoever judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moe_sweeps.sweep.block import same_value
from moe_sweeps.sweep.expectation import METRICS, Expectation

if TYPE_CHECKING:
    from moe_sweeps.sweep.plan import Plan


def file_record(plan: Plan) -> dict[str, Any]:
    """What the manifest says about the sweep file; empty for a sweep without one."""
    file = plan.grid.file
    if file is None:
        return {}
    baseline = plan.arms(file.baseline)
    return {
        "file": {"name": file.name, "question": file.question, "source": file.source, "table": file.table},
        "replaced": [{"key": r.key, "old": list(r.old), "new": list(r.new)} for r in plan.grid.replaced],
        "baseline": baseline[0] if len(baseline) == 1 else None,
        "expect": [bound(expectation, plan) for expectation in file.expect],
    }


def bound(expectation: Expectation, plan: Plan) -> dict[str, Any]:
    """One statement as plain data, its selections replaced by arm ids.

    `arm` and `than` are arm ids, `points` pairs of axis value and arm id: by size where all values are numbers, else in
    the order of the grid. `at` has values as they are spelt in `points`. `cannot` says why this plan cannot judge the
    statement, and is null when it can.
    """
    record: dict[str, Any] = {
        "claim": expectation.claim,
        "kind": expectation.kind,
        "metric": expectation.metric,
        "better": METRICS[expectation.metric],
        "source": expectation.source,
        "cannot": None,
    }
    record |= {k: v for k in ("by", "within", "bound") if (v := getattr(expectation, k)) is not None}
    try:
        record |= _points(expectation, plan) if expectation.axis else _arms(expectation, plan)
    except _CannotJudge as reason:
        record["cannot"] = str(reason)
    return record


class _CannotJudge(Exception):
    """The plan lacks an arm that the statement speaks of, or has several."""


def _arms(expectation: Expectation, plan: Plan) -> dict[str, Any]:
    chosen = {"arm": expectation.arm, "than": expectation.than}
    found = {role: _one_arm(settings, plan) for role, settings in chosen.items() if settings}
    if len(set(found.values())) < len(found):
        raise _CannotJudge("both sides are the same arm in this plan")
    return found


def _points(expectation: Expectation, plan: Plan) -> dict[str, Any]:
    assert expectation.axis is not None
    values = _by_size(plan.axes.get(expectation.axis, []))
    here = [v for v in values if plan.arms({**expectation.where, expectation.axis: v})]
    points = [(v, _one_arm({**expectation.where, expectation.axis: v}, plan)) for v in here]
    if len({arm for _, arm in points}) < 2:
        raise _CannotJudge(f"fewer than two arms along {expectation.axis}")
    for value in expectation.at:
        _one_arm({**expectation.where, expectation.axis: value}, plan)
    at = [v for v in here if any(same_value(v, claimed) for claimed in expectation.at)]
    return {"axis": expectation.axis, "points": [list(p) for p in points], "at": at}


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
