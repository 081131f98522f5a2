"""`--where`: of many runs those that have certain settings, states or tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_sweeps.errors import ConfigError, RunFolderError, nearest
from moe_sweeps.launch.follow import DAMAGED, LOST, PAUSED, PRUNED, RunRow
from moe_sweeps.records.genuine import flatten
from moe_sweeps.records.remarks import remarks_of
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.records.settings import Condition, active, require_known, value_text
from moe_sweeps.results.runs import flat_config

STATE, TAG = "state", "tag"  # conditions that are no settings
STATES = (*map(str, State), LOST, DAMAGED, PAUSED, PRUNED)
HELP = (
    "only runs with this setting, compared as a value: aux.coef=0.10, balancer=aux,lossfree; "
    "also state=failed and tag=best; may be given several times"
)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What one run was frozen with, by dotted names."""

    config: Mapping[str, Any]
    canonical: Mapping[str, Any]


def matching(rows: Sequence[RunRow], wanted: Sequence[str]) -> tuple[list[RunRow], int]:
    """The rows for which all conditions hold, and how many were left out because their config cannot be read.

    Raises:
        ConfigError: what was typed is no condition, or no state.
        MoeSweepsError: no run has such a setting.
    """
    conditions = [Condition.parse(text) for text in wanted]
    _require_states(conditions)
    special = [c for c in conditions if c.key in (STATE, TAG)]
    rows = [row for row in rows if all(_has(row, condition) for condition in special)]
    settings = [c for c in conditions if c not in special]
    if not settings or not rows:
        return list(rows), 0
    facts = [_facts(row.folder) for row in rows]
    readable = [found for found in facts if found is not None]
    known = {key for found in readable for key in found.config}
    for condition in settings:
        require_known(condition, known, nearest(condition.key, sorted(known)) or "")
    kept = [
        row for row, found in zip(rows, facts, strict=True)
        if found is not None and all(_holds(condition, found, readable) for condition in settings)
    ]  # fmt: skip
    return kept, len(facts) - len(readable)


def _require_states(conditions: Sequence[Condition]) -> None:
    """Refuse a word that is no state: it would show nothing, as if there were nothing."""
    for word in (value for c in conditions if c.key == STATE for value in c.values if "," not in value):
        if word not in STATES:
            fix = f"Did you mean {near}?" if (near := nearest(word, STATES)) else "Write one of these."
            raise ConfigError("--where", f"{STATE}={word}", f"the states are {', '.join(STATES)}", fix)


def _has(row: RunRow, condition: Condition) -> bool:
    if condition.key == STATE:
        return condition.holds_for(str(row.state))
    return any(condition.holds_for(tag) for tag in remarks_of(row.folder.path).tags)


def _holds(condition: Condition, one: _Facts, every: Sequence[_Facts]) -> bool:
    key = condition.key
    elsewhere = {value_text(other.canonical[key]) for other in every if key in other.canonical}
    value = active(one.config, one.canonical, key, elsewhere)
    return value is not None and condition.holds_for(value)


def _facts(folder: RunDir) -> _Facts | None:
    try:
        return _Facts(flat_config(folder), flatten(folder.identity().get("canonical") or {}))
    except (OSError, ValueError, TypeError, RunFolderError):
        return None
