"""From a command line to a validated RunConfig: Hydra composes, the schemas check types, `validate` checks the rules.

Every refusal is a ConfigError that names the field, the value, the rule and the nearest valid spelling.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from moe_sweeps.config.groups import PathsConfig
from moe_sweeps.config.registry import Component
from moe_sweeps.config.schema import GROUP_TYPES, REGISTRY, RunConfig, validate
from moe_sweeps.errors import ConfigError, first_line, nearest
from moe_sweeps.keys import HIDDEN, has_key
from moe_sweeps.paths import CONF

# Groups whose files set values all over the config (`# @package _global_`) instead of filling a key of their own.
GLOBAL_GROUPS = ("scale", "compat")
# What the folders in conf/config.yaml follow; it may change while a process lives.
PATH_VARIABLES = ("MOE_SWEEPS_RUNS", "MOE_SWEEPS_DATA", "MOE_SWEEPS_REPORTS")


@dataclass(frozen=True, slots=True)
class Setting:
    """One `key=value` of the command line."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


def compose(settings: Sequence[Setting]) -> RunConfig:
    """The run that `settings` describe.

    Raises:
        ConfigError: an unknown key or option, a wrong type, a broken rule.
    """
    settings = [Setting(current_name(s.key), s.value) for s in settings]
    choices = tuple(s for s in settings if s.key in options())
    for choice in choices:
        _require_option(choice)
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        if setting.key not in options():
            owner, _, leaf = setting.key.rpartition(".")
            changes.setdefault(owner, {})[leaf] = _typed_value(_relevant(owner, choices), setting)
    return validate(_assemble(choices, changes))


def parse(arguments: Sequence[str]) -> list[Override]:
    """Parse command-line overrides by Hydra's grammar, and check the keys of each.

    Raises:
        ConfigError: not an override, or a key that no config has.
    """
    parsed = []
    for argument in arguments:
        _require_no_key(argument)
        if "=" not in argument and not argument.startswith("~"):
            groups = [f"{group}={argument}" for group, names in options().items() if argument in names]
            fix = f"Did you mean {' or '.join(groups)}?" if groups else "See python train.py --help."
            raise ConfigError("the argument", argument, "it is not key=value", fix)
        try:
            parsed.append(OverridesParser.create().parse_override(argument))
        except (OverrideParseException, HydraException) as error:
            fix = "Overrides are written key=value, sweeps key=value1,value2 (with -m)."
            rule = f"it cannot be parsed ({first_line(error)})"
            raise ConfigError(*(argument.partition("=")[::2]), rule, fix) from error
        _require_plain(parsed[-1])
    return parsed


@functools.cache
def options() -> dict[str, list[str]]:
    """Every config group and its options, as found in conf/."""
    folders = sorted(p for p in CONF.iterdir() if p.is_dir())
    return {folder.name: sorted(f.stem for f in folder.glob("*.yaml")) for folder in folders}


def option_file(group: str, option: str) -> Path:
    """Where an option is written."""
    return CONF / group / f"{option}.yaml"


def option_help(group: str, option: str) -> str:
    """The first comment of an option's file, which says when to use it."""
    lines = option_file(group, option).read_text().splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]
    return comments[0] if comments else ""


@functools.cache
def former_names() -> dict[str, str]:
    """Keys of the command line as they were once called -> what they are called now."""
    knobs = [(f"{g}.", f) for g, kinds in REGISTRY.items() for c in kinds.values() for f in dataclasses.fields(c)]
    knobs += [("", f) for f in dataclasses.fields(RunConfig)]
    return {prefix + old: prefix + f.name for prefix, f in knobs if (old := f.metadata.get("was"))}


def current_name(key: str) -> str:
    """What `key` is called now: itself, unless it was renamed."""
    return former_names().get(key, key)


@functools.cache
def schema_of(group: str, option: str) -> type[Component]:
    """The config class that an option's file names as its schema."""
    found = re.search(rf"/schema/{group}/(\w+)@", option_file(group, option).read_text())
    return REGISTRY[group][found.group(1)] if found else Component


def register_schemas() -> None:
    """Give Hydra the dataclasses that every option file names as its schema."""
    _store_schema("schema", "run", RunConfig)
    for group, kinds in REGISTRY.items():
        for kind, cls in kinds.items():
            _store_schema(f"schema/{group}", kind, cls)


def _store_schema(path: str, name: str, cls: type) -> None:
    """Storing one takes Hydra a millisecond, and there are sixty: those that it has already stay."""
    store = ConfigStore.instance()
    held: Any = functools.reduce(lambda folder, part: folder.get(part, {}), path.split("/"), store.repo)
    if f"{name}.yaml" not in held or OmegaConf.get_type(held[f"{name}.yaml"].node) is not cls:
        store.store(group=path, name=name, node=cls)


