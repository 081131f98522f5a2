"""What every balancer has, and the one that does nothing.

Axes: T tokens, E experts, L MoE layers. Counts c_i are picks of expert i; sum_i c_i = kT.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from moe_sweeps.config.groups import MoEExpertsConfig
from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, Component, Unread, component
from moe_sweeps.distributed import ALONE, Ranks
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import Routing

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


@dataclass(slots=True)
class BalancerConfig(Component):
    """Base of the balancers' configs."""

    # In training experts choose tokens, not tokens experts.
    EXPERTS_CHOOSE: ClassVar[bool] = False

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Balancer:
        """The balancer of a model with `num_layers` MoE layers of `num_experts` experts."""
        raise NotImplementedError

    def unread(self, run: RunConfig) -> dict[str, Unread]:
        return {} if run.experts.is_moe else {"": DENSE_HAS_NO_ROUTER}


class Balancer(nn.Module):
    """Base class and `balancer=none`: no loss, no steering, no state.

    Whatever state a balancer has must stay the same in every process of a run. What follows from `load_LE` does, for
    that is summed over all of them; what follows from a process's own `Routing` records needs `ranks`.
    """

    ranks: Ranks = ALONE  # the processes that train the run together; set by whoever builds the balancer

    @property
    def needs_step_load(self) -> bool:
        """Whether `loss` wants the picks of the whole optimizer step, which costs a second forward pass."""
        return False

    def ranking_TE(self, layer: int, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """What top-k ranks in `layer`, (T, E). Called without gradient."""
        return logits_TE

    def loss(
        self,
        routings: Sequence[Routing],
        *,
        num_sequences: int = 1,
        lengths_B: Sequence[int] | None = None,
        step_load_LE: Tensor | None = None,
    ) -> Tensor | None:
        """A scalar to add to one micro-batch's loss, coefficient included, or None.

        The T tokens of each routing are `num_sequences` sequences, one after the other, of equal length unless
        `lengths_B` gives the length of each, as a packed batch must. A balancer that needs equal ones refuses others.
        `step_load_LE` (L, E) int64: picks of the step's whole global batch, if the balancer needs them; None where this
        micro-batch is all of it.
        """
        return None

    def observe(self, routings: Sequence[Routing], *, progress: float = 0.0) -> None:
        """Look at one micro-batch after its backward pass, in training alone. `progress` as in `update`."""

    def update(self, load_LE: Tensor, *, progress: float = 0.0) -> None:
        """Change state, once per optimizer step, after every micro-batch was observed.

        `load_LE` (L, E) int64: picks of the step's whole global batch. `progress`: the share of the run's steps that
        lie behind, 0 in the first step.
        """


def uneven_picks(run: RunConfig, key: str, num_sequences: int) -> Iterator[ConfigError]:
    """An error where the picks of `num_sequences` sequences, the value of `key`, cannot be shared equally."""
    experts, seq_len = run.experts, run.trainer.seq_len
    if isinstance(experts, MoEExpertsConfig) and num_sequences * seq_len * experts.top_k % experts.num_experts:
        rule = (
            f"balancer={run.balancer.kind} gives every expert the same number of tokens, and {num_sequences} sequences "
            f"of {seq_len} tokens with {experts.top_k} picks each do not divide by {experts.num_experts} experts"
        )
        step = experts.num_experts // math.gcd(seq_len * experts.top_k, experts.num_experts)
        yield ConfigError(key, num_sequences, rule, f"Use a multiple of {step}.")


@component("balancer", "none")
@dataclass(slots=True)
class NoBalancerConfig(BalancerConfig):
    """Nothing balances the experts: the control."""

    kind: str = "none"

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Balancer:
        return Balancer()
