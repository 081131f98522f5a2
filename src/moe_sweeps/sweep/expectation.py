"""What a sweep file expects, as statements that its results can confirm or contradict.

Each has a `claim` in words and a `kind` that says how it is judged, and KINDS says what a kind needs. `arm`, `than` and
`where` are settings that select arms of the grid, seeds apart; kinds with an `axis` look at the arms `where`. "Better"
is lower for a loss and higher for accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_sweeps.errors import ConfigError, nearest

# What may be claimed about, and which direction is better; None: neither.
METRICS: dict[str, str | None] = {
    "val_loss": "lower",
    "val_perplexity": "lower",
    "val_accuracy": "higher",
    "val_maxvio_global": "lower",
    "train_maxvio_batch": "lower",
    "val_load_balancing_loss": "lower",
    "val_z_loss": None,
    "collapsed": "lower",
    "tokens_per_second": "higher",
    "train_seconds": "lower",
    "wall_seconds": "lower",
    "params_total": None,
    "params_active": None,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """How a statement is judged, and the fields that it needs or may have besides claim, kind, metric and source."""

    means: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()
    directed: bool = False  # speaks of better and worse, so the metric must have a better direction


KINDS: dict[str, Kind] = {
    "better": Kind("arm is better than `than`, by at least `by` (0)", ("arm", "than"), ("by",), directed=True),
    "worse": Kind("arm is worse than `than`, by at least `by` (0)", ("arm", "than"), ("by",), directed=True),
    "not_worse": Kind("arm is not worse than `than` by more than `within`", ("arm", "than", "within"), directed=True),
    "no_difference": Kind("arm and `than` differ by at most `within`", ("arm", "than", "within")),
    "ratio_at_most": Kind("metric of arm divided by that of `than` is at most `bound`", ("arm", "than", "bound")),
    "ratio_at_least": Kind("metric of arm divided by that of `than` is at least `bound`", ("arm", "than", "bound")),
    "rises": Kind("the metric grows along `axis`, by at least `by` (0) in all", ("axis",), ("where", "by")),
    "falls": Kind("the metric shrinks along `axis`, by at least `by` (0) in all", ("axis",), ("where", "by")),
    "best_at": Kind("along `axis` the metric is best at one of `at`", ("axis", "at"), ("where",), directed=True),
    "turning_point": Kind("the same, and worse at both ends", ("axis", "at"), ("where",), directed=True),
    "spread_at_most": Kind("the standard deviation of arm over seeds is at most `bound`", ("arm", "bound")),
}  # fmt: skip
ALWAYS = ("claim", "kind", "metric")
NUMBERS = ("by", "within", "bound")


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
    _one_of("expect.metric", metric, METRICS)
    _require_fields(content, kind)
    if KINDS[kind].directed and METRICS[metric] is None:
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
