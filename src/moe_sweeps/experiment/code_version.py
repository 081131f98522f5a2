"""The version of the code that trains one run: the sources that its components, trainer and worker can execute."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moe_sweeps.config.groups import KernelChoice, Precision
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.experiment.sources import PACKAGE, Sources
from moe_sweeps.host.devices import Device
from moe_sweeps.records.code_record import CodeRecord

if TYPE_CHECKING:
    from moe_sweeps.config.registry import Component
    from moe_sweeps.experiment.schema import RunConfig

SHARED = (f"{PACKAGE}.training.worker",)  # and with it the trainer, whatever is chosen
AROUND = frozenset({"tracking", "launch", "search"})  # groups that never reach the trainer


@functools.cache
def own_sources() -> Sources:
    """The sources that this process imports, as they were at the first call: they may be edited while it runs."""
    sources = Sources(Path(__file__).resolve().parents[2])
    sources.executed(SHARED)  # parsed once for all workers that are forked from this process
    return sources


@functools.lru_cache(maxsize=8)
def sources_of(snapshot: Path) -> Sources:
    """The sources of a snapshot, which do not change."""
    return Sources(snapshot / "src")


def code_version(run: RunConfig, snapshot: Path | None = None) -> CodeRecord:
    """The code that would train `run` now, from `snapshot` or from the sources of this process.

    It depends on the config and the sources alone, so it is the same on the login node and in the job.
    """
    chosen = [(g, REGISTRY[g].get(c.kind, type(c))) for g, c in run.groups() if g not in AROUND]
    return _version(sources_of(snapshot) if snapshot else own_sources(), tuple(chosen), _uses_kernels(run))


@functools.lru_cache(maxsize=4096)
def _version(sources: Sources, chosen: tuple[tuple[str, type[Component]], ...], kernels: bool) -> CodeRecord:
    for _, option in chosen:
        file = getattr(sys.modules.get(option.__module__), "__file__", None)
        if file:
            sources.add(option.__module__, Path(file))
    classes = frozenset(cls.__name__ for _, option in chosen for cls in option.__mro__)
    files = sources.executed([*SHARED, *(option.__module__ for _, option in chosen)], classes)
    places = {f"{group}={_kind(option)}": sources.file(option.__module__) for group, option in chosen}
    return CodeRecord.of(files | places | (sources.kernels() if kernels else {}))


def _kind(option: type[Component]) -> str:
    return str(option.__dataclass_fields__["kind"].default)


def _uses_kernels(run: RunConfig) -> bool:
    """Whether the compiled kernels may be used: in float32 on CPU, unless they were ruled out."""
    engine, precision = run.engine, run.trainer.precision
    ruled_out = engine.kernels is KernelChoice.torch or engine.device is Device.cuda or engine.kind != "native"
    return not ruled_out and precision is not Precision.bfloat16
