"""Optimizers as options: a config that builds a torch optimizer over the roles' parameter groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from moe_sweeps.config.registry import Component, Unread, component, knob
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.optim.groups import ParamGroup
from moe_sweeps.optim.tensors import tensors_in

COUNTER_BYTES = 4  # of AdamW's number of steps, one a parameter

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


@dataclass(slots=True)
class OptimizerConfig(Component):
    """Base of the optimizers. `base_lr` is the peak learning rate that `lr_split` multiplies, role by role."""

    # Whether a step is p - lr * (decay * p + direction) with a direction that does not depend on lr. Scaling the steps
    # of single experts needs it.
    LINEAR_IN_LR: ClassVar[bool] = True
    # Whether the step of an entry depends on that entry alone. engine.parallel=fsdp needs it.
    ELEMENTWISE: ClassVar[bool] = False
    # Temporary tensors of a step, as a multiple of the largest tensor of its state. 4 is a guess, not measured.
    WORKING_COPIES: ClassVar[int] = 4

    base_lr: float = knob(1e-3, gt=0, doc="peak learning rate of a multiplier of 1")
    weight_decay: float = knob(
        0.1, ge=0, doc="decoupled weight decay, multiplied by the learning rate; for embedding and norms see decay_all"
    )
    decay_all: bool = knob(
        False, neutral=False, doc="also decay the embedding (which is the output head) and the norms"
    )

    def unread(self, run: Run) -> dict[str, Unread]:
        none = Unread("optimizer.weight_decay=0", "any weight decay above 0")
        return {} if self.weight_decay else {"decay_all": none}

    def build(self, groups: Sequence[ParamGroup], ranks: Ranks = ALONE) -> torch.optim.Optimizer:
        """The optimizer of `groups`. It may share its work among `ranks`, all of which get the same bits."""
        raise NotImplementedError

    def footprint(self, groups: Sequence[ParamGroup]) -> tuple[int, int]:
        """Bytes that the optimizer keeps between steps, and an estimate of a step's temporary tensors.

        Parameters may be on the meta device, where nothing is computed. torch's optimizers create their state in the
        first step, so their configs override this.
        """
        kept = list(_kept_by(self.build(groups)))
        return sum(t.nbytes for t in kept), self.WORKING_COPIES * max((t.nbytes for t in kept), default=0)


@component("optimizer", "adamw")
@dataclass(slots=True)
class AdamWConfig(OptimizerConfig):
    """AdamW with decoupled weight decay (arXiv 1711.05101)."""

    ELEMENTWISE: ClassVar[bool] = True

    kind: str = "adamw"
    beta1: float = knob(0.9, ge=0, lt=1, doc="decay of the first moment")
    beta2: float = knob(0.95, ge=0, lt=1, doc="decay of the second moment")
    eps: float = knob(1e-8, gt=0, doc="added to the root of the second moment")

    def build(self, groups: Sequence[ParamGroup], ranks: Ranks = ALONE) -> torch.optim.Optimizer:
        params = [group.as_torch(self.base_lr, self.weight_decay) for group in groups]
        # The fused kernel makes one pass over the state, the plain one a dozen.
        return torch.optim.AdamW(params, lr=self.base_lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)

    def footprint(self, groups: Sequence[ParamGroup]) -> tuple[int, int]:
        params = [param for group in groups for param in group.params]
        moments = 2 * sum(param.nbytes for param in params)
        return moments + COUNTER_BYTES * len(params), 0


def divides_gradients(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether `step_dividing` can divide gradients in a pass that `optimizer` makes anyway: torch's fused AdamW can.

    On a GPU alone: dividing in place of multiplying by the inverse would change last bits of runs on CPU.
    """
    return device.type == "cuda" and isinstance(optimizer, torch.optim.AdamW)


def step_dividing(optimizer: torch.optim.Optimizer, divisor: Tensor | None) -> None:
    """A step of `optimizer`, which first divides all gradients by the scalar `divisor`; None: an ordinary step."""
    if divisor is None:
        optimizer.step()
        return
    scaled = cast(Any, optimizer)
    scaled.grad_scale = divisor  # what torch.amp.GradScaler sets for a fused optimizer
    try:
        optimizer.step()
    finally:
        del scaled.grad_scale


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors that the optimizer keeps between steps."""
    return sum(tensor.nbytes for tensor in _kept_by(optimizer))


def _kept_by(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return tensors_in({k: v for k, v in optimizer.state_dict().items() if k != "param_groups"})
