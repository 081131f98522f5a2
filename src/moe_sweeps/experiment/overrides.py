"""The command line, parsed once: overrides by Hydra's grammar, and settings that keep what their text means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException

from moe_sweeps.config.grammar import holds_link, parse_value
from moe_sweeps.credentials import has_key
from moe_sweeps.errors import ConfigError, first_line, key_refused
from moe_sweeps.experiment.options import options
from moe_sweeps.paths import TRAIN


@dataclass(frozen=True, slots=True)
class Setting:
    """One `key=value` of the command line. `value` is the text as typed."""

    key: str
    value: str

    @property
    def meaning(self) -> Any:
        """What the text means by Hydra's grammar, before the key gives it a type. A text is parsed once a process.

        Raises:
            ConfigError: it cannot be parsed.
        """
        try:
            return parse_value(str(self)).value()
        except (HydraException, ValueError) as error:
            raise _unparsed(str(self), error) from error

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


def parse(arguments: Sequence[str]) -> list[Override]:
    """Parse command-line overrides by Hydra's grammar, each text once a process, and refuse what no config can take.

    Raises:
        ConfigError: not an override, or a key that no config has.
    """
    parsed = []
    for argument in arguments:
        _require_no_key(argument)
        if "=" not in argument and not argument.startswith("~"):
            groups = [f"{group}={argument}" for group, names in options().items() if argument in names]
            fix = f"Did you mean {' or '.join(groups)}?" if groups else f"See {TRAIN} --help."
            raise ConfigError("the argument", argument, "it is not key=value", fix)
        try:
            parsed.append(parse_value(argument))
        except (OverrideParseException, HydraException, ValueError) as error:
            raise _unparsed(argument, error) from error
        _require_plain(parsed[-1])
    return parsed


def _unparsed(argument: str, error: Exception) -> ConfigError:
    key, _, value = argument.partition("=")
    reason = error.__cause__ if isinstance(error.__cause__, ValueError) else error
    if "4300 digits" in str(reason):
        return ConfigError(key, f"{value[:20]}...", "the number has thousands of digits", "Write a smaller one.")
    if isinstance(error.__cause__, ValueError):
        return ConfigError(key, value, first_line(error.__cause__), "Write range(start,stop,step) or list the values.")
    fix = "Overrides are written key=value, sweeps key=value1,value2 (with -m)."
    if holds_link(value):
        fix = f"A link within a link is quoted: '{key}=\"{value}\"'."
    return ConfigError(key, value, f"it cannot be parsed ({first_line(error)})", fix)


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
        raise key_refused(argument.partition("=")[0])


def _value_text(override: Override) -> str:
    return "" if override.input_line is None else override.input_line.partition("=")[2]
