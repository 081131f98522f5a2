"""What conf/ and installed packages offer: config groups, their options, and what their keys are called."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from pathlib import Path

from moe_sweeps.config import outside
from moe_sweeps.config.registry import REGISTRY, Component
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.paths import CONF


@functools.cache
def options() -> dict[str, list[str]]:
    """Every config group and its options, as found in conf/ and in the packages that bring more."""
    groups = sorted(p.name for p in conf_folder().iterdir() if p.is_dir())
    return {g: sorted({f.stem for conf in _conf_folders() for f in (conf / g).glob("*.yaml")}) for g in groups}


def option_file(group: str, option: str) -> Path:
    """Where an option is written."""
    files = (conf / group / f"{option}.yaml" for conf in _conf_folders())
    return next(filter(Path.is_file, files), conf_folder() / group / f"{option}.yaml")


def conf_folder() -> Path:
    """The repository's own options."""
    return CONF


def _conf_folders() -> tuple[Path, ...]:
    """The repository's options, then those of installed packages."""
    return conf_folder(), *outside.conf_folders()


def option_help(group: str, option: str) -> str:
    """The first comment of an option's file, which says when to use it."""
    lines = option_file(group, option).read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]
    return comments[0] if comments else ""


@functools.cache
def schema_of(group: str, option: str) -> type[Component]:
    """The config class that an option's file names as its schema."""
    found = re.search(rf"/schema/{group}/(\w+)@", option_file(group, option).read_text(encoding="utf-8"))
    if found and found.group(1) not in REGISTRY.get(group, {}):
        rule = f"its file {option_file(group, option)} names the schema {found.group(1)}, which no module registers"
        raise ConfigError(group, option, rule, f"Is the module with @component({group!r}, ...) imported?")
    return REGISTRY[group][found.group(1)] if found else Component


@functools.cache
def former_names() -> dict[str, str]:
    """Keys of the command line as they were once called -> what they are called now."""
    knobs = [(f"{g}.", f) for g, kinds in REGISTRY.items() for c in kinds.values() for f in dataclasses.fields(c)]
    knobs += [("", f) for f in dataclasses.fields(RunConfig)]
    return {prefix + old: prefix + f.name for prefix, f in knobs if (old := f.metadata.get("was"))}


def current_name(key: str) -> str:
    """What `key` is called now: itself, unless it was renamed."""
    return former_names().get(key, key)


def is_number(key: str) -> bool:
    """Whether `key` takes numbers in every option of its group, so that 0.3 and 0.30 are one value of it."""
    group, _, leaf = key.rpartition(".")
    owners: Iterable[type] = REGISTRY.get(group, {}).values() if group else [RunConfig]
    fields = [f for owner in owners for f in dataclasses.fields(owner) if f.name == leaf]
    return bool(fields) and all(set(str(f.type).split(" | ")) <= {"int", "float", "None"} for f in fields)
