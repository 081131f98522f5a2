"""The interface of all balancers, and the balancer that does nothing.

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
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import Routing

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


@dataclass(slots=True)
class BalancerConfig(Component):
    """Base of the balancers' configs."""

    # Whether experts choose tokens in training; otherwise tokens choose experts.
    EXPERTS_CHOOSE: ClassVar[bool] = False

    def build(self, run: Run, num_layers: int, num_experts: int) -> Balancer:
        """The balancer of a model with `num_layers` MoE layers of `num_experts` experts."""
        raise NotImplementedError

    def unread(self, run: Run) -> dict[str, Unread]:
        return {} if run.experts.is_moe else {"": DENSE_HAS_NO_ROUTER}


class Balancer(nn.Module):
    """Base class and `balancer=none`: no loss, no steering, no state.

    The state of a balancer must stay the same in all processes of a run. `load_LE` is summed over all of them. A state
    that depends on a process's own `Routing` records must be communicated through `ranks`.
    """

    ranks: Ranks = ALONE  # the processes that train the run together; set by build_balancer

    @property
    def needs_step_load(self) -> bool:
        """Whether `loss` needs the picks of the whole optimizer step, which costs a second forward pass."""
        return False

    def ranking_TE(self, layer: int, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """The values that top-k ranks in `layer`, (T, E). Called without gradients."""
        return logits_TE

    def loss(
        self,
        routings: Sequence[Routing],
        *,
        num_sequences: int = 1,
        step_load_LE: Tensor | None = None,
    ) -> Tensor | None:
        """A scalar to add to one micro-batch's loss, coefficient included, or None.

        The T tokens of each routing are `num_sequences` sequences of equal length, one after the other.
        `step_load_LE` (L, E) int64: picks of the step's global batch, if the balancer needs them; None where this
        micro-batch is the whole global batch.
        """
        return None

    def observe(self, routings: Sequence[Routing], *, progress: float = 0.0) -> None:
        """Called for each micro-batch after its backward pass, only in training. `progress` as in `update`."""

    def update(self, load_LE: Tensor, *, progress: float = 0.0) -> None:
        """Update the state. Called once per optimizer step, after all its micro-batches were observed.

        `load_LE` (L, E) int64: picks of the step's global batch. `progress`: the share of the run's steps that are
        done, 0 in the first step.
        """


def build_balancer(run: Run, ranks: Ranks = ALONE) -> Balancer:
    """The balancer of `run`, which is trained by `ranks`. A model without experts has one that does nothing."""
    if not isinstance(run.experts, MoEExpertsConfig):
        return Balancer()
    assert isinstance(run.balancer, BalancerConfig)
    balancer = run.balancer.build(run, run.model.layers, run.experts.num_experts)
    balancer.ranks = ranks
    return balancer


def uneven_picks(run: Run, key: str, num_sequences: int) -> Iterator[ConfigError]:
    """An error if the picks of `num_sequences` sequences, the value of `key`, do not divide by the experts."""
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

    def build(self, run: Run, num_layers: int, num_experts: int) -> Balancer:
        return Balancer()
