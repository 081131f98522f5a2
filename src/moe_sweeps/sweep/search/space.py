"""The space of a search: what is searched, what is fixed, and the seeds that every trial is trained with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from moe_sweeps.config.compose import Setting, current_name, options, parse
from moe_sweeps.errors import ConfigError
from moe_sweeps.identity import SEED_KEYS
from moe_sweeps.sweep.block import SEEDS
from moe_sweeps.sweep.grid import typed_value, values_of

Param = float | int | str
DIGITS = 4  # of a suggested number, in its run's config; Optuna keeps all of them
SEARCH = "search"


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from `low` to `high`, both included; with `log` as likely in each decade, with `whole` integers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def text(self, param: Param) -> str:
        """A suggested number as it stands in the run's config."""
        if self.whole:
            return str(int(param))
        rounded = float(f"{float(param):.{DIGITS}g}")
        return repr(min(max(rounded, self.low), self.high))

    @property
    def corners(self) -> tuple[str, ...]:
        return self.text(self.low), self.text(self.high)

    def __str__(self) -> str:
        kind = ", whole numbers" if self.whole else ""
        return f"{self.low:g} to {self.high:g}{kind}{', log scale' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Choices:
    """One of these values. `ordered`: neighbours are alike, as in range(1,9)."""

    values: tuple[str, ...]
    ordered: bool = False

    def text(self, param: Param) -> str:
        """The value that a suggestion means: itself, or its place in the order."""
        return self.values[int(param)] if self.ordered else str(param)

    @property
    def corners(self) -> tuple[str, ...]:
        return self.values

    def __str__(self) -> str:
        return ", ".join(self.values)


Axis = Interval | Choices


@dataclass(frozen=True, slots=True)
class Space:
    """`constants` are the same in all trials, those of the search itself left out; `search` holds the latter."""

    constants: dict[str, str]
    axes: dict[str, Axis]
    seeds: tuple[str, ...]
    search: dict[str, str]

    def settings(self, point: Mapping[str, str], seed: str) -> tuple[Setting, ...]:
        """The command line of a run."""
        return tuple(Setting(k, v) for k, v in {**self.constants, **point, SEEDS: seed}.items())

    def point(self, params: Mapping[str, Param]) -> dict[str, str]:
        """Suggested parameters as settings."""
        return {key: axis.text(params[key]) for key, axis in self.axes.items()}

    @property
    def size(self) -> int | None:
        """How many points it has; None where a number varies continuously."""
        lengths = [_length(axis) for axis in self.axes.values()]
        return None if None in lengths else math.prod(n for n in lengths if n is not None)

    def corners(self, most: int) -> Iterator[dict[str, str]]:
        """All combinations of choices and of ends of intervals; of more than `most` those that differ from the first in
        one axis."""
        corners = {key: axis.corners for key, axis in self.axes.items()}
        if math.prod(map(len, corners.values())) <= most:
            for values in itertools.product(*corners.values()):
                yield dict(zip(corners, values, strict=True))
            return
        first = {key: values[0] for key, values in corners.items()}
        yield first
        yield from ({**first, key: value} for key, values in corners.items() for value in values[1:])


def asks_for_search(arguments: Sequence[str]) -> bool:
    """Whether a command line chooses a search."""
    chosen = [a.partition("=")[2] for a in arguments if a.startswith(f"{SEARCH}=")]
    return bool(chosen) and chosen[-1] != "none"


def read_space(arguments: Sequence[str]) -> Space:
    """The space that a command line describes: every key with several values or an interval is an axis.

    Raises:
        ConfigError: an override that cannot be parsed, an interval that cannot be, a seed among the axes, no axis.
    """
    named = next((a for a in arguments if a.startswith("sweep=")), None)
    if named:
        rule = "a sweep file lists its combinations, and a search chooses its own"
        raise ConfigError("sweep", named.partition("=")[2], rule, "Leave sweep=... or search=... out.")
    space = Space({}, {}, ("0",), {})
    seeds = space.seeds
    for override in parse(arguments):
        key = current_name(override.key_or_group)
        if key in SEED_KEYS:
            _require_replicates(key, override)
        if key == SEEDS:
            seeds = tuple(dict.fromkeys(values_of(override)))
            continue
        axis = _axis(key, override)
        fixed = space.search if key.partition(".")[0] == SEARCH else space.constants
        for kept in (space.axes, fixed):
            kept.pop(key, None)  # given twice, the last one counts
        if isinstance(axis, Choices) and len(axis.values) == 1:
            fixed[key] = axis.values[0]
        elif fixed is space.search:
            rule = "one search has one of it"
            raise ConfigError(key, typed_value(override), rule, "Type a line for each.")
        else:
            space.axes[key] = axis
    if not space.axes:
        fix = "Give a key several values or an interval: optimizer.base_lr='tag(log,interval(1e-4,1e-2))'."
        raise ConfigError(SEARCH, space.search.get(SEARCH, ""), "there is nothing to search", fix)
    return Space(space.constants, dict(sorted(space.axes.items())), seeds, space.search)


def _require_replicates(key: str, override: Override) -> None:
    is_interval = isinstance(override.value(), IntervalSweep)
    if is_interval or (key != SEEDS and override.is_sweep_override()):
        rule = "seeds are replicates, never something to search for: the best seed is luck"
        fix = "List those that every trial is trained with: seed=0,1,2." if key == SEEDS else "Give it one value."
        raise ConfigError(key, typed_value(override), rule, fix)


def _axis(key: str, override: Override) -> Axis:
    value = override.value()
    if isinstance(value, IntervalSweep):
        if key in options():
            rule = "an interval has numbers, and this is a choice of options"
            raise ConfigError(key, typed_value(override), rule, f"List some of {', '.join(options()[key])}.")
        return _interval(key, value, typed_value(override))
    return Choices(tuple(dict.fromkeys(values_of(override))), ordered=isinstance(value, RangeSweep))


def _interval(key: str, value: IntervalSweep, typed: str) -> Interval:
    assert value.start is not None
    assert value.end is not None
    low, high, log = value.start, value.end, "log" in value.tags
    whole = "int" in value.tags or (isinstance(low, int) and isinstance(high, int))
    unknown = value.tags - {"log", "int"}
    if unknown:
        raise ConfigError(key, typed, "the tags of an interval are log and int", f"Leave {', '.join(unknown)} out.")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(key, typed, "an interval goes from a number to a larger one", "Write interval(low,high).")
    if log and low <= 0:
        raise ConfigError(key, typed, "on a log scale numbers are above 0", "Raise the lower end, or leave log out.")
    return Interval(low, high, log, whole)


def _length(axis: Axis) -> int | None:
    if isinstance(axis, Choices):
        return len(axis.values)
    return int(axis.high) - int(axis.low) + 1 if axis.whole else None
