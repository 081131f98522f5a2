"""Every key of the config with its default, its values and its documentation, as the classes declare them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.groups import PathsConfig
from moe_sweeps.config.outside import owner
from moe_sweeps.config.registry import REGISTRY, SIGNS, Component, doc_of
from moe_sweeps.experiment.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Knob:
    """One key, as `options` of its group declare it; empty if all do, and alike."""

    key: str
    options: tuple[str, ...]
    default: str
    values: str
    meaning: str


def knobs(word: str = "") -> list[Knob]:
    """All keys in the order of the config, or those with `word` in key or meaning."""
    every = _all_of({group: REGISTRY[group] for group in _groups()})
    return [knob for knob in every if word.lower() in f"{knob.key} {knob.meaning}".lower()]


def _all_of(registry: Mapping[str, dict[str, type[Component]]]) -> list[Knob]:
    found = [knob for group, kinds in registry.items() for knob in _of_group(group, kinds)]
    return [*found, *_single_knobs()]


def _groups() -> list[str]:
    return [field.name for field in dataclasses.fields(RunConfig) if field.name in REGISTRY]


def markdown(kinds: Mapping[str, Sequence[str]] | None = None) -> str:
    """docs/knobs.md, of these kinds of each group; by default of all that the repository itself has."""
    covered = kinds or own_kinds()
    registry = {group: {kind: REGISTRY[group][kind] for kind in names} for group, names in covered.items()}
    rows = [f"| {' | '.join(_cell(text) for text in _texts(knob))} |" for knob in _all_of(registry)]
    listed = [f"- `{group}`: {', '.join(names)}" for group, names in covered.items()]
    table = ["| key | default | values | what it does |", "|---|---|---|---|", *rows]
    return "\n".join([_HEAD, *listed, "", *table]) + "\n"


def own_kinds() -> dict[str, list[str]]:
    """The kinds of each group that the repository itself has, without those of installed packages."""
    return {group: [kind for kind in REGISTRY[group] if owner(group, kind) is None] for group in _groups()}


def kinds_on(page: str) -> dict[str, list[str]]:
    """The kinds of which a page that `markdown` wrote has the keys."""
    found = re.findall(r"^- `(\w+)`: (.*)$", page, re.MULTILINE)
    return {group: names.split(", ") for group, names in found}


UNDOCUMENTED = "not documented: its package declares the knob without doc=..."
_HEAD = """# Every key

Written by `make format` (`moe-sweeps knobs --markdown`); a test holds it to the code of the kinds listed here. `scale`
sets other defaults for some keys of `model`, `experts`, `optimizer`, `schedule` and `trainer` (conf/scale/);
`python train.py --cfg` shows the values that a line has. In brackets: the kinds of the group that a row is about, where
it is not all of them.
"""


def _texts(knob: Knob) -> tuple[str, str, str, str]:
    only = f" ({', '.join(knob.options)})" if knob.options else ""
    return f"`{knob.key}`{only}", f"`{knob.default}`", knob.values, knob.meaning


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _of_group(group: str, options: dict[str, type[Component]]) -> Iterator[Knob]:
    """The keys of a group. Where its kinds declare one differently, each declaration is an entry of its own."""
    names = dict.fromkeys(f.name for cls in options.values() for f in dataclasses.fields(cls) if f.name != "kind")
    for name in names:
        declared: dict[tuple[str, str, str], list[str]] = {}
        for kind, cls in options.items():
            if name in cls.__dataclass_fields__:
                declared.setdefault(_declared(cls, name), []).append(kind)
        for texts, kinds in declared.items():
            yield Knob(f"{group}.{name}", tuple(kinds) if len(kinds) < len(options) else (), *texts)


def _single_knobs() -> Iterator[Knob]:
    for field in dataclasses.fields(RunConfig):
        if field.name not in REGISTRY and field.name != "paths":
            yield Knob(field.name, (), *_declared(RunConfig, field.name))
    for field in dataclasses.fields(PathsConfig):
        yield Knob(f"paths.{field.name}", (), *_declared(PathsConfig, field.name))


def _declared(cls: type, name: str) -> tuple[str, str, str]:
    """Default, values and meaning of a field."""
    field = {f.name: f for f in dataclasses.fields(cls)}[name]
    members = type(field.default) if isinstance(field.default, Choice) else ()
    said = [doc_of(cls, name) or UNDOCUMENTED, *(f"{one.name}: {one.doc}" for one in members if one.doc)]
    return _default(field), _values(field), "; ".join(said)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return str(field.default_factory())
    if field.default is dataclasses.MISSING:
        return "to be given"
    return _plain(field.default)


def _plain(value: Any) -> str:
    if isinstance(value, Enum):
        return value.name
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _values(field: dataclasses.Field[Any]) -> str:
    """Type and bounds, or the choices."""
    if isinstance(field.default, Enum):
        return ", ".join(type(field.default).__members__)
    bounds = " and ".join(f"{SIGNS[k][0]} {v}" for k, v in field.metadata.get("bounds", {}).items())
    kind = str(field.type).replace("None", "null")
    return f"{kind}, {bounds}" if bounds else kind
