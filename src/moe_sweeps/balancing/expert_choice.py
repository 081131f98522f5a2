"""Expert choice: balance by construction, and NOT causal in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from moe_sweeps.balancing.base import Balancer, BalancerConfig, uneven_picks
from moe_sweeps.config.registry import component
from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


@component("balancer", "expert_choice")
@dataclass(slots=True)
class ExpertChoiceConfig(BalancerConfig):
    """Each expert takes its C = kT/E best tokens of the micro-batch (arXiv 2202.09368). NOT causal in training.

    Whether an expert takes a token depends on the tokens after it, so that training losses leak the future. Evaluation
    is causal: there tokens choose their k best experts, as with every other balancer. `Router` does both. A micro-batch
    is that of one process, so the number of processes changes nothing as long as `trainer.micro_batch_size` stays.
    """

    EXPERTS_CHOOSE: ClassVar[bool] = True
    kind: str = "expert_choice"

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Balancer:
        return Balancer()

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        yield from uneven_picks(run, "trainer.micro_batch_size", run.trainer.micro_batch_size)
