"""The state of a run, as its checkpoints keep it: that of each part of the trainer, by name.

A part is anything with `state_dict` and `load_state_dict`. It keeps tensors and plain containers alone, so that a
checkpoint loads without unpickling code.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from moe_sweeps.distributed.ranks import Ranks
from moe_sweeps.distributed.sharding import is_sharded, load_model, on_device, whole_state
from moe_sweeps.training.tensor_file import TensorFile

# Parts that checkpoints of earlier versions lack, with what was true of every run when those were written.
MISSING_PARTS: dict[str, Any] = {"compiled": False, "kernels": False, "products": None}
# What stays in the checkpoint's file until it is copied to its place, because it is large.
LARGE_PARTS = ("model", "optimizer")


class Stateful(Protocol):
    """A part of a run whose state is saved and restored."""

    def state_dict(self) -> Any:
        """Tensors and plain containers. In a run of several processes all must ask."""

    def load_state_dict(self, state: Any, /) -> Any:
        """The inverse of `state_dict`. It copies the tensors that it keeps, which may lie in a file."""


def state_of(parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """The state of every part, by its name."""
    return {name: part.state_dict() for name, part in parts.items()}


def restore(parts: Mapping[str, Stateful], state: Mapping[str, Any], device: torch.device) -> None:
    """Load every part's state, in the order of `parts`.

    Raises:
        KeyError: the state lacks a part.
        ConfigError: a part cannot be resumed here as it was started.
        RuntimeError, ValueError, TypeError: something in the state has another shape.
    """
    there = MISSING_PARTS | on_device(state, device, but=LARGE_PARTS)
    for name, part in parts.items():
        part.load_state_dict(there[name])


def unsharded(state: dict[str, Any], model: nn.Module, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """`state` with whole tensors, on the first rank alone where `model` is sharded. All processes must ask.

    No process has memory for all of a sharded model, so its whole tensors lie in a file in `folder` meanwhile.
    """
    if not is_sharded(model):
        return state
    with TensorFile(folder) if ranks.is_first else nullcontext() as file:
        whole: dict[str, Any] = whole_state(state, keep=file.keep if file else None)
    return whole


@dataclass(frozen=True, slots=True)
class ModelState:
    """The weights of a model, sharded or not."""

    model: nn.Module

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_model(self.model, state)
