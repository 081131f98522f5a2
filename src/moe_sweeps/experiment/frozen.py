"""A run as plain data, as config.yaml freezes it, and back, also from files of older versions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from moe_sweeps.errors import ConfigError, first_line
from moe_sweeps.experiment.schema import GROUP_TYPES, KIND_WHERE_ABSENT, REGISTRY, RunConfig, validate

_BEFORE_A_LINK = re.compile(r"(\\*)\$\{")  # backslashes count in OmegaConf's escapes


def to_dict(run: RunConfig) -> dict[str, Any]:
    """A run as plain data: what config.yaml freezes."""
    content = plain(run)
    assert isinstance(content, dict)
    return content


def plain(value: object) -> object:
    """What `OmegaConf.to_container` gives, without a second check of types, which took most of a submission's time."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def from_dict(content: dict[str, Any]) -> RunConfig:
    """The run that a frozen config.yaml holds. Fields that are younger than the file take their neutral value, and
    renamed ones are read under their former name, too.

    Raises:
        ConfigError: an unknown kind, key or value.
    """
    single = {k: v for k, v in content.items() if k not in GROUP_TYPES}
    absent = {group: {"kind": kind} for group, kind in KIND_WHERE_ABSENT.items() if group not in content}
    groups = {group: _component_from_dict(group, (content | absent).get(group, {})) for group in GROUP_TYPES}
    base = OmegaConf.structured(RunConfig(**{group: type(config)() for group, config in groups.items()}))
    try:
        run = OmegaConf.to_object(OmegaConf.merge(base, _literal(_brought_up_to_date(RunConfig, single))))
    except OmegaConfBaseException as error:
        raise _unreadable(error, "", single) from error
    assert isinstance(run, RunConfig)
    return validate(dataclasses.replace(run, **groups))


def _component_from_dict(group: str, content: Any) -> Any:
    if not isinstance(content, dict):
        raise ConfigError(group, content, "a group is a mapping of settings", "The folder is damaged.")
    kind = content.get("kind")
    if kind not in REGISTRY[group]:
        valid = ", ".join(REGISTRY[group])
        raise ConfigError(f"{group}.kind", kind, f"the kinds are {valid}", "The folder was written by other code.")
    cls = REGISTRY[group][str(kind)]
    try:
        known = _literal(_brought_up_to_date(cls, content))
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), known))
    except OmegaConfBaseException as error:
        raise _unreadable(error, f"{group}.", content) from error


def _literal(value: Any) -> Any:
    """A value with its links escaped: a frozen config means the same in every environment that reads it."""
    if isinstance(value, dict):
        return {key: _literal(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_literal(one) for one in value]
    return _BEFORE_A_LINK.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def _unreadable(error: OmegaConfBaseException, prefix: str, content: Mapping[str, Any]) -> ConfigError:
    links = [key for key, value in content.items() if isinstance(value, str) and "${" in value]
    if links:
        rule = "it was frozen with a link, which each worker would resolve in its own environment"
        fix = "Type the line again, which freezes what it leads to, and remove this folder."
        return ConfigError(f"{prefix}{links[0]}", content[links[0]], rule, fix)
    key, value = (getattr(error, "full_key", None) or "kind"), content.get("kind")
    return ConfigError(
        prefix + key, content.get(key, value), first_line(error), "The folder was written by other code."
    )


def _brought_up_to_date(cls: type, content: dict[str, Any]) -> dict[str, Any]:
    neutral = {f.name: f.metadata["neutral"] for f in dataclasses.fields(cls) if "neutral" in f.metadata}
    now = {f.metadata["was"]: f.name for f in dataclasses.fields(cls) if "was" in f.metadata}
    gone: frozenset[str] = getattr(cls, "GONE", frozenset())
    return neutral | {now.get(key, key): value for key, value in content.items() if key not in gone}
