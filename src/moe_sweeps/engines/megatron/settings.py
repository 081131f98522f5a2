"""From a run's config to Megatron's: every field that affects what the model computes. L MoE layers, E experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from moe_sweeps.balancing import LossFreeConfig
from moe_sweeps.config.groups import AuxNormalization, AuxScope, DenseFFNConfig, MoEExpertsConfig
from moe_sweeps.model.router import SigmoidConfig, SoftmaxTopkConfig

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run

SCOPES = {AuxScope.micro: "aux_loss", AuxScope.sequence: "seq_aux_loss"}


def transformer_settings(run: Run, *, fused: bool, expert_parallel: int, half: bool = False) -> dict[str, Any]:
    """Arguments of Megatron's TransformerConfig. `fused`: with Transformer Engine's kernels; `half`: in bfloat16."""
    common = {
        "num_layers": run.model.layers,
        "hidden_size": run.model.width,
        "num_attention_heads": run.model.heads,
        "layernorm_epsilon": run.model.norm_eps,
        "ffn_hidden_size": _dense_hidden(run),
        "gated_linear_unit": True,
        "activation_func": F.silu,
        "add_bias_linear": False,
        "normalization": "RMSNorm",
        "qk_layernorm": run.model.qk_norm,  # of the kind `normalization`
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "gradient_accumulation_fusion": False,
        "bias_activation_fusion": fused,
        "masked_softmax_fusion": False,
        "bf16": half,
        # The skeleton has no weights: ours are passed to it at every call.
        "use_cpu_initialization": True,
        "perform_initialization": False,
        "init_model_with_meta_device": fused,
    }
    if not isinstance(run.experts, MoEExpertsConfig):
        return common
    return common | _moe(run.experts, fused, expert_parallel) | _router(run) | balancing_settings(run)


def _dense_hidden(run: Run) -> int:
    experts = run.experts
    return experts.ffn_hidden * (experts.active_experts if isinstance(experts, DenseFFNConfig) else 1)


def _moe(experts: MoEExpertsConfig, fused: bool, expert_parallel: int) -> dict[str, Any]:
    return {
        "num_moe_experts": experts.num_experts,
        "moe_ffn_hidden_size": experts.ffn_hidden,
        "moe_router_topk": experts.top_k,
        "moe_router_dtype": "fp32",
        "moe_token_dispatcher_type": "alltoall",
        "moe_grouped_gemm": fused,
        "moe_permute_fusion": fused,
        "expert_model_parallel_size": expert_parallel,
    }


def _router(run: Run) -> dict[str, Any]:
    """Softmax over the picked logits equals softmax over all logits, renormalised over the picked ones."""
    router = run.router
    jitter = {"moe_input_jitter_eps": router.input_jitter} if router.input_jitter else {}
    if isinstance(router, SigmoidConfig):
        scale = router.weight_scale
        return jitter | {"moe_router_score_function": "sigmoid", "moe_router_topk_scaling_factor": scale}
    before = isinstance(router, SoftmaxTopkConfig) and not router.renormalize
    return jitter | {"moe_router_score_function": "softmax", "moe_router_pre_softmax": before}


def balancing_settings(run: Run) -> dict[str, Any]:
    """Megatron's own auxiliary loss, z-loss and expert bias. Its losses are sums over layers, our z-loss is a mean."""
    found: dict[str, Any] = {"moe_router_load_balancing_type": "none", "moe_aux_loss_coeff": 0.0}
    if run.router.z_loss:
        found["moe_z_loss_coeff"] = run.router.z_loss / run.model.layers
    if "aux" in run.balancer.READS and run.aux.coef:
        found["moe_router_load_balancing_type"] = SCOPES[run.aux.scope]
        found["moe_aux_loss_coeff"] = megatron_coefficient(run)
    if isinstance(run.balancer, LossFreeConfig):
        # The balancer updates the bias, once a step; Megatron adds it to the scores.
        found |= {"moe_router_enable_expert_bias": True, "moe_router_bias_update_rate": run.balancer.rate}
    return found


def megatron_coefficient(run: Run) -> float:
    """`aux.coef` in Megatron's convention, coef * sum over layers of L_norm (docs/definitions.md)."""
    assert isinstance(run.experts, MoEExpertsConfig)
    if run.aux.normalization is AuxNormalization.megatron:
        return run.aux.coef
    per_layer = run.aux.coef / run.model.layers
    if run.aux.normalization is AuxNormalization.switch:
        return per_layer
    return per_layer * run.experts.top_k / run.experts.num_experts
