"""From command-line overrides to the combinations of a sweep."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import Glob, Override

from moe_sweeps.config.compose import Setting, options, parse
from moe_sweeps.errors import ConfigError
from moe_sweeps.sweep.file import load_sweep


@dataclass(frozen=True, slots=True)
class Grid:
    """Axes with their values as typed, and the product of all axes, the first one slowest.

    `name` is that of the sweep file that the axes start from, if one was asked for; what is typed beside it wins.
    """

    name: str | None
    axes: dict[str, list[str]]
    combinations: list[tuple[Setting, ...]]


def expand(arguments: Sequence[str]) -> Grid:
    """The combinations that `arguments` ask for; without a swept key it is one.

    Raises:
        ConfigError: an override that cannot be parsed, or an axis without values.
    """
    name, typed = _split_sweep_name(arguments)
    values = _values_by_key(parse([*(load_sweep(name).overrides() if name else []), *typed]))
    axes = {key: choices for key, choices in values.items() if len(choices) > 1}
    products = itertools.product(*([Setting(key, v) for v in choices] for key, choices in values.items()))
    return Grid(name, axes, list(products))


def single(arguments: Sequence[str]) -> tuple[Setting, ...]:
    """The settings of one run.

    Raises:
        ConfigError: a key is swept, which needs -m.
    """
    grid = expand(arguments)
    for key, values in grid.axes.items():
        rule = f"it asks for {len(values)} runs, and without -m one run is trained"
        raise ConfigError(key, ",".join(values), rule, "Add -m to sweep, or choose one value.")
    return grid.combinations[0]


def _split_sweep_name(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    names = [a.removeprefix("sweep=") for a in arguments if a.startswith("sweep=")]
    return (names[-1] if names else None), [a for a in arguments if not a.startswith("sweep=")]


def _values_by_key(overrides: Sequence[Override]) -> dict[str, list[str]]:
    """Every key with its values in order; a key that is given twice counts as Hydra does it: the last one wins."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        choices = _values(override)
        if not choices:
            rule = "the axis has no values, so the sweep would have no runs"
            raise ConfigError(override.key_or_group, _typed(override), rule, "Give it at least one value.")
        values[override.key_or_group] = choices
    return values


def _values(override: Override) -> list[str]:
    value = override.value()
    if isinstance(value, Glob):
        names = options().get(override.key_or_group, [])
        included = [n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in value.include)]
        return [n for n in included if not any(fnmatch.fnmatch(n, pattern) for pattern in value.exclude)]
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [_typed(override)]


def _typed(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]
