"""From command-line overrides to the combinations of a sweep."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, Sweep

from moe_sweeps.config.compose import Setting, current_name, options, parse
from moe_sweeps.errors import ConfigError
from moe_sweeps.sweep.block import SEEDS, Block
from moe_sweeps.sweep.file import SweepFile, load_sweep


@dataclass(frozen=True, slots=True)
class Replaced:
    """A setting of a sweep file that the command line overrode; `old` is empty where the file left the key alone."""

    key: str
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """The combinations of a sweep, and how they came about.

    `axes` holds every key that varies with its values as typed; `excluded` counts combinations that were left out.
    What is typed beside `sweep=<name>` wins over the file and is listed in `replaced`.
    """

    file: SweepFile | None
    blocks: tuple[Block, ...]
    axes: dict[str, list[str]]
    combinations: list[tuple[Setting, ...]]
    excluded: int = 0
    replaced: tuple[Replaced, ...] = ()

    @property
    def name(self) -> str | None:
        return self.file.name if self.file else None


def expand(arguments: Sequence[str]) -> Grid:
    """The combinations that `arguments` ask for; without a swept key it is one.

    Raises:
        ConfigError: an override that cannot be parsed, an axis without values, a sweep file that cannot be.
    """
    name, rest = _split_sweep_name(arguments)
    file = None if name is None else load_sweep(name)
    typed = _values_by_key(parse(rest))
    blocks, replaced = _override(file, typed) if file else ((Block({k: tuple(v) for k, v in typed.items()}),), ())
    combinations = [tuple(Setting(k, v) for k, v in c.items()) for block in blocks for c in block.combinations()]
    if not combinations:
        rule = "with what was typed, the file's exclude removes every combination"
        raise ConfigError("sweep", name, rule, "Type other values, or change the file.")
    excluded = sum(1 for block in blocks if block.excludes for _ in block.everything())
    excluded -= sum(len(block.combinations()) for block in blocks if block.excludes)
    return Grid(file, blocks, _varying(blocks), combinations, excluded, replaced)


def single(arguments: Sequence[str]) -> tuple[Setting, ...]:
    """The settings of one run.

    Raises:
        ConfigError: several runs are asked for, which needs -m.
    """
    grid = expand(arguments)
    if len(grid.combinations) > 1:
        key, values = ("sweep", [grid.name]) if grid.name else next(iter(grid.axes.items()))
        rule = f"it asks for {len(grid.combinations)} runs, and without -m one run is trained"
        raise ConfigError(key, ",".join(values), rule, "Add -m to sweep, or choose one value.")
    return grid.combinations[0]


def _override(file: SweepFile, typed: dict[str, list[str]]) -> tuple[tuple[Block, ...], tuple[Replaced, ...]]:
    """The file's blocks, seeds last, with what was typed in the place of what the file says."""
    seeds = tuple(map(str, file.seeds))
    blocks = [block.with_values(SEEDS, seeds) for block in file.grid]
    replaced = []
    for key, values in typed.items():
        old = dict.fromkeys(v for block in blocks if key in block.keys for v in block.values(key))
        if tuple(old) != tuple(values):
            replaced.append(Replaced(key, tuple(old), tuple(values)))
        blocks = [block.with_values(key, values) for block in blocks]
    return tuple(blocks), tuple(replaced)


def _varying(blocks: Sequence[Block]) -> dict[str, list[str]]:
    """Keys that have several values, or that only some blocks set, with all values in order."""
    keys = dict.fromkeys(key for block in blocks for key in block.keys)
    values = {key: [block.values(key) if key in block.keys else () for block in blocks] for key in keys}
    varying = [key for key, found in values.items() if len(set(found)) > 1 or len(found[0]) > 1]
    return {key: list(dict.fromkeys(v for vs in values[key] for v in vs)) for key in varying}


def _split_sweep_name(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    names = [a.removeprefix("sweep=") for a in arguments if a.startswith("sweep=")]
    return (names[-1] if names else None), [a for a in arguments if not a.startswith("sweep=")]


def _values_by_key(overrides: Sequence[Override]) -> dict[str, list[str]]:
    """Every key with its values in order; a key that is given twice counts as Hydra does it: the last one wins."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        choices = values_of(override)
        if not choices:
            rule = "the axis has no values, so the sweep would have no runs"
            raise ConfigError(override.key_or_group, typed_value(override), rule, "Give it at least one value.")
        if override.key_or_group.startswith("launch.") and len(choices) > 1:
            rule = "how runs are launched is the same for all runs of a sweep"
            fix = f"A list is quoted twice: {override.key_or_group}='\"{typed_value(override)}\"'."
            raise ConfigError(override.key_or_group, typed_value(override), rule, fix)
        values[current_name(override.key_or_group)] = choices
    return values


def values_of(override: Override) -> list[str]:
    """The values that an override lists, as texts.

    Raises:
        ConfigError: an interval, whose values cannot be listed.
    """
    value = override.value()
    nested = value.list if isinstance(value, ChoiceSweep) else []
    if isinstance(value, IntervalSweep) or any(isinstance(v, Sweep) for v in nested):
        rule = "an interval has no values to list" if not nested else "an interval or a range stands alone"
        fix = "List values, or add search=tpe or search=random, which choose from an interval."
        raise ConfigError(override.key_or_group, typed_value(override), rule, fix)
    if isinstance(value, Glob):
        names = options().get(override.key_or_group, [])
        included = [n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in value.include)]
        return [n for n in included if not any(fnmatch.fnmatch(n, pattern) for pattern in value.exclude)]
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [typed_value(override)]


def typed_value(override: Override) -> str:
    """What was typed after the equals sign."""
    return (override.input_line or "").partition("=")[2]
