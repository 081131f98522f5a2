"""Loss-free balancing: a bias on the selection that follows the loads, with or without an auxiliary loss.

Axes: T tokens, E experts, L MoE layers. Counts c_i are picks of expert i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from moe_sweeps.balancing.auxiliary import AuxBalancer
from moe_sweeps.balancing.base import Balancer, BalancerConfig
from moe_sweeps.balancing.load import stack_counts
from moe_sweeps.config.choice import Choice
from moe_sweeps.config.groups import AuxConfig, AuxScope
from moe_sweeps.config.registry import component, knob
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import Routing

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


class BiasTarget(Enum):
    """What the loss-free bias is added to for the selection."""

    scores = "scores"
    logits = "logits"


class BiasUpdate(Choice):
    """How far the bias moves, with e_i = (mean(c) - c_i) / mean(c)."""

    sign = "sign", "rate * sign(e)"
    magnitude = "magnitude", "rate * e"


class UpdateEvery(Choice):
    """When the bias moves, and by which counts."""

    step = "step", "once per optimizer step, by the counts of its whole global batch"
    micro_step = "micro_step", "after every micro-batch, by its own counts on the first rank: the talk"


@component("balancer", "lossfree")
@dataclass(slots=True)
class LossFreeConfig(BalancerConfig):
    """A bias per expert that steers the selection and never the weights (arXiv 2408.15664)."""

    kind: str = "lossfree"
    rate: float = knob(1e-3, gt=0, doc="size of a bias update; in the paper 1e-4 is slow and 1e-2 oscillates")
    bias_on: BiasTarget = knob(BiasTarget.scores, doc="what the bias is added to: router scores or logits")
    update: BiasUpdate = knob(
        BiasUpdate.sign, neutral=BiasUpdate.sign, doc="how far the bias moves, with e_i = (mean(c) - c_i) / mean(c)"
    )
    recenter: bool = knob(False, neutral=False, doc="subtract each layer's mean bias after every update (torchtitan)")
    decay_fraction: float = knob(
        0.0,
        ge=0,
        le=1,
        neutral=0.0,
        doc=(
            "the rate falls linearly to 0 over this last fraction of the steps (DeepSeek-V3 ends on 0); 0: it "
            "stays constant"
        ),
    )
    update_every: UpdateEvery = knob(
        UpdateEvery.step, neutral=UpdateEvery.step, doc="when the bias moves, and by which counts"
    )

    def canonical(self, run: Run) -> LossFreeConfig:
        """With one micro-batch a step, a step and a micro-step are the same."""
        return replace(self, update_every=UpdateEvery.step) if run.trainer.micro_batches == 1 else self

    def build(self, run: Run, num_layers: int, num_experts: int) -> LossFree:
        return LossFree(self, num_layers, num_experts)


class LossFree(Balancer):
    """b_i += rate * sign(mean(c) - c_i) once per optimizer step; sign(0) = 0; b is float32 and starts at 0."""

    bias_LE: Tensor

    def __init__(self, config: LossFreeConfig, num_layers: int, num_experts: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bias_LE", torch.zeros(num_layers, num_experts, dtype=torch.float32))

    def ranking_TE(self, layer: int, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        base_TE = logits_TE if self.config.bias_on is BiasTarget.logits else scores_TE
        return base_TE + self.bias_LE[layer]

    def observe(self, routings: Sequence[Routing], *, progress: float = 0.0) -> None:
        if self.config.update_every is UpdateEvery.micro_step:
            self._move(self.ranks.broadcast(stack_counts(routings)), progress)

    def update(self, load_LE: Tensor, *, progress: float = 0.0) -> None:
        if self.config.update_every is UpdateEvery.step:
            self._move(load_LE, progress)

    def rate(self, progress: float) -> float:
        """The update rate when the share `progress` of the steps is done."""
        fraction = self.config.decay_fraction
        return self.config.rate * (min(1.0, (1 - progress) / fraction) if fraction else 1.0)

    @torch.no_grad()
    def _move(self, counts_LE: Tensor, progress: float) -> None:
        # E * (mean(c) - c) in integers, so that its sign is exact.
        total_L1 = counts_LE.sum(dim=1, keepdim=True)
        error_LE = total_L1 - counts_LE.shape[1] * counts_LE
        by_sign = self.config.update is BiasUpdate.sign
        self.bias_LE += self.rate(progress) * (error_LE.sign() if by_sign else error_LE / total_L1)
        if self.config.recenter:
            self.bias_LE -= self.bias_LE.mean(dim=1, keepdim=True)


@component("balancer", "aux_lossfree")
@dataclass(slots=True)
class AuxLossFreeConfig(LossFreeConfig):
    """The bias of `lossfree` with the auxiliary loss of `aux` beside it (DeepSeek-V3, arXiv 2412.19437)."""

    READS: ClassVar[frozenset[str]] = frozenset({"aux"})
    kind: str = "aux_lossfree"

    def build(self, run: Run, num_layers: int, num_experts: int) -> AuxLossFree:
        return AuxLossFree(self, run.aux, num_layers, num_experts)

    def check(self, run: Run) -> Iterator[ConfigError]:
        if run.aux.scope is AuxScope["global"] and self.update_every is UpdateEvery.micro_step:
            rule = "aux.scope=global counts the step's picks in advance, and the bias would change them during the step"
            fix = "Use balancer.update_every=step or another aux.scope."
            yield ConfigError("balancer.update_every", self.update_every.value, rule, fix)


class AuxLossFree(LossFree):
    """`LossFree` steers the selection, and the loss of `AuxBalancer` is added to every micro-batch."""

    def __init__(self, config: AuxLossFreeConfig, aux: AuxConfig, num_layers: int, num_experts: int) -> None:
        super().__init__(config, num_layers, num_experts)
        self.auxiliary = AuxBalancer(aux)

    @property
    def needs_step_load(self) -> bool:
        return self.auxiliary.needs_step_load

    def loss(
        self,
        routings: Sequence[Routing],
        *,
        num_sequences: int = 1,
        step_load_LE: Tensor | None = None,
    ) -> Tensor:
        return self.auxiliary.loss(routings, num_sequences=num_sequences, step_load_LE=step_load_LE)
