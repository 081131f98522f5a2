"""Expert choice: balance by construction, and NOT causal in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from moe_sweeps.balancing.base import Balancer, BalancerConfig, uneven_picks
from moe_sweeps.config.registry import component
from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run

COMPILED_WRONG = ("sigmoid", "topk_softmax")


@component("balancer", "expert_choice")
@dataclass(slots=True)
class ExpertChoiceConfig(BalancerConfig):
    """Each expert takes its C = kT/E best tokens of the micro-batch (arXiv 2202.09368). NOT causal in training.

    Whether an expert takes a token depends on later tokens, so training losses leak the future. Evaluation is causal:
    there tokens choose their k best experts, as with every other balancer. `Router` does both. A micro-batch belongs to
    one process, so the number of processes changes nothing as long as `trainer.micro_batch_size` stays.
    """

    EXPERTS_CHOOSE: ClassVar[bool] = True
    kind: str = "expert_choice"

    def build(self, run: Run, num_layers: int, num_experts: int) -> Balancer:
        return Balancer()

    def check(self, run: Run) -> Iterator[ConfigError]:
        yield from uneven_picks(run, "trainer.micro_batch_size", run.trainer.micro_batch_size)
        if run.router.kind in COMPILED_WRONG and run.engine.compile:
            # docs/LOG.md, 2026-11-30 and 2026-12-01: the loss is right, the gradient is not.
            rule = f"torch.compile (2.13) computes wrong gradients of router={run.router.kind} where experts choose"
            yield ConfigError("engine.compile", True, rule, "Use engine.compile=false, or router=softmax_topk.")
