"""The model of engine=megatron: our parameters, computed with by Megatron.

The parameters are those of `Transformer`, with the same names and layout. At every call they are passed to a GPT of
Megatron that has no weights of its own. So checkpoints, optimizers of matrices, learning rates of single experts and
the hash of the initial weights are the same for both engines.

Axes: B sequences, S positions, V vocabulary, E experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moe_sweeps.config.groups import ExpertBackend
from moe_sweeps.engines.megatron import shim
from moe_sweeps.engines.megatron.config import MegatronConfig, can_fuse
from moe_sweeps.engines.megatron.weights import megatron_weights
from moe_sweeps.model.precision import compute_dtype
from moe_sweeps.model.router import Routing
from moe_sweeps.model.transformer import LayerRanking, ModelOutput, Transformer, document_mask

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run
    from moe_sweeps.engines.megatron.skeleton import Skeleton


class MegatronTransformer(Transformer):
    """`Transformer`, computed by megatron-core. Megatron's own auxiliary loss, z-loss and expert bias do the balancing.

    Megatron adds the gradients of its auxiliary losses in the backward pass. So routing records have no gradient, and
    what `balancer.loss` and `z_loss` compute from them is only logged. With `engine.expert_parallel` every process
    still holds all experts, and computes its share of them in training. An evaluation, where processes have different
    numbers of batches, computes all experts in each process.
    """

    def __init__(self, run: Run, vocab_size: int, end_of_text_id: int | None, device: torch.device) -> None:
        super().__init__(run, vocab_size, end_of_text_id)
        from moe_sweeps.engines.megatron.skeleton import Skeleton

        assert isinstance(run.engine, MegatronConfig)
        # Transformer Engine's attention does not accept a document mask.
        wanted = run.engine.expert_backend is not ExpertBackend.loop and self.boundary_id is None
        fused = wanted and can_fuse(on_cpu=device.type == "cpu")
        sizes = {1, run.engine.expert_parallel}
        # In a dict, so that they are not submodules: they have no parameters.
        self._skeletons: dict[int, Skeleton] = {
            n: Skeleton(run, vocab_size, device, fused=fused, expert_parallel=n) for n in sorted(sizes, reverse=True)
        }
        self._num_experts = run.experts.num_experts if run.experts.is_moe else 0  # type: ignore[attr-defined]
        for skeleton in self._skeletons.values():
            skeleton.require_names(self._weights(skeleton))

    def forward(
        self, tokens_BS: Tensor, targets_BS: Tensor | None = None, ranking: LayerRanking | None = None
    ) -> ModelOutput:
        """As `Transformer.forward`. Of `ranking` only what it adds to the scores of every token is used: a bias."""
        skeleton = self._skeletons[max(self._skeletons) if self.training else 1]
        skeleton.gpt.train(self.training)
        hidden_B1SS = self._hidden_B1SS(tokens_BS)
        bias_LE = [self._bias_E(ranking, i) for i in range(len(skeleton.bias_names))]
        weights = self._weights(skeleton)
        # Megatron's mixed precision uses bfloat16 weights. Parts of it have no backward pass under autocast.
        with torch.autocast(tokens_BS.device.type, enabled=False):
            found = skeleton(weights, bias_LE, tokens_BS, targets_BS, hidden_B1SS)
        routings: tuple[Routing, ...] = skeleton.routings()
        if targets_BS is None:
            return ModelOutput(routings, logits_BSV=found)
        return ModelOutput(routings, loss=found.mean(), token_loss_BS=found.detach(), correct_BS=skeleton.correct_BS())

    def layers_only(self, tokens_BS: Tensor, ranking: LayerRanking | None) -> tuple[Tensor, tuple[Routing, ...]]:
        """Not available. aux.scope=global, which needs it, is refused when a run is planned."""
        raise NotImplementedError("Megatron's layers are not called without its head")

    def _weights(self, skeleton: Skeleton) -> dict[str, Tensor]:
        dtype = compute_dtype(self.embedding.weight)
        return megatron_weights(self, fused=skeleton.fused, local=skeleton.local, dtype=dtype)

    def _bias_E(self, ranking: LayerRanking | None, layer: int) -> Tensor:
        """A balancer's bias: its ranking of scores that are all 0."""
        nothing_1E = torch.zeros(1, self._num_experts, device=self.embedding.weight.device)
        return (ranking(layer, nothing_1E, nothing_1E) if ranking else nothing_1E)[0]

    def _hidden_B1SS(self, tokens_BS: Tensor) -> Tensor:
        if self.boundary_id is not None:
            return ~document_mask(tokens_BS, self.boundary_id).unsqueeze(1)
        length = tokens_BS.shape[1]
        return torch.ones(length, length, dtype=torch.bool, device=tokens_BS.device).triu(1)[None, None]


def build_megatron_model(
    run: Run, vocab_size: int, end_of_text_id: int | None, device: torch.device
) -> MegatronTransformer:
    """The model that `run` describes, on `device`, with the initial weights that the native engine has."""
    shim.prepare()
    model = MegatronTransformer(run, vocab_size, end_of_text_id, device)
    model.init_weights(run.seed)
    return model.to(device)
