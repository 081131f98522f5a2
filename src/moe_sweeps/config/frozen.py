"""A run as plain data, as config.yaml freezes it, and back, whatever the age of the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from moe_sweeps.config.schema import GROUP_TYPES, KIND_WHERE_ABSENT, REGISTRY, RunConfig, validate
from moe_sweeps.errors import ConfigError, first_line


def to_dict(run: RunConfig) -> dict[str, Any]:
    """A run as plain data: what config.yaml freezes."""
    content = _plain(run)
    assert isinstance(content, dict)
    return content


def _plain(value: object) -> object:
    """What OmegaConf makes of it; `OmegaConf.structured` checks types again, and takes most of a submission's time."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def from_dict(content: dict[str, Any]) -> RunConfig:
    """The run that a frozen config.yaml holds. Fields that are younger than the file take their neutral value, and
    renamed ones are read under their former name, too.

    Raises:
        ConfigError: an unknown kind, key or value.
    """
    plain = {k: v for k, v in content.items() if k not in GROUP_TYPES}
    absent = {group: {"kind": kind} for group, kind in KIND_WHERE_ABSENT.items() if group not in content}
    groups = {group: _component_from_dict(group, (content | absent).get(group, {})) for group in GROUP_TYPES}
    base = OmegaConf.structured(RunConfig(**groups))
    run = OmegaConf.to_object(OmegaConf.merge(base, _brought_up_to_date(RunConfig, plain)))
    assert isinstance(run, RunConfig)
    return validate(run)


def _component_from_dict(group: str, content: dict[str, Any]) -> Any:
    kind = content.get("kind")
    if kind not in REGISTRY[group]:
        valid = ", ".join(REGISTRY[group])
        raise ConfigError(f"{group}.kind", kind, f"the kinds are {valid}", "The folder was written by other code.")
    cls = REGISTRY[group][str(kind)]
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), _brought_up_to_date(cls, content)))
    except OmegaConfBaseException as error:
        raise ConfigError(group, kind, first_line(error), "The folder was written by other code.") from error


def _brought_up_to_date(cls: type, content: dict[str, Any]) -> dict[str, Any]:
    neutral = {f.name: f.metadata["neutral"] for f in dataclasses.fields(cls) if "neutral" in f.metadata}
    now = {f.metadata["was"]: f.name for f in dataclasses.fields(cls) if "was" in f.metadata}
    gone: frozenset[str] = getattr(cls, "GONE", frozenset())
    return neutral | {now.get(key, key): value for key, value in content.items() if key not in gone}
