"""The trace of a run's first steps: numbers and fingerprints that show, bit for bit, what its settings changed.

A trace has channels: the scalars logged at each step, a fingerprint of the balancer's state, and for every role
(expert, router, dense, ...) one of all its weights. Fingerprints begin before the first step, at step 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.config.registry import Component
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import Diverged
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.optim.groups import role_of
from moe_sweeps.records.rundir import MetricsLog, RunDir
from moe_sweeps.training.rehearsal import rehearse
from moe_sweeps.training.trainer import Trainer

SCALARS = ("loss", "aux_loss", "z_loss", "grad_norm", "lr", "maxvio_batch")
BALANCER = "balancer state"
WEIGHTS = "weights"


@dataclass(slots=True)
class Trace:
    """`channels`: name -> one value a step, scalars from step 1, fingerprints from step 0.

    `read` holds every config key that some code read from the building of the trainer to the last step.
    """

    channels: dict[str, dict[int, Any]] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    diverged: bool = False

    def first_difference(self, other: Trace, channel: str) -> int | None:
        """The first step at which `channel` differs between the two, or None."""
        a, b = self.channels.get(channel, {}), other.channels.get(channel, {})
        return next((step for step in sorted(a.keys() | b.keys()) if a.get(step) != b.get(step)), None)

    def differences(self, other: Trace) -> dict[str, int]:
        """Channels that differ, with the first step at which they do."""
        names = dict.fromkeys([*self.channels, *other.channels])
        found = {name: self.first_difference(other, name) for name in names}
        return {name: step for name, step in found.items() if step is not None}


def trace(run: RunConfig, data: TokenData, steps: int, *, threads: int = 1) -> Trace:
    """Train the first `steps` steps of `run` in a temporary folder, and record its channels."""
    found = Trace()

    def note(trainer: Trainer) -> None:
        for name, value in _fingerprints(trainer).items():
            found.channels.setdefault(name, {})[trainer.step] = value

    def note_scalars(folder: RunDir) -> None:
        for record in MetricsLog(folder.path / "metrics.jsonl").records():
            for name in SCALARS:
                if name in record and record["split"] == "train":
                    found.channels.setdefault(name, {})[record["step"]] = record[name]

    try:
        rehearse(
            run, data, steps, threads=threads, watched=lambda r: _recording(r, found.read.add),
            begin=note, after_step=note, end=note_scalars,
        )  # fmt: skip
    except Diverged:
        found.diverged = True
    return found


def _fingerprints(trainer: Trainer) -> dict[str, str]:
    by_role: dict[str, list[Tensor]] = {}
    for name, param in sorted(trainer.model.named_parameters()):
        by_role.setdefault(f"{WEIGHTS} {role_of(name).value}", []).append(param)
    state = list(trainer.balancer.buffers())
    return {name: _digest(tensors) for name, tensors in by_role.items()} | ({BALANCER: _digest(state)} if state else {})


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _recording(run: RunConfig, note: Callable[[str], None]) -> RunConfig:
    """A copy of `run` that calls `note` with the key of every knob that is read."""
    parts: dict[str, Any] = {group: _recorder(config, f"{group}.", note) for group, config in run.groups()}
    whole: RunConfig = _recorder(dataclasses.replace(run, **parts), "", note)
    return whole


def _recorder(config: Any, prefix: str, note: Callable[[str], None]) -> Any:
    names = {f.name for f in dataclasses.fields(config)}

    def look(self: Any, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name in names and not isinstance(value, Component):
            note(prefix + name)
        return value

    kind = type(config)
    watching = type(kind.__name__, (kind,), {"__slots__": (), "__getattribute__": look})
    copy = dataclasses.replace(config)
    copy.__class__ = watching
    return copy