# --- composing ---


@dataclass(frozen=True, slots=True)
class _Composed:
    """What Hydra makes of a choice of options: the config with its schemas, the same as objects, and its keys."""

    config: DictConfig
    run: RunConfig
    keys: frozenset[str]


@functools.lru_cache(maxsize=1024)
def _composed(choices: tuple[Setting, ...]) -> _Composed:
    """Hydra takes 0.3 s for one, so a sweep composes each choice of global options once, and never a combination."""
    config = _by_hydra("config", choices)
    run = _object(config)
    assert isinstance(run, RunConfig)
    return _Composed(config, run, frozenset(leaf_keys(config)))


@functools.lru_cache(maxsize=1024)
def _option(choice: Setting) -> tuple[DictConfig, Component]:
    """One option's group beside the global options of conf/config.yaml: a third of the time of a whole config."""
    starts = _global_starts(choice)
    if starts is None:
        whole = _composed((choice,))
        return whole.config[choice.key], getattr(whole.run, choice.key)
    ConfigStore.instance().store(name=f"only_{choice.key}", node={"defaults": ["_self_", {choice.key: None}, *starts]})
    config = _by_hydra(f"only_{choice.key}", (choice,))[choice.key]
    return config, _object(config)


def _global_starts(choice: Setting) -> list[dict[str, str]] | None:
    """The global options that conf/config.yaml starts with; None where its group depends on more than on those.

    That is where conf/config.yaml itself sets a key of the group, where a file of a global option chooses others or has
    one beside it, where a file refers to other keys, and where the option has no schema.
    """
    starts = {group: _root().starts[group] for group in GLOBAL_GROUPS}
    files = [option_file(*start) for start in starts.items()]
    refer = any("${" in file.read_text() for file in [*files, option_file(choice.key, choice.value)])
    choose = any("defaults" in OmegaConf.load(file) for file in files) or starts["compat"] != "none"
    typed = schema_of(choice.key, choice.value) is not Component
    alone = typed and choice.key not in _root().keys and not refer and not choose
    return [{group: option} for group, option in starts.items()] if alone else None


class _Root(NamedTuple):
    """conf/config.yaml: the option that each group starts with, and the keys that it sets itself."""

    starts: dict[str, str]
    keys: frozenset[str]


@functools.cache
def _root() -> _Root:
    content = OmegaConf.load(CONF / "config.yaml")
    entries = [entry for entry in content.defaults if isinstance(entry, DictConfig)]
    starts = {str(k): str(v) for entry in entries for k, v in entry.items_ex(resolve=False)}
    return _Root(starts, frozenset(map(str, content)))


def _by_hydra(name: str, choices: tuple[Setting, ...]) -> DictConfig:
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(name, overrides=[str(c) for c in choices])


def _object(config: DictConfig) -> Any:
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError("config", "?", first_line(error), "Run with --cfg to see it.") from error


def _group(group: str, choices: tuple[Setting, ...]) -> tuple[DictConfig, Component]:
    """A group as `choices` make it: as a node, which knows the types, and as an object."""
    relevant = _relevant(group, choices)
    if [c.key for c in relevant] == [group]:
        return _option(*relevant)
    whole = _composed(relevant)
    return whole.config[group], getattr(whole.run, group)


def _relevant(group: str, choices: tuple[Setting, ...]) -> tuple[Setting, ...]:
    """Of `choices`, those that decide the content of `group` ("": of single knobs).

    An option's file fills its own group alone. Only those of GLOBAL_GROUPS write everywhere, and what stands beside a
    compat option depends on the balancer, too.
    """
    beside = any(c.key == "compat" for c in choices) or _root().starts["compat"] != "none"
    everywhere = {*GLOBAL_GROUPS, *(["balancer"] if beside else [])}
    return tuple(sorted((c for c in choices if c.key in {group, *everywhere}), key=str))


def _assemble(choices: tuple[Setting, ...], changes: dict[str, dict[str, Any]]) -> RunConfig:
    """The run with each group as its own options make it, and `changes`: owner ("" at the top) -> field -> value."""
    found = _composed(_relevant("", choices))
    paths = _paths(_relevant("", choices), tuple(map(os.environ.get, PATH_VARIABLES)))
    parts: dict[str, Any] = {"paths": dataclasses.replace(paths)}
    for choice in choices:
        if choice.key in GROUP_TYPES:
            parts[choice.key] = _group(choice.key, choices)[1]
    for owner, fields in changes.items():
        if owner:
            parts[owner] = dataclasses.replace(parts.get(owner) or getattr(found.run, owner), **fields)
    return dataclasses.replace(found.run, **parts, **changes.get("", {}))


