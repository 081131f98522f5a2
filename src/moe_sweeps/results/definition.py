"""tables/<name>.yaml: how the table of a sweep is laid out. A sweep without one gets the plain list of its arms."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.host.reading import read_bytes
from moe_sweeps.paths import TABLES
from moe_sweeps.records.numbers import CATALOGUE, METRICS, PRIMARY

MOST_BYTES = 2**16
COLUMN = re.compile(r"\w+([.-]\w+)*")
TEXTS = ("title", "setting", "axis", "recommends")
LISTS = ("columns", "metrics", "published", "figures")
FIGURES = ("curves", "difference", "heat", "turning_point", "maxvio", "forest", "tradeoff", "equal_time")


@dataclass(frozen=True, slots=True)
class GridLayout:
    """A grid of one metric each: the values of one setting in rows, of another one in columns."""

    rows: str
    columns: str
    metrics: tuple[str, ...] = (PRIMARY.column,)


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """What a table shows besides its arms. `recommends`: the question that the summary table answers from it."""

    name: str = ""
    title: str = ""
    grid: GridLayout | None = None
    columns: tuple[str, ...] = ()  # settings that get a column, if they distinguish all arms; else those that vary
    metrics: tuple[str, ...] = ()  # numbers of summary.json that are columns besides those of every table
    published: tuple[str, ...] = ()  # experiments of reference/talk_results.csv
    setting: str = ""  # how the published runs differ, beyond what they all share
    axis: str = ""  # the setting along which figures draw a line
    figures: tuple[str, ...] = ("curves", "difference", "maxvio", "tradeoff")
    recommends: str = ""


GENERIC = TableDefinition()


def load_definition(name: str, folder: Path = TABLES) -> TableDefinition:
    """The definition of the table `name`, or the generic one if there is no such file.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key, metric or figure, or a value of the wrong type.
    """
    path = folder / f"{name}.yaml"
    if Path(name).name != name or not os.path.lexists(path):  # any text may be a sweep's name
        return GENERIC
    where = f"tables/{name}.yaml"
    content = _read(path, where)
    _only(where, content, [f.name for f in fields(TableDefinition) if f.name != "name"])
    found: dict[str, Any] = {key: _text(where, key, content[key]) for key in TEXTS if key in content}
    found |= {key: _list(where, key, content[key]) for key in LISTS if key in content}
    _only(f"{where} figures", found.get("figures", ()), FIGURES)
    _require_further(f"{where} metrics", found.get("metrics", ()))
    if content.get("grid") is not None:
        found["grid"] = _grid(f"{where} grid", content["grid"], found.get("metrics", ()))
    return TableDefinition(name=name, **found)


class _Plain(yaml.SafeLoader):
    """YAML without aliases, because a few lines of them can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias; write the value out")
        return super().compose_node(parent, index)


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        content = yaml.load(read_bytes(path, MOST_BYTES, links=True).decode(), Loader=_Plain)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        rule = f"it cannot be read ({reason})"
        raise ConfigError("table", where, rule, "Mend the file, or move it away.") from error
    if not isinstance(content, dict) or not content:
        found = "nothing" if not content else type(content).__name__
        rule = f"it holds {found} instead of keys such as title"
        raise ConfigError("table", where, rule, "Mend the file, or move it away.")
    return content


def _grid(where: str, content: Any, further: tuple[str, ...]) -> GridLayout:
    if not isinstance(content, dict):
        raise _wrong(where, content, "it must be a mapping with rows and columns")
    _only(where, content, [f.name for f in fields(GridLayout)])
    for key in ("rows", "columns"):
        if key not in content:
            raise _wrong(where, ", ".join(map(str, content)), f"it has no {key}")
    metrics = _list(where, "metrics", content.get("metrics", [PRIMARY.column]))
    _only(f"{where}.metrics", metrics, [*(metric.column for metric in METRICS), *further])
    return GridLayout(_text(where, "rows", content["rows"]), _text(where, "columns", content["columns"]), metrics)


def _require_further(where: str, metrics: Iterable[str]) -> None:
    """Refuse a column that every table has, and a name that no number of summary.json can have."""
    always = {metric.column for metric in METRICS}
    for name in metrics:
        if name in always:
            others = ", ".join(metric.column for metric in CATALOGUE if metric not in METRICS)
            fix = f"Leave it out. Other numbers of summary.json may stand here, such as {others}."
            raise ConfigError(where, name, "every table has this column", fix)
        if not COLUMN.fullmatch(name):
            raise ConfigError(where, name, "no number of summary.json can be called so", "Write its key.")


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(f"{where} {key}", value, "it must be a text")
    return value


def _list(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _wrong(f"{where} {key}", value, "it must be a list of texts, such as [a, b]")
    return tuple(dict.fromkeys(value))


def _wrong(where: str, value: Any, rule: str) -> ConfigError:
    text = str(value)
    return ConfigError(where, text if len(text) < 80 else f"{text[:80]}...", rule, "Mend the file.")


def _only(where: str, content: Iterable[Any], valid: Sequence[str]) -> None:
    for key in content:
        if key not in valid:
            close = nearest(str(key), valid)
            fix = f"Did you mean {close}?" if close else "Leave it out."
            raise ConfigError(where, key, f"it must be one of {', '.join(valid)}", fix)
