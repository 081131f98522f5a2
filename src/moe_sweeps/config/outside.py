"""Components that live outside the repository: installed packages that name a module under the entry-point group GROUP.

The named module registers its components when it is imported, and their YAML files lie in a folder `conf/` beside it.
Every process that imports the schema does this, so drivers, workers, SLURM jobs and trackers of one Python find the
same components. A package that cannot be used is left out and named: it stops no run that does not need it. What a
package prints while it is imported is dropped, since it would stand in the output of our commands.
"""

from __future__ import annotations

import importlib.metadata
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.errors import first_line
from moe_sweeps.host.silence import silenced

GROUP = "moe_sweeps.components"
OURS = "moe_sweeps"


@dataclass(frozen=True, slots=True)
class Outside:
    """One entry point. `conf` is its folder of options, or None if it cannot be used, and `problem` then says why."""

    module: str
    package: str  # as pip calls it, with its version
    conf: Path | None = None
    problem: str = ""
    options: frozenset[tuple[str, str]] = field(default=frozenset())  # (group, name of the file)

    def __str__(self) -> str:
        return f"{self.package} ({self.module})"


def load_components(conf: Path) -> None:
    """Import every module that installed packages name, once a process. `conf` has the repository's own options."""
    taken = set(_options_in(conf))
    for entry in _entries():
        if all(entry.module != known.module for known in _found):
            _found.append(_load(entry, taken))
            taken |= _found[-1].options


def outside() -> tuple[Outside, ...]:
    """The entry points of this Python, in the order in which they were loaded."""
    return tuple(_found)


def conf_folders() -> tuple[Path, ...]:
    """Folders of options outside the repository."""
    return tuple(found.conf for found in _found if found.conf)


def owner(group: str, kind: str) -> Outside | None:
    """What brought a registered component here; None for the repository's own."""
    top = _top(REGISTRY[group][kind].__module__)
    return None if top == OURS else next((found for found in _found if _top(found.module) == top), None)


def problems() -> str:
    """Which packages cannot be used and why, as sentences; empty if all can."""
    return " ".join(f"{found} is left out: {found.problem}." for found in _found if found.problem)


# --- parts ------------------------------------------------------------------------------------------------------------

_found: list[Outside] = []


def _entries() -> list[importlib.metadata.EntryPoint]:
    """The entry points of this Python; none, and a noted problem, if the metadata of some package cannot be read."""
    try:
        return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: (e.module, e.name))
    except Exception as error:
        _found.append(Outside(GROUP, "every package", problem=_said(error)))
        return []


def _load(entry: importlib.metadata.EntryPoint, taken: set[tuple[str, str]]) -> Outside:
    package = _package(entry)
    before = {group: dict(kinds) for group, kinds in REGISTRY.items()}
    person = _Person()
    try:
        with silenced(), person.listened_to():
            module = import_module(entry.module)
        conf = _conf_of(module)
        options = frozenset(_options_in(conf))
        _require_groups({*REGISTRY, *(group for group, _ in options)} - {*before, *(group for group, _ in taken)})
        _require_new(options & taken)
    except BaseException as error:  # whatever it raises, runs that do not need the package continue
        if person.interrupted:
            raise
        REGISTRY.clear()
        REGISTRY.update(before)
        return Outside(entry.module, package, problem=_said(error))
    return Outside(entry.module, package, conf, options=options)


def _package(entry: importlib.metadata.EntryPoint) -> str:
    try:
        return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.name
    except Exception:  # no METADATA, or none that can be read
        return entry.name


@dataclass(slots=True)
class _Person:
    """Tells Ctrl-C from a KeyboardInterrupt that a module raises by itself."""

    interrupted: bool = False

    @contextmanager
    def listened_to(self) -> Iterator[None]:
        """Note an interrupt until the block ends. Only the main thread may set, and is sent, signals."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            before(number, frame)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGINT) is note:
                signal.signal(signal.SIGINT, before)


def _said(error: BaseException) -> str:
    text = first_line(error) if isinstance(error, Exception) else str(error)
    return f"{type(error).__name__}: {text}".rstrip(".: ")


def _top(module: str) -> str:
    return module.partition(".")[0]


def _conf_of(module: ModuleType) -> Path:
    """The folder `conf/` beside a module's file: in the package, where the module is one."""
    if not module.__file__ or (not module.__package__ and not hasattr(module, "__path__")):
        raise ImportError("it is not part of a package with an __init__.py, so no folder conf/ is its own")
    conf = Path(module.__file__).resolve().parent / "conf"
    if not conf.is_dir():
        raise FileNotFoundError(f"there is no folder {conf} with the YAML file of each option")
    return conf


def _options_in(conf: Path) -> Iterator[tuple[str, str]]:
    return ((path.parent.name, path.stem) for path in conf.glob("*/*.yaml"))


def _require_groups(unknown: set[str]) -> None:
    if unknown:
        raise ValueError(f"there is no config group {', '.join(sorted(unknown))}")


def _require_new(doubles: frozenset[tuple[str, str]]) -> None:
    if doubles:
        names = ", ".join(f"{group}={name}" for group, name in sorted(doubles))
        raise ValueError(f"{names} exists already; give the option another name")
