"""From command-line overrides to the combinations of a sweep."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, Sweep

from moe_sweeps.config.grammar import texts, unshuffled
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.compose import single_choice
from moe_sweeps.experiment.options import current_name, is_number, options
from moe_sweeps.experiment.overrides import Setting, parse
from moe_sweeps.records.manifest import Replaced
from moe_sweeps.records.settings import meaning
from moe_sweeps.sweep.block import SEEDS, Block, same_value
from moe_sweeps.sweep.file import SweepFile, load_sweep
from moe_sweeps.sweep.forks import forked

SWEEP = "sweep"
# For `single`, where no option asks for several runs.
ONE_RUN = ("this is about one run", "Choose one value.")


@dataclass(frozen=True, slots=True)
class Grid:
    """The combinations of a sweep, and how they came about.

    `axes` holds every key that varies with its values as typed; `excluded` counts combinations that were left out.
    Overrides beside `sweep=<name>` take precedence over the file and are listed in `replaced`.
    """

    file: SweepFile | None
    blocks: tuple[Block, ...]
    axes: dict[str, list[str]]
    combinations: list[tuple[Setting, ...]]
    excluded: int = 0
    replaced: tuple[Replaced, ...] = ()

    @property
    def name(self) -> str | None:
        """The name of the sweep file; None without one."""
        return self.file.name if self.file else None


def expand(arguments: Sequence[str]) -> Grid:
    """The combinations that `arguments` ask for; without a swept key it is one.

    Raises:
        ConfigError: an override that cannot be parsed, an axis without values, an impossible sweep file.
    """
    overrides = parse(arguments)
    name = _sweep_name(overrides)
    file = None if name is None else load_sweep(name)
    if _forks(overrides, file):
        overrides = list(map(unshuffled, overrides))  # the trunk's recipe is that of the first combination
    typed = _values_by_key([o for o in overrides if o.key_or_group != SWEEP])
    blocks, replaced = _override(file, typed) if file else ((Block({k: tuple(v) for k, v in typed.items()}),), ())
    blocks = _one_spelling(blocks)
    combinations = [tuple(Setting(k, v) for k, v in c.items()) for block in blocks for c in block.combinations()]
    if not combinations:
        rule = "with the overrides, the file's exclude removes every combination"
        raise ConfigError("sweep", name, rule, "Use other values, or change the file.")
    excluded = sum(1 for block in blocks if block.excludes for _ in block.everything())
    excluded -= sum(len(block.combinations()) for block in blocks if block.excludes)
    return forked(Grid(file, blocks, _varying(blocks), combinations, excluded, replaced))


def _forks(overrides: Sequence[Override], file: SweepFile | None) -> bool:
    keys = [o.key_or_group for o in overrides] + [key for block in (file.grid if file else ()) for key in block.keys]
    return any(key.startswith("fork.") for key in keys)


def single(
    arguments: Sequence[str],
    wanted: str = "without -m one run is trained",
    fix: str = "Add -m to sweep, or choose one value.",
) -> tuple[Setting, ...]:
    """The settings of one run; `wanted` and `fix` are for the message.

    Raises:
        ConfigError: several runs are asked for.
    """
    grid = expand(arguments)
    if len(grid.combinations) > 1:
        key, values = ("sweep", [grid.name]) if grid.name else next(iter(grid.axes.items()))
        raise ConfigError(key, ",".join(values), f"it asks for {len(grid.combinations)} runs, and {wanted}", fix)
    return grid.combinations[0]


def _override(file: SweepFile, typed: dict[str, list[str]]) -> tuple[tuple[Block, ...], tuple[Replaced, ...]]:
    """The file's blocks, seeds last, with the overrides in place of the file's values."""
    seeds = tuple(map(str, file.seeds))
    blocks = [block.with_values(SEEDS, seeds) for block in file.grid]
    replaced = []
    for key, values in typed.items():
        old = dict.fromkeys(v for block in blocks if key in block.keys for v in block.values(key))
        if len(old) != len(values) or not all(map(same_value, old, values)):
            replaced.append(Replaced(key, tuple(old), tuple(values)))
        blocks = [block.with_values(key, values) for block in blocks]
    return tuple(blocks), tuple(replaced)


def _one_spelling(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """The blocks with every number of a key spelt as it was first: 0.3, 0.30 and 3e-1 are one value of an axis."""
    known: dict[str, list[str]] = {}
    for block in blocks:
        for key in block.keys:
            known.setdefault(key, []).extend(block.values(key))
    firsts = {key: first_spellings(values) for key, values in known.items() if is_number(key)}
    return tuple(block.respelt(firsts) for block in blocks)


def first_spellings(values: Iterable[str]) -> dict[str, str]:
    """Every value -> the first of `values` that means the same."""
    firsts: dict[int | float | str, str] = {}
    return {value: firsts.setdefault(meaning(value), value) for value in dict.fromkeys(values)}


def _varying(blocks: Sequence[Block]) -> dict[str, list[str]]:
    """Keys that have several values, or that only some blocks set, with all values in order."""
    keys = dict.fromkeys(key for block in blocks for key in block.keys)
    values = {key: [block.values(key) if key in block.keys else () for block in blocks] for key in keys}
    varying = [key for key, found in values.items() if len(set(found)) > 1 or len(found[0]) > 1]
    return {key: list(dict.fromkeys(v for vs in values[key] for v in vs)) for key in varying}


def _sweep_name(overrides: Sequence[Override]) -> str | None:
    """The sweep file that a line names; of several the last one counts."""
    named = [typed_value(o) for o in overrides if o.key_or_group == SWEEP]
    return single_choice(SWEEP, named[-1]) if named else None


def _values_by_key(overrides: Sequence[Override]) -> dict[str, list[str]]:
    """Every key with its values in order; a key that is given twice counts as Hydra does it: the last one wins."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        choices = values_of(override)
        if not choices:
            rule = "the axis has no values, so the sweep would have no runs"
            raise ConfigError(override.key_or_group, typed_value(override), rule, "Give it at least one value.")
        if override.key_or_group.partition(".")[0] == "launch" and len(choices) > 1:
            rule = "how runs are launched is the same for all runs of a sweep"
            listed = f"A list is quoted twice: {override.key_or_group}='\"{typed_value(override)}\"'."
            fix = listed if "." in override.key_or_group else "Choose one."
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
    return texts(override) if override.is_sweep_override() else [typed_value(override)]


def typed_value(override: Override) -> str:
    """What was typed after the equals sign."""
    return (override.input_line or "").partition("=")[2]
