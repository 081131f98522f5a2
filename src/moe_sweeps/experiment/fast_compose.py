"""Composition of many configs that differ little: each option is composed by Hydra once, and runs are put together.

Hydra takes 0.3 s to compose one config, and a sweep has thousands. A config is the sum of its groups: the file of an
option fills its own group alone, except for GLOBAL_GROUPS, which write everywhere. So Hydra composes every choice of
global options and every option beside them once; a run is those parts with its own values, as plain objects.

What this relies on is found by reading conf/ (`_global_starts`, `_conf_has_links`), and nodes are read by private names
of OmegaConf, which has no public way to a node that holds a link or to a value's type. Both stay in this module:
tests/unit/experiment/test_fast_compose.py holds it against Hydra's own composition, for lines that hypothesis draws.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Sweep
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import BooleanNode, DictConfig, Node, OmegaConf, StringNode
from omegaconf.errors import OmegaConfBaseException

from moe_sweeps.config.grammar import contains_sweep
from moe_sweeps.config.groups import PathsConfig
from moe_sweeps.config.outside import conf_folders
from moe_sweeps.config.registry import REGISTRY, Component
from moe_sweeps.errors import ConfigError, first_line
from moe_sweeps.experiment.options import conf_folder, option_file, schema_of
from moe_sweeps.experiment.overrides import Setting
from moe_sweeps.experiment.schema import GROUP_TYPES, RunConfig

# Groups whose files set values all over the config (`# @package _global_`) instead of filling a key of their own.
GLOBAL_GROUPS = ("scale", "compat")
# Groups whose option also decides what a compat option sets (conf/compat/beside_*).
BESIDE_COMPAT = ("balancer", "lr_split")
# Variables that set the folders in conf/config.yaml; they may change while a process lives.
PATH_VARIABLES = ("MOE_SWEEPS_RUNS", "MOE_SWEEPS_DATA", "MOE_SWEEPS_REPORTS")


@dataclass(frozen=True, slots=True)
class Composed:
    """What Hydra makes of a choice of options: the config with its schemas, the same as objects, its keys and links."""

    config: DictConfig
    run: RunConfig
    keys: frozenset[str]
    links: Mapping[str, str]


@functools.lru_cache(maxsize=1024)
def composed(choices: tuple[Setting, ...]) -> Composed:
    """The whole config of some options, by Hydra. It takes 0.3 s, so a sweep does it once per choice of global ones."""
    config = _by_hydra("config", choices)
    keys = frozenset(leaf_keys(config))
    links = {key: str(_raw(*_place(config, key))) for key in sorted(keys) if _is_link(config, key)}
    run = _object(_without(links, config))
    assert isinstance(run, RunConfig)
    return Composed(config, run, keys, links)


def assemble(choices: tuple[Setting, ...], changes: dict[str, dict[str, Any]]) -> RunConfig:
    """The run with each group as its own options make it, and `changes`: owner ("" at the top) -> field -> value."""
    found = composed(relevant("", choices))
    paths = _paths(relevant("", choices), tuple(map(os.environ.get, PATH_VARIABLES)))
    parts: dict[str, Any] = {"paths": dataclasses.replace(paths)}
    for choice in choices:
        if choice.key in GROUP_TYPES:
            parts[choice.key] = _group(choice.key, choices)[1]
    for owner, fields in changes.items():
        if owner:
            parts[owner] = dataclasses.replace(parts.get(owner) or getattr(found.run, owner), **fields)
    return dataclasses.replace(found.run, **parts, **changes.get("", {}))


def _group(group: str, choices: tuple[Setting, ...]) -> tuple[DictConfig, Component]:
    """A group under `choices`, as a node, which has the types, and as an object."""
    deciding = relevant(group, choices)
    if [c.key for c in deciding] == [group]:
        return _option(*deciding)
    whole = composed(deciding)
    return whole.config[group], getattr(whole.run, group)


def relevant_to(key: str, choices: tuple[Setting, ...]) -> tuple[Setting, ...]:
    """Of `choices`, those that decide the content of the group that `key` belongs to."""
    return relevant(key.rpartition(".")[0], choices)


def relevant(group: str, choices: tuple[Setting, ...]) -> tuple[Setting, ...]:
    """Of `choices`, those that decide the content of `group` ("": of single knobs).

    An option's file fills its own group alone. Only those of GLOBAL_GROUPS write everywhere, and what stands beside a
    compat option depends on the options of BESIDE_COMPAT, too.
    """
    beside = any(c.key == "compat" for c in choices) or starts()["compat"] != "none"
    everywhere = {*GLOBAL_GROUPS, *(BESIDE_COMPAT if beside else ())}
    return tuple(sorted((c for c in choices if c.key in {group, *everywhere}), key=str))


@functools.lru_cache(maxsize=1024)
def _option(choice: Setting) -> tuple[DictConfig, Component]:
    """The group of one option beside the global options of conf/config.yaml, in a third of a whole config's time."""
    beside = _global_starts(choice)
    if beside is None:
        whole = composed((choice,))
        return whole.config[choice.key], getattr(whole.run, choice.key)
    ConfigStore.instance().store(name=f"only_{choice.key}", node={"defaults": ["_self_", {choice.key: None}, *beside]})
    config = _by_hydra(f"only_{choice.key}", (choice,))[choice.key]
    return config, _object(config)


