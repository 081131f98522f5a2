"""Links: `${...}` in a value, replaced before the value is used.

`${aux.coef}` is the value of another key in the same run, `${oc.env:NAME}` a variable of the environment, and
`${now:%Y-%m-%d}` the time at which the command started. A run freezes, and is named after, the resulting values.
"""

from __future__ import annotations

import datetime
import functools
import warnings
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from moe_sweeps.credentials import HIDDEN, has_key
from moe_sweeps.errors import ConfigError, first_line


def follow(config: Mapping[str, Any], values: Mapping[str, Any], links: Mapping[str, str]) -> dict[str, Any]:
    """Key -> value of every link. `config` is a run as plain data; `values` replace some of its keys, also linked ones.

    `links` maps linked keys to what was typed, for the messages.

    Raises:
        ConfigError: a link that leads nowhere, in a circle, to a whole group, or to an API key.
    """
    OmegaConf.register_new_resolver("now", _now, replace=True)  # Hydra's own would differ between the runs of a sweep
    tree = OmegaConf.create(dict(config))
    for key, value in values.items():
        try:
            OmegaConf.update(tree, key, value, merge=False)
        except OmegaConfBaseException as error:
            raise _unresolved(key, links.get(key, str(value)), first_line(error)) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # OmegaConf's, about the empty default of ${oc.env:NAME,}
        return {key: _followed(tree, key, typed) for key, typed in links.items()}


def _followed(tree: DictConfig, key: str, typed: str) -> Any:
    owner, _, leaf = key.rpartition(".")
    try:
        value = (OmegaConf.select(tree, owner) if owner else tree)[leaf]
        if isinstance(value, ListConfig):
            value = OmegaConf.to_container(value, resolve=True)
    except OmegaConfBaseException as error:
        raise _unresolved(key, typed, first_line(error)) from error
    except RecursionError as error:
        raise _unresolved(key, typed, "it leads back to itself") from error
    if isinstance(value, DictConfig):
        raise _unresolved(key, typed, "it is a whole group, and a value is one of its keys")
    if has_key(str(value)):
        rule = "it leads to an API key, which would stand in config.yaml for everybody to read"
        raise ConfigError(key, typed, rule, f"Export the key instead; nothing here needs its value ({HIDDEN}).")
    return value


def _unresolved(key: str, typed: str, reason: str) -> ConfigError:
    fix = "Links are ${key} (`python train.py --cfg` prints every key), ${oc.env:NAME} and ${oc.env:NAME,default}."
    return ConfigError(key, typed, f"it cannot be resolved ({reason})", fix)


def _now(pattern: str) -> str:
    return _started().strftime(pattern)


@functools.cache
def _started() -> datetime.datetime:
    """One time for all runs of a command, so that a date in paths.runs is one folder."""
    return datetime.datetime.now()
