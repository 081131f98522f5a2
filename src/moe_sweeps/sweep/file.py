"""Sweep files: one question each, with its source, what is expected, its seeds and its grid (docs/sweeps.md).

Scalars are read as they are written, so that `1e-3` in a file is the same setting as `1e-3` on a command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.host.reading import CONFIG_BYTES, parse_yaml, read_bytes
from moe_sweeps.paths import SWEEPS
from moe_sweeps.sweep.block import Block, linked, same_value
from moe_sweeps.sweep.expectation import Expectation, read_expectation

KEYS = ("question", "source", "table", "baseline", "seeds", "common", "grid", "expect", "all")
_MOST_DIGITS = 40  # of a seed; planning knows the largest one
REQUIRED = ("question", "source", "baseline", "grid", "expect")


@dataclass(frozen=True, slots=True)
class SweepFile:
    """The content of `sweeps/<name>.yaml`.

    `grid` is a union: every combination of every block is asked for, once with each seed. `baseline` selects the arm
    that the others are compared with. `table` names the table that the sweep fills. `in_all`: whether `decide --all`
    means it, too.
    """

    name: str
    question: str
    source: str
    table: str
    baseline: dict[str, str]
    seeds: tuple[int, ...]
    grid: tuple[Block, ...]
    expect: tuple[Expectation, ...]
    in_all: bool


def load_sweep(name: str, folder: Path = SWEEPS) -> SweepFile:
    """The sweep file of this name.

    Raises:
        ConfigError: there is no such file, or something in it is missing, misspelt or impossible.
    """
    names = sorted(p.stem for p in folder.glob("*.yaml"))
    if name not in names:
        close = nearest(name, names)
        fix = f"Did you mean sweep={close}?" if close else "Write one: sweeps/aux_coef.yaml is an example."
        raise ConfigError("sweep", name, f"the sweeps are {', '.join(names)}", fix)
    try:
        return _sweep_file(name, _read(folder / f"{name}.yaml"))
    except ConfigError as error:
        error.add_note(f"in sweeps/{name}.yaml")
        raise


def _sweep_file(name: str, content: Mapping[str, Any]) -> SweepFile:
    only_keys("sweep", content, KEYS)
    for key in REQUIRED:
        if not content.get(key):
            raise ConfigError(key, "", "a sweep file must say it", f"Add `{key}:`; docs/sweeps.md says how.")
    blocks = _blocks(content["grid"], mapping("common", content.get("common") or {}))
    found = SweepFile(
        name=name,
        question=text("question", content["question"]),
        source=text("source", content["source"]),
        table=text("table", content.get("table", name)),
        baseline=selector("baseline", content["baseline"]),
        seeds=_seeds(content.get("seeds", ["0"])),
        grid=blocks,
        expect=tuple(_expectations(content["expect"])),
        in_all=_truth("all", content.get("all", "true")),
    )
    _require_arms(found)
    return found


def _require_arms(file: SweepFile) -> None:
    """Refuse a baseline or an expectation with settings that the grid does not have."""
    combinations = [c for block in file.grid for c in block.combinations()]
    wanted = [("baseline", file.baseline)]
    wanted += [(f"expect.{e.kind}", chosen) for e in file.expect for chosen in e.selectors()]
    for field, chosen in wanted:
        if not any(matches(chosen, combination) for combination in combinations):
            _refuse_selector(field, chosen, combinations)
    axes = {key for combination in combinations for key in combination}
    for expectation in file.expect:
        if expectation.axis is not None and expectation.axis not in axes:
            _refuse_key("expect.axis", expectation.axis, axes)


def matches(chosen: Mapping[str, str], combination: Mapping[str, str]) -> bool:
    """Whether `combination` has all settings of `chosen`, or may have them once its links are resolved."""
    found = linked(combination)
    return all(k in found and ("${" in found[k] or same_value(found[k], v)) for k, v in chosen.items())


def _refuse_selector(field: str, chosen: Mapping[str, str], combinations: list[dict[str, str]]) -> NoReturn:
    values: dict[str, list[str]] = {}
    for combination in combinations:
        for key, value in combination.items():
            values.setdefault(key, []).append(value)
    for key, value in chosen.items():
        if key not in values:
            _refuse_key(field, key, values)
        if not any(same_value(value, v) for v in values[key]):
            offered = ", ".join(dict.fromkeys(values[key]))
            raise ConfigError(f"{field}: {key}", value, f"the grid has {offered}", "Use one of these values.")
    spelt = " ".join(f"{k}={v}" for k, v in chosen.items())
    raise ConfigError(field, spelt, "no combination of the grid has all these settings", "Name one that is in it.")


def _refuse_key(field: str, key: str, valid: Iterable[str]) -> NoReturn:
    close = nearest(key, valid)
    fix = f"Did you mean {close}?" if close else "Name a key of the grid."
    raise ConfigError(field, key, f"the grid has {', '.join(sorted(valid))}", fix)


# --- reading ---


class _AsWritten(yaml.BaseLoader):
    """Every scalar is the text that was written; a key that is given twice is refused."""


def _unique_mapping(loader: _AsWritten, node: yaml.MappingNode) -> dict[str, Any]:
    pairs = [(loader.construct_object(k, deep=True), loader.construct_object(v, deep=True)) for k, v in node.value]
    for position, (key, _) in enumerate(pairs):
        if not isinstance(key, str):
            raise ConfigError("sweep", key, "a key must be a text", "Write it as `key: value`.")
        if key in [k for k, _ in pairs[:position]]:
            raise ConfigError(str(key), "", "one mapping has the key twice", "Leave one of them out.")
    return dict(pairs)


_AsWritten.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = parse_yaml(read_bytes(path, CONFIG_BYTES, links=True), _AsWritten, aliases=True)
    except (OSError, ValueError, yaml.YAMLError) as error:
        rule = f"the file cannot be read ({' '.join(str(error).split())})"
        raise ConfigError("sweep", path.stem, rule, "Correct the file.") from error
    return mapping("sweep", content)


def mapping(field: str, value: Any) -> dict[str, Any]:
    """`value`, which must be a mapping.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, dict):
        raise ConfigError(field, value, "it must be a mapping", "Write it as lines of `key: value`.")
    return value


