"""The parameters of our model with Megatron's names and layout, as views where the layout is the same.

Axes: E experts, N heads, C head size, D width; Q = 3D query, key and value rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from moe_sweeps.model.transformer import Layer, Transformer


def megatron_weights(model: Transformer, *, fused: bool, local: slice, dtype: torch.dtype) -> dict[str, Tensor]:
    """Megatron's name -> tensor, differentiable with respect to the parameters of `model`.

    `fused`: with the names of Transformer Engine's modules. `local`: the experts that this process computes. `dtype`:
    of all tensors but the router's, as stock Megatron casts its weights. Gradients have the dtype of the parameters.
    """
    found = {"embedding.word_embeddings.weight": model.embedding.weight.to(dtype)}
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        found |= {f"decoder.layers.{i}.{name}": tensor for name, tensor in _layer(layer, fused, local, dtype)}
    return found | {"decoder.final_layernorm.weight": model.final_norm.weight.to(dtype)}


def _layer(layer: Layer, fused: bool, local: slice, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    attention = layer.attention
    yield "self_attention.linear_qkv.weight", by_head(attention.qkv_QD.to(dtype), attention.head_dim)
    yield "self_attention.linear_proj.weight", attention.out_DD.to(dtype)
    if attention.qk_norm is not None:
        yield "self_attention.q_layernorm.weight", attention.qk_norm.query_norm.weight.to(dtype)
        yield "self_attention.k_layernorm.weight", attention.qk_norm.key_norm.weight.to(dtype)
    norm = "self_attention.linear_qkv.layer_norm_weight" if fused else "input_layernorm.weight"
    yield norm, layer.attention_norm.weight.to(dtype)
    if hasattr(layer, "ffn"):
        yield "mlp.linear_fc1.weight", layer.ffn.up_HD.to(dtype)
        yield "mlp.linear_fc2.weight", layer.ffn.down_DF.to(dtype)
        yield (
            "mlp.linear_fc1.layer_norm_weight" if fused else "pre_mlp_layernorm.weight",
            layer.ffn_norm.weight.to(dtype),
        )
        return
    yield "pre_mlp_layernorm.weight", layer.ffn_norm.weight.to(dtype)
    yield "mlp.router.weight", layer.moe.router.weight_ED
    experts = layer.moe.experts
    up_EHD, down_EDF = experts.up_EHD.to(dtype)[local], experts.down_EDF.to(dtype)[local]
    for e, (up_HD, down_DF) in enumerate(zip(up_EHD, down_EDF, strict=True)):
        place = f"mlp.experts.linear_fc%d.weight{e}" if fused else f"mlp.experts.local_experts.{e}.linear_fc%d.weight"
        yield place % 1, up_HD
        yield place % 2, down_DF


def by_head(qkv_QD: Tensor, head_dim: int) -> Tensor:
    """(Q, D): from rows of all queries, all keys, all values to the query, key and value rows of each head in turn."""
    qkv_3NCD = qkv_QD.view(3, -1, head_dim, qkv_QD.shape[1])
    return qkv_3NCD.transpose(0, 1).reshape(qkv_QD.shape)
