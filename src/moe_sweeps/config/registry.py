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
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run

_UNSET = object()
LARGEST_WHOLE = 2**63 - 1  # where a knob does not say otherwise: what torch and numpy count with
LARGEST_SEED = 2**64 - 1  # what torch's generators take
REGISTRY: dict[str, dict[str, type[Component]]] = {}


def knob(
    default: Any = _UNSET,
    *,
    doc: str = "",
    factory: Callable[[], Any] | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    infra: bool = False,
    neutral: Any = _UNSET,
    was: str | None = None,
) -> Any:
    """Declare one config field: what it is for and the rules it obeys.

    `doc` is its documentation: `moe-sweeps knobs`, --help and docs/knobs.md show it. `factory` makes the default where
    that is mutable. `ge`, `gt`, `le`, `lt` bound its value. `infra=True` keeps it out of the run's identity. `neutral`
    is the value that reproduces the behaviour from before the field existed: at that value the field is left out of the
    identity, and old frozen configs without the field are read with it. `was` is the name of a renamed field at its
    first release: run ids are always computed with that name, and command lines and frozen configs that use it still
    work.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata: dict[str, Any] = {
        "bounds": {k: v for k, v in bounds.items() if v is not None},
        "infra": infra,
        "doc": doc,
    }
    if neutral is not _UNSET:
        metadata["neutral"] = neutral
    if was is not None:
        metadata["was"] = was
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is _UNSET:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def doc_of(cls: type, name: str) -> str:
    """The documentation of a field of a dataclass: that of the last class to declare it with one, "" without any."""
    fields = (getattr(base, "__dataclass_fields__", {}).get(name) for base in cls.__mro__)
    return next((doc for field in fields if field and (doc := str(field.metadata.get("doc", "")))), "")


@dataclass(slots=True)
class Component:
    """Base of every option's config."""

    # Top-level groups (such as "aux") whose knobs count only when a component says that it reads them.
    READS: ClassVar[frozenset[str]] = frozenset()
    # The whole group is infrastructure: it changes where or how a run is executed, never its result.
    INFRA: ClassVar[bool] = False
    # Infrastructure knobs that no longer exist: frozen configs that have them are read without them.
    GONE: ClassVar[frozenset[str]] = frozenset()

    kind: str = ""

    def check(self, run: Run) -> Iterator[ConfigError]:
        """Rules that cross components; yields one error for each rule that is broken."""
        yield from ()

    def unread(self, run: Run) -> dict[str, Unread]:
        """Own knobs that nothing reads in `run`: knob name ("" for all) -> why, and what would read it."""
        return {}

    def canonical(self, run: Run) -> Component:
        """The plainest config with the same meaning in `run`, so that equivalent settings are one run."""
        return self


class Unread(NamedTuple):
    """Why a knob does not count: the chosen option that ignores it, and what would read it."""

    by: str
    reader: str


DENSE_HAS_NO_ROUTER = Unread("experts=dense", "an option of experts with a router, such as e8,")

C = TypeVar("C", bound=type[Component])


def component(group: str, kind: str) -> Callable[[C], C]:
    """Register a config class as the option schema `kind` of `group`.

    Raises:
        ValueError: another class has that name, or the class does not declare `kind`.
    """

    def register(cls: C) -> C:
        options = REGISTRY.setdefault(group, {})
        if kind in options and _name(options[kind]) != _name(cls):
            raise ValueError(f"{group}={kind} is registered twice: {_name(options[kind])}, {_name(cls)}")
        if cls.__dataclass_fields__["kind"].default != kind:
            raise ValueError(f"{cls.__qualname__} must declare `kind: str = {kind!r}`")
        options[kind] = cls
        return cls

    return register


def source_of(group: str, kind: str) -> Path:
    """The file that declares a registered component, in the repository or outside."""
    file = sys.modules[REGISTRY[group][kind].__module__].__file__
    assert file is not None  # the class was registered by importing a module
    return Path(file)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


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
    """Fields and bounds of a dataclass, cached: a sweep checks thousands of configs."""
    return [(field, field.metadata.get("bounds", {})) for field in dataclasses.fields(cls)]


def broken_bounds(prefix: str, config: Any) -> Iterator[ConfigError]:
    """Yield an error for every field of a dataclass whose value is outside its declared bounds."""
    for field, bounds in _bounds(type(config)):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            yield ConfigError(f"{prefix}{field.name}", value, "it must be a finite number", "Choose such a value.")
            continue
        if type(value) is int and value > LARGEST_WHOLE and "le" not in bounds:
            rule = f"it must be <= {LARGEST_WHOLE}, where torch stops to count"
            yield ConfigError(f"{prefix}{field.name}", value, rule, "Choose such a value.")
            continue
        if value is None or not bounds:
            continue
        if not all(SIGNS[k][1](value, bound) for k, bound in bounds.items()):
            rule = " and ".join(f"{SIGNS[k][0]} {bound}" for k, bound in bounds.items())
            default = field.default
            known = default is not dataclasses.MISSING
            fix = "null leaves it to the program." if default is None else f"Its default is {default}." if known else ""
            yield ConfigError(f"{prefix}{field.name}", value, f"it must be {rule}", fix or "Choose such a value.")
