"""Hydra's grammar of values, with ranges that are exact: what was typed counts, not its nearest binary fraction."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hydra._internal.grammar import grammar_functions as hydras
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString, RangeSweep, Sweep, Transformer
from hydra.errors import HydraException

Number = int | float
# An axis of more values is a typing error, such as a step that is a thousandth of the intended one.
MOST_VALUES = 100_000


@dataclass
class ExactRange(RangeSweep):
    """A range with its values: start + i * step before `stop`, in the decimal arithmetic of what was typed."""

    values: list[Number] = field(default_factory=list)

    def range(self) -> Any:
        return self.values


@functools.lru_cache(maxsize=65536)
def parse_value(override: str) -> Override:
    """One `key=value`, by Hydra's grammar. The result is cached and shared, so it must not be changed.

    Raises:
        HydraException: it cannot be parsed.
        ValueError: a whole number of thousands of digits.
    """
    return _parser().parse_override(override)


def texts(override: Override) -> list[str]:
    """The values that an override lists, each as it would be typed. A link `${...}` stays as it was typed."""
    return [str(text) for text in override.sweep_iterator(transformer=_text)]


def as_text(value: Any) -> str:
    """A value as it would be typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(as_text, value))}]"
    if not isinstance(value, str):
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        return text.removesuffix(".0")
    literal = value.replace("${", "\\${")
    try:
        means = parse_value(f"x={literal}").value()
    except (HydraException, ValueError):
        means = None
    return literal if means == literal else QuotedString(literal, Quote.single).with_quotes()


def holds_link(text: str) -> bool:
    """Whether a value as typed has a `${`, which OmegaConf replaces."""
    return "${" in text or "$\\{" in text


def contains_sweep(value: Any) -> bool:
    """Whether a list or a mapping contains a sweep, whose values could not be listed."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return any(isinstance(member, Sweep) or contains_sweep(member) for member in members)


def _text(value: Any) -> Any:
    return value if isinstance(value, str) and "${" in value else Transformer.str(value)


@functools.cache
def _parser() -> OverridesParser:
    parser = OverridesParser.create()
    own: dict[str, Callable[..., Any]] = {"range": exact_range, "sort": sort, "int": cast_int, "float": cast_float}
    for name, function in own.items():
        parser.functions.definitions.pop(name)
        parser.functions.register(name, function)
    return parser


# --- functions of the command line. Annotations are Any, because Hydra checks arguments by them ---


def exact_range(start: Any, stop: Any = None, step: Any = 1) -> ExactRange:
    """start, start + step, ... before `stop`; of one argument it is `stop`, and the range begins at 0."""
    if stop is None:
        start, stop = 0, start
    for bound in (start, stop, step):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise ValueError(f"a range goes from a number to a number by a number, not {bound}")
    if step == 0:
        raise ValueError("the step of a range is not 0")
    first, each = _exact(start), _exact(step)
    count = max(0, math.ceil((_exact(stop) - first) / each))
    if count > MOST_VALUES:
        raise ValueError(f"this range has {count:.0f} values, and an axis has {MOST_VALUES:,} at most")
    whole = all(isinstance(bound, int) for bound in (start, stop, step))
    kind: Callable[[Fraction], Number] = int if whole else float
    values = [kind(first + i * each) for i in builtins.range(count)]
    return ExactRange(start=start, stop=stop, step=step, values=values)


def sort(*args: Any, sweep: Any = None, list: Any = None, reverse: Any = False) -> Any:
    """The same values by size. Hydra's own shifts the ends of a range instead, which gives other values."""
    only = sweep if sweep is not None else args[0] if len(args) == 1 else None
    if isinstance(only, ExactRange):
        return dataclasses.replace(only, values=sorted(only.values, reverse=bool(reverse)))
    return hydras.sort(*args, sweep=sweep, list=list, reverse=reverse)


def cast_int(*args: Any, value: Any = None) -> Any:
    """Hydra's int(), with a range of the whole numbers between the ends."""
    return _cast_range(int, args, value) or hydras.cast_int(*args, value=value)


def cast_float(*args: Any, value: Any = None) -> Any:
    """Hydra's float(), with an exact range."""
    return _cast_range(float, args, value) or hydras.cast_float(*args, value=value)


for _function in (exact_range, sort, cast_int, cast_float):
    _function.__annotations__ = dict.fromkeys(_function.__annotations__, Any)


def _cast_range(kind: Callable[[Any], Number], args: tuple[Any, ...], value: Any) -> ExactRange | None:
    given = value if value is not None else args[0] if len(args) == 1 else None
    if not isinstance(given, ExactRange):
        return None
    cast = exact_range(kind(given.start), kind(given.stop), kind(given.step))
    cast.tags, cast.shuffle = given.tags, given.shuffle
    return cast


def _exact(number: Number) -> Fraction:
    """The decimal number that was typed: repr() gives the fewest digits that identify a float."""
    return Fraction(repr(number))


def unshuffled(override: Override) -> Override:
    """The override without shuffle(), which would give another order, and so another search, each time."""
    value = override._value
    if not isinstance(value, ChoiceSweep | RangeSweep):
        return override
    return dataclasses.replace(override, _value=dataclasses.replace(value, shuffle=False))