def text(field: str, value: Any) -> str:
    """`value`, which must be a text that is not empty.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, str) or not value:
        raise ConfigError(field, value, "it must be a text", "Write it as one sentence.")
    return value


def selector(field: str, value: Any) -> dict[str, str]:
    """`value`, which must be settings that select an arm.

    Raises:
        ConfigError: it is not a mapping of texts.
    """
    return {key: text(f"{field}.{key}", v) for key, v in mapping(field, value).items()}


def only_keys(field: str, content: Mapping[str, Any], valid: Iterable[str]) -> None:
    """Refuse keys that are not in `valid`.

    Raises:
        ConfigError: the first such key, with the nearest spelling.
    """
    for key in content:
        if key not in valid:
            close = nearest(key, valid)
            fix = f"Did you mean {close}?" if close else "docs/sweeps.md shows every key."
            raise ConfigError(f"{field}.{key}", content[key], f"the keys are {', '.join(valid)}", fix)


def _truth(field: str, value: Any) -> bool:
    if value not in ("true", "false"):
        raise ConfigError(field, value, "it must be true or false", f"Write {field}: false.")
    return bool(value == "true")


def _seeds(value: Any) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    if not seeds:
        raise ConfigError("seeds", "[]", "a sweep needs at least one seed", "Write seeds: [0].")
    for seed in seeds:
        if not (isinstance(seed, str) and seed.isdecimal() and len(seed) < _MOST_DIGITS):
            raise ConfigError("seeds", seed, "a seed is a whole number from 0 up", "Write seeds: [0, 1, 2].")
    if len(set(seeds)) < len(seeds):
        raise ConfigError("seeds", ", ".join(seeds), "a seed is listed twice", "List each seed once.")
    return tuple(map(int, seeds))


def _blocks(value: Any, common: Mapping[str, Any]) -> tuple[Block, ...]:
    blocks = value if isinstance(value, list) else [value]
    return tuple(Block.read({**common, **mapping("grid", block)}) for block in blocks)


def _expectations(value: Any) -> Iterable[Expectation]:
    if not isinstance(value, list):
        raise ConfigError("expect", value, "it must be a list of statements", "Begin each with `- claim:`.")
    return (read_expectation(mapping("expect", item)) for item in value)