def _global_starts(choice: Setting) -> list[dict[str, str]] | None:
    """The global options that conf/config.yaml starts with; None if the group of `choice` depends on more than those.

    It does if conf/config.yaml itself sets a key of the group, if the file of a global option chooses others or has one
    beside it, if a file refers to other keys, and if the option has no schema.
    """
    beside = {group: starts()[group] for group in GLOBAL_GROUPS}
    files = [option_file(*start) for start in beside.items()]
    refer = any("${" in file.read_text(encoding="utf-8") for file in [*files, option_file(choice.key, choice.value)])
    choose = any("defaults" in OmegaConf.load(file) for file in files) or beside["compat"] != "none"
    typed = schema_of(choice.key, choice.value) is not Component
    alone = typed and choice.key not in _root().keys and not refer and not choose
    return [{group: option} for group, option in beside.items()] if alone else None


@functools.lru_cache(maxsize=1024)
def _paths(choices: tuple[Setting, ...], environment: tuple[str | None, ...]) -> PathsConfig:
    """The folders of `choices`. `environment` holds the current values of PATH_VARIABLES: they are the cache's key."""
    paths = OmegaConf.to_object(composed(choices).config.paths)
    assert isinstance(paths, PathsConfig)
    return paths


# --- conf/ ---


def starts() -> dict[str, str]:
    """Group -> the option that it has where nothing is typed."""
    return _root().starts


class _Root(NamedTuple):
    """conf/config.yaml: the option that each group starts with, and the keys that it sets itself."""

    starts: dict[str, str]
    keys: frozenset[str]


@functools.cache
def _root() -> _Root:
    content = OmegaConf.load(conf_folder() / "config.yaml")
    entries = [entry for entry in content.defaults if isinstance(entry, DictConfig)]
    first = {str(k): str(v) for entry in entries for k, v in entry.items_ex(resolve=False)}
    return _Root(first, frozenset(map(str, content)))


def _by_hydra(name: str, choices: tuple[Setting, ...]) -> DictConfig:
    register_schemas()
    Plugins.instance().register(_OptionsOutside)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra_compose(name, overrides=[str(c) for c in choices])


