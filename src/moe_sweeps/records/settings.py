"""Settings compared as values: 0.10 is 0.1, and a setting that a run does not read is none of its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_sweeps.errors import ConfigError, MoeSweepsError

_COMMA = re.compile(r",(?![^\[({]*[\])}])")  # outside brackets


def same_value(a: str, b: str) -> bool:
    """Whether two spellings mean one value: 1e-3 and 0.001, true and True."""
    return a == b or meaning(a) == meaning(b)


def meaning(text: str) -> int | float | str:
    """What a spelling means: a number, one of true, false and null, or else the text itself."""
    try:
        return _number(text)
    except ValueError:
        return text.lower() if text.lower() in ("true", "false", "null") else text


def value_text(value: Any) -> str:
    """A value of a config as it is typed."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a run must have to be shown: one of `values` for `key`."""

    key: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read `key=value` or `key=value1,value2`.

        Raises:
            ConfigError: it is neither.
        """
        key, sign, value = text.partition("=")
        if not (key.strip() and sign and value.strip()):
            raise ConfigError("--where", text, "a condition is a key and its values", "Write --where aux.coef=0.1.")
        parts = tuple(part.strip() for part in _COMMA.split(value) if part.strip())
        return cls(key.strip(), tuple(dict.fromkeys([value.strip(), *parts])))

    def holds_for(self, value: str) -> bool:
        """Whether a run with this value is one of those."""
        return any(same_value(value, wanted) for wanted in self.values)


def active(settings: Mapping[str, Any], canonical: Mapping[str, Any], key: str, elsewhere: set[str]) -> str | None:
    """The value that `key` has in a run, as text; None where the run has no such setting, or does not read it.

    `settings` and `canonical` are the run's frozen config and canonical form by dotted names. A key that the canonical
    form leaves out is either not read by the run or at its neutral value. It is not read if other runs have it in
    theirs with that very value (`elsewhere`), which then is not the neutral one.
    """
    if key not in settings:
        return None
    value = value_text(settings[key])
    if key not in canonical and any(same_value(value, other) for other in elsewhere):
        return None
    return value


def require_known(condition: Condition, known: set[str], hint: str) -> None:
    """Refuse a key that no run has: a misspelt one would show nothing, as if there were nothing."""
    if condition.key not in known:
        fix = f"Did you mean {hint}?" if hint else "`moe-sweeps knobs` lists all keys."
        raise MoeSweepsError(f"--where {condition.key}: no run here has such a setting. {fix}")


def _number(text: str) -> float:
    """An int where it is one: two seeds above 2^53 may be the same float."""
    try:
        return int(text)
    except ValueError:
        return float(text)
