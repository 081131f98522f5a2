"""What a sweep file expects, as statements that its results can confirm or contradict.

Each has a `claim` in words and a `kind` that says how it is judged; records/claims.py says what a kind needs. `arm`,
`than` and `where` are settings that select arms of the grid, seeds apart; kinds with an `axis` look at the arms
`where`. "Better" is lower for a loss and higher for accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.records.claims import ALWAYS, KINDS, NUMBERS
from moe_sweeps.records.numbers import BY_COLUMN


@dataclass(frozen=True, slots=True)
class Expectation:
    """One testable statement. `axis` values in `at` and in the arms are spelt as in the grid."""

    claim: str
    kind: str
    metric: str
    source: str | None = None
    arm: dict[str, str] = field(default_factory=dict)
    than: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    axis: str | None = None
    at: tuple[str, ...] = ()
    by: float = 0.0
    within: float | None = None
    bound: float | None = None

    def selectors(self) -> list[dict[str, str]]:
        """Every selection of arms that the statement makes, the points of its axis that it names among them."""
        points = [{**self.where, self.axis: value} for value in self.at] if self.axis else []
        return [chosen for chosen in (self.arm, self.than, self.where, *points) if chosen]


def read_expectation(content: Mapping[str, Any]) -> Expectation:
    """The statement that a mapping of a sweep file makes.

    Raises:
        ConfigError: an unknown kind, metric or field, a field that the kind lacks or does not have.
    """
    for key in ALWAYS:
        if not isinstance(content.get(key), str):
            rule = "every expectation needs claim, kind and metric, each a text"
            raise ConfigError(f"expect.{key}", content.get(key), rule, f"Add `{key}:`.")
    kind, metric = content["kind"], content["metric"]
    _one_of("expect.kind", kind, KINDS)
    _one_of("expect.metric", metric, BY_COLUMN)
    _require_fields(content, kind)
    if KINDS[kind].directed and BY_COLUMN[metric].better is None:
        fix = "Use rises, falls, no_difference or a ratio."
        raise ConfigError("expect.metric", metric, f"it has no better direction, which kind={kind} needs", fix)
    fields: dict[str, Any] = {k: _selector(k, content[k]) for k in ("arm", "than", "where") if k in content}
    fields |= {k: _number(k, content[k]) for k in NUMBERS if k in content}
    at = content.get("at", [])
    fields |= {"at": tuple(at) if isinstance(at, list) else (at,)}
    return Expectation(content["claim"], kind, metric, content.get("source"), axis=content.get("axis"), **fields)


def _require_fields(content: Mapping[str, Any], kind: str) -> None:
    needs, valid = KINDS[kind].needs, (*ALWAYS, "source", *KINDS[kind].needs, *KINDS[kind].may)
    for key in content:
        if key not in valid:
            close = nearest(key, valid)
            fix = f"Did you mean {close}?" if close else "Leave it out."
            raise ConfigError(f"expect.{key}", content[key], f"kind={kind} has the fields {', '.join(valid)}", fix)
    for key in needs:
        if not content.get(key):
            raise ConfigError(f"expect.{key}", content.get(key), f"kind={kind} needs it", f"Add `{key}:`.")


def _one_of(name: str, value: str, valid: Mapping[str, object]) -> None:
    if value not in valid:
        close = nearest(value, valid)
        fix = f"Did you mean {close}?" if close else "docs/sweeps.md explains each."
        raise ConfigError(name, value, f"it must be one of {', '.join(valid)}", fix)


def _selector(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not value or not all(isinstance(v, str) for v in value.values()):
        rule = "it selects arms by their settings"
        raise ConfigError(f"expect.{name}", value, rule, f"Write `{name}: {{balancer: aux, aux.coef: 0.1}}`.")
    return dict(value)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigError(f"expect.{name}", value, "it must be a number from 0 up", "Give it in the metric's unit.")
    return number
