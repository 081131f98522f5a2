"""The space of a search: what is searched, what is fixed, and the seeds that every trial is trained with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from moe_sweeps.config.grammar import unshuffled
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.compose import single_choice
from moe_sweeps.experiment.identity import SEED_KEYS
from moe_sweeps.experiment.options import current_name, is_number, options
from moe_sweeps.experiment.overrides import Setting, parse
from moe_sweeps.sweep.block import SEEDS
from moe_sweeps.sweep.grid import SWEEP, first_spellings, typed_value, values_of

Param = float | int | str
DIGITS = 4  # of a suggested number, in its run's config; Optuna keeps all of them
SEARCH = "search"


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from `low` to `high`, both included. `log`: uniform in the logarithm; `whole`: integers only."""

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
        """Both ends, as settings."""
        return self.text(self.low), self.text(self.high)

    def __str__(self) -> str:
        kind = ", whole numbers" if self.whole else ""
        return f"{_end(self.low)} to {_end(self.high)}{kind}{', log scale' if self.log else ''}"


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
        """All values."""
        return self.values

    def __str__(self) -> str:
        return ", ".join(self.values)


Axis = Interval | Choices


@dataclass(frozen=True, slots=True)
class Space:
    """What is searched. `constants`: settings that all trials share; `search`: settings of the search itself."""

    constants: dict[str, str]
    axes: dict[str, Axis]
    seeds: tuple[str, ...]
    search: dict[str, str]

    def settings(self, point: Mapping[str, str], seed: str) -> tuple[Setting, ...]:
        """The settings of the run at a point with a seed."""
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
        """All combinations of choices and of interval ends. If they are more than `most`: the first one, and those that
        differ from it in one axis."""
        corners = {key: axis.corners for key, axis in self.axes.items()}
        if math.prod(map(len, corners.values())) <= most:
            for values in itertools.product(*corners.values()):
                yield dict(zip(corners, values, strict=True))
            return
        first = {key: values[0] for key, values in corners.items()}
        yield first
        yield from ({**first, key: value} for key, values in corners.items() for value in values[1:])


def asks_for_search(arguments: Sequence[str]) -> bool:
    """Whether a command line chooses a search.

    Raises:
        ConfigError: an override that cannot be parsed.
    """
    chosen = [typed_value(o) for o in parse(arguments) if o.key_or_group == SEARCH]
    return bool(chosen) and single_choice(SEARCH, chosen[-1]) != "none"


def read_space(arguments: Sequence[str]) -> Space:
    """The space that a command line describes: every key with several values or an interval is an axis.

    Raises:
        ConfigError: an override that cannot be parsed, an impossible interval, a seed among the axes, no axis.
    """
    overrides = parse(arguments)
    for named in (o for o in overrides if o.key_or_group == SWEEP):
        rule = "a sweep file lists its combinations, and a search chooses its own"
        raise ConfigError(SWEEP, typed_value(named), rule, "Leave sweep=... or search=... out.")
    space = Space({}, {}, ("0",), {})
    seeds = space.seeds
    for override in map(unshuffled, overrides):
        key = current_name(override.key_or_group)
        if key in SEED_KEYS:
            _require_replicates(key, override)
        if key == SEEDS:
            seeds = _distinct(key, override)
            continue
        axis = _axis(key, override)
        fixed = space.search if key.partition(".")[0] == SEARCH else space.constants
        for kept in (space.axes, fixed):
            kept.pop(key, None)  # given twice, the last one counts
        if isinstance(axis, Choices) and len(axis.values) == 1:
            fixed[key] = axis.values[0]
        elif fixed is space.search:
            rule = "a search has one value of it"
            raise ConfigError(key, typed_value(override), rule, "Run one search for each value.")
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
        fix = "List the seeds that every trial is trained with: seed=0,1,2." if key == SEEDS else "Give it one value."
        raise ConfigError(key, typed_value(override), rule, fix)


def _axis(key: str, override: Override) -> Axis:
    value = override.value()
    if isinstance(value, IntervalSweep):
        if key in options():
            rule = "an interval is of numbers, and this key chooses an option"
            raise ConfigError(key, typed_value(override), rule, f"List some of {', '.join(options()[key])}.")
        return _interval(key, value, typed_value(override))
    return Choices(_distinct(key, override), ordered=isinstance(value, RangeSweep))


def _distinct(key: str, override: Override) -> tuple[str, ...]:
    """The values of a key, each once however it is spelt: a number listed twice would be drawn twice as often."""
    values = values_of(override)
    return tuple(dict.fromkeys(first_spellings(values).values() if is_number(key) else values))


def _interval(key: str, value: IntervalSweep, typed: str) -> Interval:
    assert value.start is not None
    assert value.end is not None
    low, high, log = value.start, value.end, "log" in value.tags
    whole = "int" in value.tags or (isinstance(low, int) and isinstance(high, int))
    unknown = value.tags - {"log", "int"}
    if unknown:
        raise ConfigError(key, typed, "the tags of an interval are log and int", f"Leave {', '.join(unknown)} out.")
    if whole and math.isfinite(low) and math.isfinite(high):
        low, high = math.ceil(low), math.floor(high)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        rule = "an interval goes from a number to a larger one"
        rule += ", and there are no two whole numbers between these" if value.start < value.end else ""
        raise ConfigError(key, typed, rule, "Write interval(low,high).")
    if log and low <= 0:
        raise ConfigError(key, typed, "on a log scale numbers are above 0", "Raise the lower end, or leave log out.")
    return Interval(low, high, log, whole)


def _end(number: float) -> str:
    """An end of an interval, with all digits where six are not enough."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def _length(axis: Axis) -> int | None:
    if isinstance(axis, Choices):
        return len(axis.values)
    return int(axis.high) - int(axis.low) + 1 if axis.whole else None
