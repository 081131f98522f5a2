"""Our model as Hugging Face's Mixtral, or with QK-norm as its Qwen3-MoE: the same shape, the same weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from moe_sweeps.config.groups import MoEExpertsConfig
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.transformer import Transformer


def as_mixtral(ours: Transformer, run: RunConfig, vocab_size: int) -> MixtralForCausalLM:
    """A MixtralForCausalLM of the same shape with copies of the same weights."""
    experts = run.experts
    assert isinstance(experts, MoEExpertsConfig)
    config = MixtralConfig(
        vocab_size=vocab_size,
        hidden_size=run.model.width,
        intermediate_size=experts.ffn_hidden,
        num_hidden_layers=run.model.layers,
        num_attention_heads=run.model.heads,
        num_key_value_heads=run.model.heads,
        num_local_experts=experts.num_experts,
        num_experts_per_tok=experts.top_k,
        max_position_embeddings=run.trainer.seq_len,
        rms_norm_eps=run.model.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": run.model.rope_theta},
        tie_word_embeddings=True,
        use_cache=False,
    )
    mixtral = MixtralForCausalLM(config)
    missing, unexpected = mixtral.load_state_dict(mixtral_weights(ours.state_dict()), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # the head is tied to the embedding
    return mixtral


def as_qwen3_moe(ours: Transformer, run: RunConfig, vocab_size: int) -> Qwen3MoeForCausalLM:
    """A Qwen3MoeForCausalLM of the same shape with copies of the same weights; it normalises queries and keys."""
    experts = run.experts
    assert isinstance(experts, MoEExpertsConfig)
    config = Qwen3MoeConfig(
        vocab_size=vocab_size,
        hidden_size=run.model.width,
        moe_intermediate_size=experts.ffn_hidden,
        num_hidden_layers=run.model.layers,
        num_attention_heads=run.model.heads,
        num_key_value_heads=run.model.heads,
        num_experts=experts.num_experts,
        num_experts_per_tok=experts.top_k,
        norm_topk_prob=True,
        max_position_embeddings=run.trainer.seq_len,
        rms_norm_eps=run.model.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": run.model.rope_theta},
        tie_word_embeddings=True,
        use_cache=False,
    )
    qwen = Qwen3MoeForCausalLM(config)
    missing, unexpected = qwen.load_state_dict(mixtral_weights(ours.state_dict()), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    return qwen


def mixtral_weights(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors (or their gradients) under the names of Mixtral and Qwen3-MoE; the tied head is left out."""
    renamed = {
        "embedding.": "model.embed_tokens.",
        "final_norm.": "model.norm.",
        "attention_norm.": "input_layernorm.",
        "ffn_norm.": "post_attention_layernorm.",
        "attention.qk_norm.query_norm.": "self_attn.q_norm.",
        "attention.qk_norm.key_norm.": "self_attn.k_norm.",
        "attention.out_DD": "self_attn.o_proj.weight",
        "moe.router.weight_ED": "mlp.gate.weight",
        "moe.experts.up_EHD": "mlp.experts.gate_up_proj",
        "moe.experts.down_EDF": "mlp.experts.down_proj",
    }
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        target = f"model.{name}" if name.startswith("layers.") else name
        for old, new in renamed.items():
            target = target.replace(old, new)
        if target.endswith("attention.qkv_QD"):
            stem = target.removesuffix("attention.qkv_QD") + "self_attn."
            theirs |= {f"{stem}{p}_proj.weight": part for p, part in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            theirs[target] = tensor
    return theirs
