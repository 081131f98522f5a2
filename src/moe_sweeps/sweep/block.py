"""One block of a grid: the product of its axes and of its zips, without what it excludes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.records.settings import same_value as same_value  # the grid's other modules take it from here

_LINK = re.compile(r"\$\{([\w.]+)\}")
Axes = dict[str, tuple[str, ...]]
SEEDS = "seed"


@dataclass(frozen=True, slots=True)
class Block:
    """`axes` are multiplied. The keys of one of `zips` advance together. A combination that matches all keys of one of
    `excludes` is left out."""

    axes: Axes
    zips: tuple[Axes, ...] = ()
    excludes: tuple[Axes, ...] = ()

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Block:
        """The block that a mapping of a sweep file describes.

        Raises:
            ConfigError: an axis without values, a zip of unequal lengths, a key that is both, an exclude with a key or
                value that the block lacks, or one that removes every combination.
        """
        axes = {key: _values(key, v) for key, v in content.items() if key not in ("zip", "exclude")}
        zips, excludes = _mappings("zip", content.get("zip")), _mappings("exclude", content.get("exclude"))
        block = cls(axes, zips, excludes)
        block._check()
        return block

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that the block sets, in order."""
        return (*self.axes, *(key for group in self.zips for key in group))

    def values(self, key: str) -> tuple[str, ...]:
        """The values of `key`, in order."""
        return next(group[key] for group in (self.axes, *self.zips) if key in group)

    def everything(self) -> Iterator[dict[str, str]]:
        """All combinations before anything is excluded, the first axis slowest."""
        factors = [[{key: value} for value in values] for key, values in self.axes.items()]
        factors += [[dict(zip(g, row, strict=True)) for row in zip(*g.values(), strict=True)] for g in self.zips]
        for parts in itertools.product(*factors):
            yield {key: value for part in parts for key, value in part.items()}

    def combinations(self) -> list[dict[str, str]]:
        """All combinations but the excluded ones."""
        return [c for c in self.everything() if not any(_covers(e, c) for e in self.excludes)]

    def with_values(self, key: str, values: Sequence[str]) -> Block:
        """The block with other values for `key`, or with `key` as a further axis.

        Raises:
            ConfigError: `key` is zipped, and there are neither as many values as before nor one.
        """
        new = tuple(values)
        group = next((g for g in self.zips if key in g), None)
        if group is None:
            return Block({**self.axes, key: new}, self.zips, self.excludes)
        if len(new) == len(group[key]):
            return Block(self.axes, tuple({**g, key: new} if g is group else g for g in self.zips), self.excludes)
        if len(new) > 1:
            rule = f"it is zipped with {', '.join(k for k in group if k != key)}, which has {len(group[key])} values"
            raise ConfigError(key, ",".join(new), rule, f"Give it {len(group[key])} values or one.")
        rest = {k: v for k, v in group.items() if k != key}
        zips = tuple(rest if g is group else g for g in self.zips)
        return Block({**self.axes, key: new}, tuple(g for g in zips if g), self.excludes)

    def respelt(self, spellings: Mapping[str, Mapping[str, str]]) -> Block:
        """The block with the values of some keys spelt otherwise: key -> value -> its spelling."""

        def spelt(axes: Axes) -> Axes:
            return {k: tuple(spellings.get(k, {}).get(v, v) for v in values) for k, values in axes.items()}

        return Block(spelt(self.axes), tuple(map(spelt, self.zips)), self.excludes)

    def _check(self) -> None:
        for key in self.keys:
            if self.keys.count(key) > 1:
                raise ConfigError(key, "", "one block of the grid has it twice", "Leave one of them out.")
        if SEEDS in self.keys:
            raise ConfigError(SEEDS, "", "seeds are replicates, not an axis of the grid", "Write `seeds:` at the top.")
        for group in self.zips:
            _require_equal_lengths(group)
        for exclude in self.excludes:
            self._check_exclude(exclude)
        if not self.combinations():
            rule = "it removes every combination of its block"
            raise ConfigError("exclude", _spell(self.excludes), rule, "Leave something to run.")

    def _check_exclude(self, exclude: Axes) -> None:
        for key, values in exclude.items():
            if key not in self.keys:
                close = nearest(key, self.keys)
                fix = f"Did you mean {close}?" if close else f"The keys of its block are {', '.join(self.keys)}."
                raise ConfigError("exclude", key, "its block of the grid has no such key", fix)
            if any("${" in v for v in self.values(key)):
                continue  # its values are known when the links are resolved
            for value in values:
                if not any(same_value(value, v) for v in self.values(key)):
                    rule = f"{key} has the values {', '.join(self.values(key))} there, so it excludes nothing"
                    raise ConfigError(f"exclude: {key}", value, rule, "Use one of these values.")


def linked(combination: Mapping[str, str]) -> dict[str, str]:
    """The combination with each `${key}` replaced by its own value of that key; links to other keys are kept."""
    found = dict(combination)
    for _ in combination:  # a link may point to a link
        found = {key: _with_links(value, found) for key, value in found.items()}
    return found


def _with_links(value: str, combination: Mapping[str, str]) -> str:
    return _LINK.sub(lambda link: combination.get(link[1], link[0]), value) if "${" in value else value


def _covers(exclude: Axes, found: Mapping[str, str]) -> bool:
    combination = linked(found)
    return all(k in combination and any(same_value(combination[k], v) for v in vs) for k, vs in exclude.items())


def _values(key: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        rule = "the axis has no values, so the sweep would have no runs"
        raise ConfigError(key, "[]", rule, "Give it at least one value, or leave it out.")
    for one in values:
        if not isinstance(one, str) or not one:
            raise ConfigError(key, one, "a value is a number, a word, true, false or null", "Write one value an item.")
    return tuple(values)


def _mappings(field: str, value: Any) -> tuple[Axes, ...]:
    items = [] if value is None else value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, dict) or not item:
            raise ConfigError(field, item, "it must be a mapping of keys to values", f"Write `{field}: {{key: ...}}`.")
    return tuple({key: _values(key, v) for key, v in item.items()} for item in items)


def _require_equal_lengths(group: Axes) -> None:
    if len({len(values) for values in group.values()}) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in group.items())
        raise ConfigError("zip", lengths, "keys that advance together need equally many values", "Make them equal.")


def _spell(excludes: Sequence[Axes]) -> str:
    return "; ".join(" ".join(f"{k}={','.join(v)}" for k, v in e.items()) for e in excludes)
