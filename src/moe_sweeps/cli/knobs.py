"""Every key of the config with its default, its bounds and its comment, read from the classes that declare them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeGuard

from moe_sweeps.config.registry import REGISTRY, SIGNS, Component
from moe_sweeps.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Knob:
    """One key. `options` are those of its group that have it, empty if all do."""

    key: str
    options: tuple[str, ...]
    default: str
    values: str
    meaning: str


def knobs(word: str = "") -> list[Knob]:
    """All keys in the order of the config, or those with `word` in key or meaning."""
    groups = [field.name for field in dataclasses.fields(RunConfig) if field.name in REGISTRY]
    every = [knob for group in groups for knob in _of_group(group, REGISTRY[group])]
    every += [_knob(field.name, RunConfig, field, ()) for field in _single_fields()]
    return [knob for knob in every if word.lower() in f"{knob.key} {knob.meaning}".lower()]


def markdown() -> str:
    """docs/knobs.md."""
    rows = [f"| {' | '.join(_cell(text) for text in _texts(knob))} |" for knob in knobs()]
    return "\n".join([_HEAD, "| key | default | values | what it does |", "|---|---|---|---|", *rows]) + "\n"


_HEAD = """# Every key

Written by `moe-sweeps knobs --markdown > docs/knobs.md`; a test holds it to the code. `scale` sets other defaults for
some keys of `model`, `experts`, `optimizer`, `schedule` and `trainer` (conf/scale/); `python train.py --cfg` shows the
values that a line has. In brackets: the options of the group that have the key, where not all do.
"""


def _texts(knob: Knob) -> tuple[str, str, str, str]:
    only = f" ({', '.join(knob.options)})" if knob.options else ""
    return f"`{knob.key}`{only}", f"`{knob.default}`", knob.values, knob.meaning


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _of_group(group: str, options: dict[str, type[Component]]) -> Iterator[Knob]:
    names = dict.fromkeys(f.name for cls in options.values() for f in dataclasses.fields(cls) if f.name != "kind")
    for name in names:
        having = {kind: cls for kind, cls in options.items() if name in cls.__dataclass_fields__}
        cls = next(iter(having.values()))
        yield _knob(
            f"{group}.{name}",
            cls,
            cls.__dataclass_fields__[name],
            tuple(having) if len(having) < len(options) else (),
        )


def _single_fields() -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(RunConfig) if f.name not in REGISTRY and f.name != "paths"]


def _knob(key: str, cls: type, field: dataclasses.Field[Any], options: tuple[str, ...]) -> Knob:
    meaning = [_comment(cls, field.name)]
    if isinstance(field.default, Enum):
        meaning += [f"{name}: {text}" for name, text in _comments(type(field.default)).items() if text]
    return Knob(key, options, _default(field), _values(field), "; ".join(filter(None, meaning)))


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


def _comment(cls: type, name: str) -> str:
    """What stands behind the field, or in the lines above it, in the class that declares it last."""
    for base in cls.__mro__:
        found = _comments(base).get(name) if dataclasses.is_dataclass(base) else None
        if found is not None:
            return found
    return ""


@cache
def _comments(cls: type) -> dict[str, str]:
    """Field or member -> its comment, "" for one without; only of those that `cls` itself declares."""
    try:
        source = inspect.getsource(cls)
    except OSError:  # an enumeration that was made of a list of names
        return {}
    body = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(body, ast.ClassDef)
    said = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    lines = source.splitlines()
    found = {}
    for node in body.body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if _is_member(node) else None
        if isinstance(target, ast.Name):
            above = _above(node.lineno, lines, said)
            behind = [said[n] for n in range(node.lineno, (node.end_lineno or node.lineno) + 1) if n in said]
            found[target.id] = " ".join([*above, *behind])
    return found


def _is_member(node: ast.stmt) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign)


def _above(line: int, lines: list[str], said: dict[int, str]) -> list[str]:
    """The comment lines right above `line`, which counts from 1."""
    above: list[str] = []
    while line - 1 in said and lines[line - 2].lstrip().startswith("#"):
        line -= 1
        above.insert(0, said[line])
    return above
