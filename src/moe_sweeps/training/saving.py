"""Saving a run in training and resuming it: what is in a checkpoint, and when one was written last."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.distributed.ranks import Ranks
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.checkpoint import Checkpoints
from moe_sweeps.training.checkpoint_schedule import CheckpointSchedule
from moe_sweeps.training.state import Stateful, restore, state_of, unsharded

log = logging.getLogger(__name__)


class Saver:
    """Saves the `parts` of one run, and restores them. All processes must call its methods; the first one writes.

    `model` is the one among the parts: whether it is sharded decides where its whole tensors are stored meanwhile.
    """

    def __init__(
        self,
        parts: Mapping[str, Stateful],
        model: nn.Module,
        folder: RunDir,
        settings: TrainerConfig,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.parts, self.model, self.device, self.ranks = parts, model, device, ranks
        self.checkpoints = Checkpoints(folder.checkpoints, settings.keep_checkpoints)
        self.schedule = CheckpointSchedule(settings)
        self.saved_step: int | None = None

    def resume(self) -> int | None:
        """Restore all parts from the last intact checkpoint, and return its step; None where there is none.

        Raises:
            RunFolderError: the checkpoint was written by other code and does not fit, or processes see different ones.
            ConfigError: the run cannot be resumed here as it was started.
        """
        found = self.checkpoints.load_latest(torch.device("cpu"))  # whole: a process may need only a part of it
        self.ranks.require_agreement("the last intact checkpoint", -1 if found is None else found[0])
        if found is None:
            return None
        step, state = found
        with self.checkpoints.explaining(step):
            restore(self.parts, state, self.device)
        self.saved_step = step
        return step

    def save(self, step: int) -> None:
        """Write a checkpoint of the state after `step` updates."""
        state = self.state_dict(step)
        if self.ranks.is_first:
            self.checkpoints.save(step, state)
        self.ranks.barrier()  # if a process ended now, the launcher could end the one that writes
        self.saved_step = step

    def state_dict(self, step: int) -> dict[str, Any]:
        """The content of a checkpoint; of a sharded model the first rank alone gets its tensors."""
        return unsharded({"step": step} | state_of(self.parts), self.model, self.checkpoints.folder, self.ranks)
