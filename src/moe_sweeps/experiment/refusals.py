"""What is refused of a command line, and in which words: field, value, rule, nearest valid spelling."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Set
from enum import Enum

from omegaconf import DictConfig, OmegaConf

from moe_sweeps.config.outside import problems as left_out
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.errors import ConfigError, first_line, nearest
from moe_sweeps.experiment.fast_compose import Composed
from moe_sweeps.experiment.options import options, schema_of
from moe_sweeps.experiment.overrides import Setting
from moe_sweeps.paths import TRAIN

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list[str]": "a list of texts",
    "None": "null",
}


def wrong_type(config: DictConfig, setting: Setting, error: Exception) -> ConfigError:
    """The refusal of a value that the type of its key, in `config`, does not take."""
    parent, _, leaf = setting.key.rpartition(".")
    owner = OmegaConf.get_type(OmegaConf.select(config, parent) if parent else config)
    assert owner is not None  # every node of a composed config has a schema
    annotation = {f.name: str(f.type) for f in dataclasses.fields(owner)}[leaf]
    old = OmegaConf.select(config, setting.key)
    choices = list(type(old).__members__) if isinstance(old, Enum) else _enum_names(first_line(error))
    if choices:
        close = nearest(setting.value, choices)
        fix = f"Did you mean {close}?" if close else f"Its value here would be {getattr(old, 'name', old)}."
        return ConfigError(setting.key, setting.value, f"it must be one of {', '.join(choices)}", fix)
    kinds = " or ".join(_TYPES.get(part, part) for part in annotation.split(" | "))
    here = "null" if old is None else old
    return ConfigError(setting.key, setting.value, f"it must be {kinds}", f"Its value here would be {here}.")


def _enum_names(message: str) -> list[str]:
    """The valid values in OmegaConf's enum message, `expected one of [a, b]`."""
    found = re.search(r"expected one of \[(.*)\]", message)
    return found.group(1).replace("'", "").split(", ") if found else []


def require_option(choice: Setting) -> None:
    """Raise ConfigError for an option that its group does not have."""
    valid = options()[choice.key]
    if choice.value not in valid:
        close = nearest(choice.value, valid)
        fix = f"Did you mean {choice.key}={close}?" if close else f"Choose one of {', '.join(valid)}."
        fix = " ".join(filter(None, (fix, left_out())))
        raise ConfigError(choice.key, choice.value, f"the options are {', '.join(valid)}", fix)


def no_such_key(found: Composed, setting: Setting) -> ConfigError:
    """The refusal of a key that the config `found` has not."""
    config, keys = found.config, found.keys
    group, _, leaf = setting.key.partition(".")
    owners = [f"{group}={o}" for o in options().get(group, []) if leaf in schema_of(group, o).__dataclass_fields__]
    if owners:
        rule = f"it is a key of {' or '.join(owners)}, and here {group} is of kind {config[group].kind}"
        which = owners[0] if len(owners) == 1 else "one of them"
        return ConfigError(setting.key, setting.value, rule, f"Add {which}, or leave it out.")
    everywhere = keys | {
        f"{g}.{f}" for g, kinds in REGISTRY.items() for c in kinds.values() for f in c.__dataclass_fields__
    }
    close = nearest(setting.key, everywhere | set(options())) or _same_leaf(setting.key, everywhere)
    fix = f"Did you mean {close}?" if close else f"`{TRAIN} --cfg` prints every key."
    return ConfigError(setting.key, setting.value, "there is no such key", fix)


def _same_leaf(key: str, keys: Set[str]) -> str | None:
    leaf = key.rpartition(".")[2]
    by_leaf = {k.rpartition(".")[2]: k for k in sorted(keys)}
    close = nearest(leaf, by_leaf)
    return by_leaf[close] if close else None