class _OptionsOutside(SearchPathPlugin):
    """Lets Hydra find the options that installed packages bring."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for conf in conf_folders():
            search_path.append(provider="moe_sweeps.components", path=f"file://{conf}")


def register_schemas() -> None:
    """Give Hydra the dataclasses that every option file names as its schema."""
    _store_schema("schema", "run", RunConfig)
    for group, kinds in REGISTRY.items():
        for kind, cls in kinds.items():
            _store_schema(f"schema/{group}", kind, cls)


def _store_schema(path: str, name: str, cls: type) -> None:
    """Store a schema unless it is stored: one takes a millisecond, and there are sixty."""
    store = ConfigStore.instance()
    held: Any = functools.reduce(lambda folder, part: folder.get(part, {}), path.split("/"), store.repo)
    if f"{name}.yaml" not in held or OmegaConf.get_type(held[f"{name}.yaml"].node) is not cls:
        store.store(group=path, name=name, node=cls)


def _object(config: DictConfig) -> Any:
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError("config", "?", first_line(error), "Run with --cfg to see it.") from error


# --- nodes ---


def node_of(choices: tuple[Setting, ...], key: str) -> Node | None:
    """What holds the value of `key`, and knows its type; None where the config of `choices` has no such key.

    `choices` are those that are relevant to the key's owner. The node is shared: a copy may be changed.
    """
    owner, _, leaf = key.rpartition(".")
    if owner in GROUP_TYPES:
        group = _group(owner, choices)[0]
        node = group._get_node(leaf) if leaf in list(group) else None  # `in group` denies a key without a value
        if isinstance(node, Node) and not isinstance(node, DictConfig):
            return node
    found = composed(choices)
    if key not in found.keys:
        return None
    node = (found.config[owner] if owner else found.config)._get_node(leaf)
    assert isinstance(node, Node)  # the key was found
    return node


def in_type(node: Node, value: Any) -> Any:
    """`value` as OmegaConf converts it to the type of `node`, which stays as it is.

    Raises:
        OmegaConfBaseException, ValueError, OverflowError: the type refuses it.
    """
    alone = copy.deepcopy(node)
    if contains_sweep(value) or isinstance(value, Sweep):
        raise ValueError("a sweep within a value")
    if isinstance(alone, BooleanNode) and isinstance(value, int | float) and value not in (0, 1):
        raise ValueError("a number that is neither true nor false")
    if isinstance(value, str) and "${" in value and not isinstance(alone, StringNode):
        raise ValueError("a text, which the node would take for a link")
    alone._set_value(value)
    found = alone._value()
    return [one._value() if isinstance(one, Node) else one for one in found] if isinstance(found, list) else found


def leaf_keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Dotted paths of every value in a composed config."""
    for key in map(str, config):
        node = config._get_node(key)
        path = f"{prefix}{key}"
        if isinstance(node, DictConfig) and not node._is_none():
            yield from leaf_keys(node, f"{path}.")
        else:
            yield path


def _place(config: DictConfig, key: str) -> tuple[DictConfig, str]:
    owner, _, leaf = key.rpartition(".")
    return (OmegaConf.select(config, owner) if owner else config), leaf


def _raw(parent: DictConfig, leaf: str) -> Any:
    node = parent._get_node(leaf)
    assert isinstance(node, Node)
    return node._value()


# --- links of conf/ ---


@functools.lru_cache(maxsize=64)
def plain_config(choices: tuple[Setting, ...]) -> Mapping[str, Any]:
    """The composed config as plain data, its links as they stand in conf/."""
    found = OmegaConf.to_container(composed(choices).config, resolve=False, enum_to_str=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def links_of_conf(choices: tuple[Setting, ...]) -> Mapping[str, str]:
    """Key -> link, for values of conf/ that are links; without the folders that follow PATH_VARIABLES."""
    return composed(choices).links if _conf_has_links() else {}


@functools.cache
def _conf_has_links() -> bool:
    files = [f for f in conf_folder().glob("*/**/*.yaml") if "${" in f.read_text()]
    own = OmegaConf.load(conf_folder() / "config.yaml")
    assert isinstance(own, DictConfig)
    own.pop("defaults", None)
    return bool(files) or any(_is_link(own, key) for key in leaf_keys(own))


def _is_link(config: DictConfig, key: str) -> bool:
    owner, _, leaf = key.rpartition(".")
    parent = OmegaConf.select(config, owner) if owner else config
    return bool(OmegaConf.is_interpolation(parent, leaf)) and not _follows_a_path_variable(str(_raw(parent, leaf)))


def _follows_a_path_variable(raw: str) -> bool:
    return any(raw.startswith(f"${{oc.env:{name},") and raw.count("${") == 1 for name in PATH_VARIABLES)


def _without(links: Mapping[str, str], config: DictConfig) -> DictConfig:
    """The config with the defaults of its schemas where it has links, which are followed when all else is known."""
    if not links:
        return config
    changed = copy.deepcopy(config)
    for key in links:
        parent, leaf = _place(changed, key)
        owner = OmegaConf.get_type(parent)
        assert owner is not None
        parent[leaf] = (
            getattr(owner(), leaf) if owner is not RunConfig else RunConfig.__dataclass_fields__[leaf].default
        )
    return changed
