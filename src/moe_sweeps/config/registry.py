"""Component configs: how a knob declares its rule, and how an option is found by its name.

A component is one option of a config group (`balancer=aux`). Its config is a dataclass that is registered here by
group and kind; Hydra's schemas, the documentation, the identity of a run and the tests all walk over this registry,
so a new component is enrolled by existing.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig

_UNSET = object()
REGISTRY: dict[str, dict[str, type[Component]]] = {}


def knob(
    default: Any = _UNSET,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    infra: bool = False,
    neutral: Any = _UNSET,
    was: str | None = None,
) -> Any:
    """Declare one config field together with the rules it obeys.

    `ge`, `gt`, `le`, `lt` bound its value. `infra=True` keeps it out of the run's identity. `neutral` is the value that
    reproduces the behaviour from before the field existed: at that value the field is left out of the identity, and old
    frozen configs without the field are read with it. `was` is the name of a renamed field at its first release: run
    ids are computed with that name for ever, and command lines and frozen configs that use it still work.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata: dict[str, Any] = {"bounds": {k: v for k, v in bounds.items() if v is not None}, "infra": infra}
    if neutral is not _UNSET:
        metadata["neutral"] = neutral
    if was is not None:
        metadata["was"] = was
    if default is _UNSET:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(slots=True)
class Component:
    """Base of every option's config."""

    # Top-level groups (such as "aux") whose knobs count only when a component says that it reads them.
    READS: ClassVar[frozenset[str]] = frozenset()
    # The whole group is infrastructure: it changes where or how a run is executed, never its result.
    INFRA: ClassVar[bool] = False
    # Knobs that no longer exist and were infrastructure: frozen configs that have them are read without them.
    GONE: ClassVar[frozenset[str]] = frozenset()

    kind: str = ""

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        """Rules that cross components; yields one error for each rule that is broken."""
        yield from ()

    def unread(self, run: RunConfig) -> dict[str, Unread]:
        """Own knobs that nothing reads in `run`: knob name ("" for all of them) -> why, and what would read it."""
        return {}

    def canonical(self, run: RunConfig) -> Component:
        """The plainest config with the same meaning in `run`, so that equivalent settings are one run."""
        return self


class Unread(NamedTuple):
    """Why a knob does not count: the chosen option that passes it over, and what would read it."""

    by: str
    reader: str


DENSE_HAS_NO_ROUTER = Unread("experts=dense", "an option of experts with a router, such as e8,")

C = TypeVar("C", bound=type[Component])


def component(group: str, kind: str) -> Callable[[C], C]:
    """Register a config class as the option schema `kind` of `group`."""

    def register(cls: C) -> C:
        options = REGISTRY.setdefault(group, {})
        if kind in options and options[kind].__qualname__ != cls.__qualname__:
            raise ValueError(f"{group}={kind} is registered twice: {options[kind].__qualname__}, {cls.__qualname__}")
        if cls.__dataclass_fields__["kind"].default != kind:
            raise ValueError(f"{cls.__qualname__} must declare `kind: str = {kind!r}`")
        options[kind] = cls
        return cls

    return register


def readers_of(group: str) -> str:
    """The options that read the knobs of a top-level group, spelled as on the command line."""
    names = [f"{g}={k}" for g, options in REGISTRY.items() for k, cls in options.items() if group in cls.READS]
    return " or ".join(sorted(names)) or "no component"


SIGNS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


@functools.cache
def _bounds(cls: type) -> list[tuple[dataclasses.Field[Any], dict[str, Any]]]:
    """Looked up once a class: a sweep checks thousands of configs."""
    return [(field, field.metadata.get("bounds", {})) for field in dataclasses.fields(cls)]


def broken_bounds(prefix: str, config: Any) -> Iterator[ConfigError]:
    """Yield an error for every field of a dataclass whose value is outside its declared bounds."""
    for field, bounds in _bounds(type(config)):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            yield ConfigError(f"{prefix}{field.name}", value, "it must be a finite number", "Choose such a value.")
            continue
        if value is None or not bounds:
            continue
        if not all(SIGNS[k][1](value, bound) for k, bound in bounds.items()):
            rule = " and ".join(f"{SIGNS[k][0]} {bound}" for k, bound in bounds.items())
            default = field.default
            known = default is not dataclasses.MISSING
            fix = "null leaves it to the program." if default is None else f"Its default is {default}." if known else ""
            yield ConfigError(f"{prefix}{field.name}", value, f"it must be {rule}", fix or "Choose such a value.")
