"""Megatron's GPT without weights of its own. Import it only after `shim.prepare()`: it imports megatron-core.

Axes: B sequences, S positions, V vocabulary, E experts.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.func import functional_call

from moe_sweeps.config.groups import MoEExpertsConfig
from moe_sweeps.engines.megatron.router import RecordingRouter
from moe_sweeps.engines.megatron.settings import transformer_settings
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.router import RouterConfig, Routing

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


class Skeleton:
    """Megatron's GPT for one run. `local` is the range of experts that this process computes."""

    def __init__(self, run: Run, vocab_size: int, device: torch.device, *, fused: bool, expert_parallel: int) -> None:
        self.config, self.fused = run, fused
        num_experts = run.experts.num_experts if isinstance(run.experts, MoEExpertsConfig) else 0
        groups = process_groups(run.engine.expert_parallel, device, alone=expert_parallel == 1)  # type: ignore[attr-defined]
        half = Compute.of(run.trainer.precision, device).autocast
        settings = transformer_settings(run, fused=fused, expert_parallel=expert_parallel, half=half)
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # of optional packages and of options that are not set
            self.gpt = GPTModel(
                TransformerConfig(**settings),
                _layer_spec(num_experts or None, fused, run.model.qk_norm),
                vocab_size=vocab_size,
                max_sequence_length=run.trainer.seq_len,
                position_embedding_type="rope",
                rotary_base=run.model.rope_theta,
                share_embeddings_and_output_weights=True,
                pg_collection=groups,
            )
            self.routers = _recording_routers(self.gpt, groups)
        self.gpt.rotary_pos_emb.to(device)
        share = num_experts // expert_parallel
        first = share * dist.get_rank(groups.ep)
        self.local = slice(first, first + share)
        self.bias_names = [name for name, _ in self.gpt.named_buffers() if name.endswith(".router.expert_bias")]
        self._correct_BS: Tensor | None = None
        self._targets_BS: Tensor | None = None
        self.gpt.output_layer.register_forward_hook(self._look_at_logits)

    def require_names(self, weights: dict[str, Tensor]) -> None:
        """Raise MoeSweepsError unless `weights` have exactly the names and shapes of this Megatron's parameters."""
        expected = {name: tuple(p.shape) for name, p in self.gpt.named_parameters()}
        found = {name: tuple(t.shape) for name, t in weights.items()}
        if expected != found:
            differing = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise MoeSweepsError(f"this megatron-core has another layout than ours: {', '.join(differing[:4])}")

    def __call__(
        self,
        weights: dict[str, Tensor],
        bias_LE: list[Tensor],
        tokens_BS: Tensor,
        targets_BS: Tensor | None,
        hidden_B1SS: Tensor,
    ) -> Tensor:
        """Each token's cross-entropy (B, S) or, without targets, the logits (B, S, V).

        `bias_LE`: the expert bias of every router that has one. `hidden_B1SS`: True where a position may not attend.
        """
        tensors = weights | dict(zip(self.bias_names, bias_LE, strict=True))
        places_BS = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand_as(tokens_BS)
        self._targets_BS = targets_BS
        found: Tensor = functional_call(self.gpt, tensors, (tokens_BS, places_BS, hidden_B1SS), {"labels": targets_BS})
        if targets_BS is not None and found.requires_grad:
            # Megatron adds the gradients of its auxiliary losses in the backward pass. Scale them as the loss is.
            found.register_hook(_scale_auxiliary_losses)
        return found

    def routings(self) -> tuple[Routing, ...]:
        """The routings of the last call, first layer first."""
        config = self.config.router
        assert isinstance(config, RouterConfig)
        return tuple(router.record(config) for router in self.routers)

    def correct_BS(self) -> Tensor | None:
        """bool (B, S): no token had a higher logit than the target. None in training."""
        found, self._correct_BS = self._correct_BS, None
        return found

    def _look_at_logits(self, module: Any, arguments: Any, output: tuple[Tensor, Any]) -> None:
        """A hook, because the cross-entropy overwrites the logits."""
        if self._targets_BS is not None and not self.gpt.training:
            logits_BSV = output[0].detach().transpose(0, 1)
            target_BS1 = logits_BSV.gather(-1, self._targets_BS.unsqueeze(-1))
            self._correct_BS = (logits_BSV.amax(dim=-1, keepdim=True) == target_BS1).squeeze(-1)


def _scale_auxiliary_losses(grad_BS: Tensor) -> None:
    """The loss is a mean over tokens, so the gradient of the loss itself is the sum over tokens."""
    MoEAuxLossAutoScaler.set_loss_scale(grad_BS.sum().clone())


def _layer_spec(num_experts: int | None, fused: bool, qk_norm: bool) -> Any:
    if fused:
        return get_gpt_layer_with_transformer_engine_spec(
            num_experts=num_experts, moe_grouped_gemm=True, qk_layernorm=qk_norm
        )
    return get_gpt_layer_local_spec(
        num_experts=num_experts, moe_grouped_gemm=False, qk_layernorm=qk_norm, normalization="RMSNorm"
    )


def _recording_routers(gpt: GPTModel, groups: ProcessGroupCollection) -> list[RecordingRouter]:
    routers = []
    for module in gpt.modules():
        if isinstance(module, MoELayer):
            router = RecordingRouter(config=module.config, pg_collection=groups)
            router.set_layer_number(module.router.layer_number)
            module.router = router
            routers.append(router)
    return routers


def process_groups(expert_parallel: int, device: torch.device, *, alone: bool) -> ProcessGroupCollection:
    """Megatron's process groups over the processes of the run. `alone`: this process computes all experts.

    Raises:
        ConfigError: the number of processes is not a multiple of `expert_parallel`.
    """
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    if dist.get_world_size() % expert_parallel:
        rule = f"{dist.get_world_size()} processes cannot share the experts by {expert_parallel}"
        raise ConfigError("engine.expert_parallel", expert_parallel, rule, "Use a divisor of their number.")
    _divide_processes(expert_parallel)
    groups = ProcessGroupCollection.use_mpu_process_groups()
    if alone:
        groups = copy.copy(groups)
        groups.ep = groups.tp_ep = groups.tp  # this process alone
    return groups


_divided: tuple[Any, int] | None = None


def _divide_processes(expert_parallel: int) -> None:
    """Set Megatron's global groups, unless they are already those of this process group and `expert_parallel`."""
    global _divided
    wanted = dist.group.WORLD, expert_parallel
    if _divided == wanted and parallel_state.model_parallel_is_initialized():
        return
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(expert_model_parallel_size=expert_parallel)
    # Megatron requires its own generators to exist, though nothing draws from them.
    model_parallel_cuda_manual_seed(0, inference_rng_tracker=True, force_reset_rng=True)
    _divided = wanted
