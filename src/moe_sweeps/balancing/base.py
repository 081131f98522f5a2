"""What every balancer has, and the one that does nothing.

Axes: T tokens, E experts, L MoE layers. Counts c_i are picks of expert i; sum_i c_i = kT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, Component, Unread, component
from moe_sweeps.model.router import Routing

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


@dataclass(slots=True)
class BalancerConfig(Component):
    """Base of the balancers' configs."""

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Balancer:
        """The balancer of a model with `num_layers` MoE layers of `num_experts` experts."""
        raise NotImplementedError

    def unread(self, run: RunConfig) -> dict[str, Unread]:
        return {} if run.experts.is_moe else {"": DENSE_HAS_NO_ROUTER}


class Balancer(nn.Module):
    """Base class and `balancer=none`: no loss, no steering, no state."""

    @property
    def needs_step_load(self) -> bool:
        """Whether `loss` wants the picks of the whole optimizer step, which costs a second forward pass."""
        return False

    def ranking_TE(self, layer: int, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """What top-k ranks in `layer`, (T, E). Called without gradient."""
        return logits_TE

    def loss(
        self, routings: Sequence[Routing], *, num_sequences: int = 1, step_load_LE: Tensor | None = None
    ) -> Tensor | None:
        """A scalar to add to one micro-batch's loss, coefficient included, or None.

        The T tokens of each routing are `num_sequences` sequences of equal length, one after the other.
        `step_load_LE` (L, E) int64: picks of the step's whole global batch, if the balancer needs them; None where this
        micro-batch is all of it.
        """
        return None

    def update(self, load_LE: Tensor) -> None:
        """Change state, once per optimizer step. `load_LE` (L, E) int64: picks of the step's whole global batch."""


@component("balancer", "none")
@dataclass(slots=True)
class NoBalancerConfig(BalancerConfig):
    """Nothing balances the experts: the control."""

    kind: str = "none"

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Balancer:
        return Balancer()
