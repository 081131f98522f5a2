"""From the settings of a command line to a validated RunConfig.

Hydra composes (fast_compose.py), links are followed, the schemas check types, `validate` checks the rules. Every
refusal is a ConfigError that names the field, the value, the rule and the nearest valid spelling.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import Node, StringNode
from omegaconf.errors import OmegaConfBaseException

from moe_sweeps.config.grammar import as_text, holds_link, parse_value
from moe_sweeps.config.links import follow
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.fast_compose import (
    assemble,
    composed,
    in_type,
    links_of_conf,
    node_of,
    plain_config,
    relevant_to,
    starts,
)
from moe_sweeps.experiment.frozen import plain
from moe_sweeps.experiment.options import current_name, options
from moe_sweeps.experiment.overrides import Setting
from moe_sweeps.experiment.refusals import no_such_key, require_option, wrong_type
from moe_sweeps.experiment.schema import RunConfig, validate


def compose(settings: Sequence[Setting]) -> RunConfig:
    """The run that `settings` describe.

    Raises:
        ConfigError: an unknown key or option, a wrong type, a broken rule.
    """
    settings = [Setting(current_name(s.key), s.value) for s in settings]
    choices = _choices(settings)
    for choice in choices:
        require_option(choice)
    changes: dict[str, dict[str, Any]] = {}
    for key, value in _values(choices, [s for s in settings if s.key not in options()]).items():
        owner, _, leaf = key.rpartition(".")
        changes.setdefault(owner, {})[leaf] = value
    try:
        return validate(assemble(choices, changes))
    except ConfigError as error:
        for typed in (s for s in settings if s.key == error.field and holds_link(s.value)):
            error.add_note(f"typed as {typed}")
        raise


def resolved(settings: Sequence[Setting], run: RunConfig) -> tuple[Setting, ...]:
    """`settings` of `run` with what their links gave in the place of the links."""
    if not any(holds_link(s.value) for s in settings):
        return tuple(settings)
    named = {choice.key: choice.value for choice in _choices(settings)}
    return tuple(
        Setting(s.key, named.get(s.key) or as_text(plain(_value_in(run, s.key)))) if holds_link(s.value) else s
        for s in settings
    )


def single_choice(group: str, typed: str) -> str:
    """The option that `group=typed` means, when nothing else is known of the line.

    Raises:
        ConfigError: a link that leads nowhere.
    """
    if not holds_link(typed):
        return typed
    return str(follow(starts(), {group: Setting(group, typed).meaning}, {group: typed})[group])


def _choices(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """The options that `settings` choose, links followed. `${balancer}` is there the name of the balancer's option."""
    chosen = tuple(s for s in settings if s.key in options())
    if not any(holds_link(c.value) for c in chosen):
        return chosen
    linked = {c.key: c for c in chosen if holds_link(c.value)}
    names = starts() | {c.key: c.value for c in chosen if c.key not in linked}
    found = follow(names, {k: c.meaning for k, c in linked.items()}, {k: c.value for k, c in linked.items()})
    return tuple(Setting(c.key, str(found.get(c.key, c.value))) for c in chosen)


def _values(choices: tuple[Setting, ...], settings: Sequence[Setting]) -> dict[str, Any]:
    """Key -> value of everything that was typed, and of the links in conf/."""
    found = {s.key: _typed_value(relevant_to(s.key, choices), s) for s in settings if not holds_link(s.value)}
    links = {key: raw for key, raw in links_of_conf(choices).items() if key not in found}
    linked = {s.key: s for s in settings if holds_link(s.value)}
    links |= {key: s.value for key, s in linked.items()}
    if not links:
        return found
    for setting in linked.values():
        _node(relevant_to(setting.key, choices), setting)  # a misspelt key is refused before its link is followed
    given = {s.key: s.meaning for s in settings}
    values = follow(plain_config(choices), given, links)
    return found | {key: _linked_value(choices, key, value, links[key]) for key, value in values.items()}


def _linked_value(choices: tuple[Setting, ...], key: str, value: Any, typed: str) -> Any:
    """The value of a link, in the type of its key. Text, such as a variable's, is read as if it had been typed."""
    setting = Setting(key, as_text(value))
    relevant = relevant_to(setting.key, choices)
    node = _node(relevant, setting)
    if isinstance(value, str) and (value.lower() == "null" or not isinstance(node, StringNode)):
        with contextlib.suppress(HydraException, ValueError):  # then the type refuses it
            value = parse_value(f"{key}={value}").value()
    try:
        return _in_type(relevant, setting, value)
    except ConfigError as error:
        error.add_note(f"typed as {key}={typed}")
        raise


def _value_in(run: RunConfig, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), run)


@functools.lru_cache(maxsize=4096)
def _typed_value(choices: tuple[Setting, ...], setting: Setting) -> Any:
    """The value of `setting` in the type that its field has under `choices`, those that are relevant to its owner."""
    return _in_type(choices, setting, setting.meaning)


def _in_type(choices: tuple[Setting, ...], setting: Setting, value: Any) -> Any:
    """`value` in the type of the field that `setting` names."""
    node = _node(choices, setting)
    try:
        return in_type(node, value)
    except OverflowError as error:
        fix = "Write a number as this machine computes with it."
        raise ConfigError(setting.key, setting.value, "it must be below 1.8e308", fix) from error
    except (OmegaConfBaseException, ValueError) as error:
        raise wrong_type(composed(choices).config, setting, error) from error


def _node(choices: tuple[Setting, ...], setting: Setting) -> Node:
    """What holds the value of `setting`; a key that no config has is refused."""
    node = node_of(choices, setting.key)
    if node is None:
        raise no_such_key(composed(choices), setting)
    return node