@functools.lru_cache(maxsize=1024)
def _paths(choices: tuple[Setting, ...], environment: tuple[str | None, ...]) -> PathsConfig:
    """The folders of `choices` where PATH_VARIABLES have the values of `environment`, which are those of now."""
    paths = OmegaConf.to_object(_composed(choices).config.paths)
    assert isinstance(paths, PathsConfig)
    return paths


@functools.lru_cache(maxsize=4096)
def _typed_value(choices: tuple[Setting, ...], setting: Setting) -> Any:
    """The value of `setting` in the type that its field has under `choices`, those that are relevant to its owner."""
    alone = copy.deepcopy(_node(choices, setting))
    try:
        alone._set_value(OverridesParser.create().parse_override(str(setting)).value())
    except OmegaConfBaseException as error:
        raise _wrong_type(_composed(choices).config, setting, error) from error
    return alone._value()


def _node(choices: tuple[Setting, ...], setting: Setting) -> Node:
    """Where a config holds the value of `setting`."""
    owner, _, leaf = setting.key.rpartition(".")
    if owner in GROUP_TYPES:
        group = _group(owner, choices)[0]
        node = group._get_node(leaf) if leaf in list(group) else None  # `in group` denies a key without a value
        if isinstance(node, Node) and not isinstance(node, DictConfig):
            return node
    found = _composed(choices)
    _require_key(found, setting)
    node = (found.config[owner] if owner else found.config)._get_node(leaf)
    assert isinstance(node, Node)  # the key was found
    return node


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list[str]": "a list of texts",
    "None": "null",
}


def _wrong_type(config: DictConfig, setting: Setting, error: Exception) -> ConfigError:
    parent, _, leaf = setting.key.rpartition(".")
    owner = OmegaConf.get_type(OmegaConf.select(config, parent) if parent else config)
    assert owner is not None  # every node of a composed config has a schema
    annotation = {f.name: str(f.type) for f in dataclasses.fields(owner)}[leaf]
    old = OmegaConf.select(config, setting.key)
    choices = _enum_names(first_line(error))
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


# --- refusing ---


def _require_plain(override: Override) -> None:
    key = override.key_or_group
    if key.startswith("hydra"):
        rule = "Hydra only composes the config here; its runner, launcher and folders are not used"
        raise ConfigError(key, _value_text(override), rule, "See launch=... and paths.runs.")
    if override.is_add() or override.is_force_add() or override.is_delete() or override.package:
        rule = "the config is typed: keys cannot be added, deleted or moved"
        raise ConfigError(key, _value_text(override), rule, f"Write {key}=value for a key that exists.")


def _require_no_key(argument: str) -> None:
    if has_key(argument):
        rule = "it holds an API key, which would stand in config.yaml for everybody to read"
        fix = "Export the key where you start runs: their processes, SLURM's too, inherit it."
        raise ConfigError(argument.partition("=")[0], HIDDEN, rule, fix)


def _value_text(override: Override) -> str:
    return "" if override.input_line is None else override.input_line.partition("=")[2]


def _require_option(choice: Setting) -> None:
    valid = options()[choice.key]
    if choice.value not in valid:
        close = nearest(choice.value, valid)
        fix = f"Did you mean {choice.key}={close}?" if close else f"Choose one of {', '.join(valid)}."
        raise ConfigError(choice.key, choice.value, f"the options are {', '.join(valid)}", fix)


def _require_key(found: _Composed, setting: Setting) -> None:
    config, keys = found.config, found.keys
    if setting.key in keys:
        return
    group, _, leaf = setting.key.partition(".")
    owners = [f"{group}={o}" for o in options().get(group, []) if leaf in schema_of(group, o).__dataclass_fields__]
    if owners:
        rule = f"it is a key of {' or '.join(owners)}, and here {group} is of kind {config[group].kind}"
        which = owners[0] if len(owners) == 1 else "one of them"
        raise ConfigError(setting.key, setting.value, rule, f"Add {which}, or leave it out.")
    everywhere = keys | {
        f"{g}.{f}" for g, kinds in REGISTRY.items() for c in kinds.values() for f in c.__dataclass_fields__
    }
    close = nearest(setting.key, everywhere | set(options())) or _same_leaf(setting.key, everywhere)
    fix = f"Did you mean {close}?" if close else "`python train.py --cfg` prints every key."
    raise ConfigError(setting.key, setting.value, "there is no such key", fix)


def _same_leaf(key: str, keys: Set[str]) -> str | None:
    leaf = key.rpartition(".")[2]
    by_leaf = {k.rpartition(".")[2]: k for k in sorted(keys)}
    close = nearest(leaf, by_leaf)
    return by_leaf[close] if close else None


def leaf_keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Dotted paths of every value in a composed config."""
    for key in map(str, config):
        node = config._get_node(key)
        path = f"{prefix}{key}"
        if isinstance(node, DictConfig) and not node._is_none():
            yield from leaf_keys(node, f"{path}.")
        else:
            yield path
