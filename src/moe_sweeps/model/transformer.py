"""A LLaMA-style decoder with MoE layers as feed-forward networks, or dense SwiGLU layers for the baseline.

Axes: B sequences, S positions, T = B*S tokens, D width, N heads, C head size, V vocabulary, E experts, K picks per
token, F hidden size, H = 2F gate rows then up rows, Q = 3D query, key and value rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moe_sweeps.config.groups import DenseFFNConfig, MoEExpertsConfig
from moe_sweeps.distributed.sharding import whole
from moe_sweeps.kernels import Kernels, chosen_kernels
from moe_sweeps.model import dense, fused
from moe_sweeps.model.cross_entropy import linear_cross_entropy
from moe_sweeps.model.moe import Experts, MoE, swiglu
from moe_sweeps.model.precision import wide_dtype
from moe_sweeps.model.router import Ranking, Router, RouterConfig, Routing

if TYPE_CHECKING:
    from moe_sweeps.config.groups import ModelConfig
    from moe_sweeps.config.run import Run

# The values that top-k ranks, from (layer, logits_TE, scores_TE): a balancer's `ranking_TE`.
LayerRanking = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """The results of one forward pass: losses where there were targets, otherwise logits."""

    routings: tuple[Routing, ...]  # one per MoE layer, first layer first; empty for a dense model
    logits_BSV: Tensor | None = None
    loss: Tensor | None = None  # mean cross-entropy in nats, float32 scalar, differentiable
    token_loss_BS: Tensor | None = None  # each token's cross-entropy, float32, without gradient
    correct_BS: Tensor | None = None  # bool: no token has a higher logit than the target


class Transformer(nn.Module):
    """Decoder with rotary positions, RMSNorm before each sub-layer, no biases, and the embedding as output head."""

    def __init__(self, run: Run, vocab_size: int, end_of_text_id: int | None = None) -> None:
        super().__init__()
        self.config = run.model
        if run.data.mask_documents and end_of_text_id is None:
            raise ValueError("data.mask_documents needs the id that ends a document")
        self.boundary_id = end_of_text_id if run.data.mask_documents else None
        # From an empty tensor, because nn.Embedding() would draw from the global random state.
        table_VD = torch.empty(vocab_size, run.model.width)
        self.embedding = nn.Embedding.from_pretrained(table_VD, freeze=False)
        self.layers = nn.ModuleList(Layer(run) for _ in range(run.model.layers))
        self.final_norm = RMSNorm(run.model.width, run.model.norm_eps)
        self.kernels: Kernels | None = None
        self.products: dense.Products | None = None

    def forward(
        self, tokens_BS: Tensor, targets_BS: Tensor | None = None, ranking: LayerRanking | None = None
    ) -> ModelOutput:
        """Predict the token after each of `tokens_BS` (B, S), and score the predictions where `targets_BS` is given.

        `ranking` replaces the values that each router's top-k ranks. Changes no state.
        """
        x_BSD, routings = self.layers_only(tokens_BS, ranking)
        x_BSD = self.final_norm(x_BSD)
        if targets_BS is None:
            return ModelOutput(routings, logits_BSV=F.linear(x_BSD, self.embedding.weight))
        loss, token_loss_T, correct_T = linear_cross_entropy(
            x_BSD.flatten(0, 1), self.embedding.weight, targets_BS.flatten(), self.kernels, self.products
        )
        return ModelOutput(
            routings,
            loss=loss,
            token_loss_BS=token_loss_T.view_as(targets_BS),
            correct_BS=correct_T.view_as(targets_BS),
        )

    def routings(self, tokens_BS: Tensor, ranking: LayerRanking | None) -> tuple[Routing, ...]:
        """The routings of a forward pass that stops before the output head."""
        return self.layers_only(tokens_BS, ranking)[1]

    def layers_only(self, tokens_BS: Tensor, ranking: LayerRanking | None) -> tuple[Tensor, tuple[Routing, ...]]:
        """The residual stream after the last layer (B, S, D), and the routings, one per MoE layer."""
        x_BSD = self.embedding(tokens_BS)
        rotary = rotary_tables(tokens_BS.shape[1], self.config, x_BSD)
        mask_BSS = None if self.boundary_id is None else document_mask(tokens_BS, self.boundary_id)
        routings: list[Routing] = []
        for i, layer in enumerate(self.layers):
            x_BSD, routing = layer(x_BSD, rotary, partial(ranking, i) if ranking else None, mask_BSS)
            routings += [routing] if routing else []
        return x_BSD, tuple(routings)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Fill every tensor from its own generator, seeded by (seed, name) and, in a stack, the expert's number.

        So models that differ in some tensors share all others, and 8 experts are the first 8 of 16. Matrices are
        N(0, init_std), or N(0, init_std / sqrt(2 * layers)) where they write to the residual stream (GPT-2). Norms are
        1.
        """
        std = self.config.init_std
        residual_std = std / math.sqrt(2 * self.config.layers)
        for name, module in self.named_modules():
            if isinstance(module, Router):
                module.init_weights(std, _generator(seed, f"{name}.weight_ED"))
        for name, param in self.named_parameters():
            if name.endswith("norm.weight"):
                param.fill_(1.0)
            elif ".router." not in name:
                is_residual = name.endswith(("out_DD", "down_DF", "down_EDF"))
                for label, matrix in _matrices(name, param):
                    matrix.normal_(std=residual_std if is_residual else std, generator=_generator(seed, label))


class Layer(nn.Module):
    """One decoder layer: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(run.model.width, run.model.norm_eps)
        self.attention = Attention(run.model)
        self.ffn_norm = RMSNorm(run.model.width, run.model.norm_eps)
        if isinstance(run.experts, MoEExpertsConfig):
            self.moe = _build_moe(run, run.experts)
        elif isinstance(run.experts, DenseFFNConfig):
            self.ffn = FeedForward(run.model.width, run.experts.active_experts * run.experts.ffn_hidden)
        else:
            raise TypeError(f"no feed-forward network is known for {type(run.experts).__name__}")

    def forward(
        self, x_BSD: Tensor, rotary: tuple[Tensor, Tensor], ranking: Ranking | None, mask_BSS: Tensor | None = None
    ) -> tuple[Tensor, Routing | None]:
        """The layer's output (B, S, D), and its routing if it has a router."""
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), rotary, mask_BSS)
        normed_BSD = self.ffn_norm(x_BSD)
        if hasattr(self, "ffn"):
            return x_BSD + self.ffn(normed_BSD), None
        y_TD, routing = self.moe(normed_BSD.flatten(0, 1), ranking)
        return x_BSD + y_TD.view_as(x_BSD), routing


class Attention(nn.Module):
    """Causal self-attention with rotary positions (arXiv 2104.09864); query, key and value rows in one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.qkv_QD = nn.Parameter(torch.empty(3 * config.width, config.width))
        self.out_DD = nn.Parameter(torch.empty(config.width, config.width))
        self.qk_norm = QKNorm(config) if config.qk_norm else None
        self.kernels: Kernels | None = None
        self.products: dense.Products | None = None

    def forward(self, x_BSD: Tensor, rotary: tuple[Tensor, Tensor], mask_BSS: Tensor | None = None) -> Tensor:
        """`mask_BSS`: True where position s may attend to the second S; None: to itself and all before it."""
        qkv_BSQ = dense.multiply(x_BSD, self.qkv_QD, self.products)
        if self.qk_norm is not None:
            qkv_BSQ = self.qk_norm(qkv_BSQ)
        if mask_BSS is None:
            attend = fused.either(qkv_BSQ, self.kernels, fused.rotary_attention, self._attend)
            y_BSD = attend(qkv_BSQ, rotary)
        else:
            y_BSD = self._attend(qkv_BSQ, rotary, mask_BSS)
        return dense.multiply(y_BSD, self.out_DD, self.products)

    def _attend(self, qkv_BSQ: Tensor, rotary: tuple[Tensor, Tensor], mask_BSS: Tensor | None = None) -> Tensor:
        """The heads' outputs side by side, (B, S, D)."""
        heads_BSNC = (*qkv_BSQ.shape[:2], -1, self.head_dim)
        q_BNSC, k_BNSC, v_BNSC = (part.view(heads_BSNC).transpose(1, 2) for part in qkv_BSQ.chunk(3, dim=-1))
        q_BNSC, k_BNSC = rotate(q_BNSC, rotary), rotate(k_BNSC, rotary)
        if mask_BSS is None:
            y_BNSC = F.scaled_dot_product_attention(q_BNSC, k_BNSC, v_BNSC, is_causal=True)
        else:
            y_BNSC = F.scaled_dot_product_attention(q_BNSC, k_BNSC, v_BNSC, attn_mask=mask_BSS.unsqueeze(1))
        return y_BNSC.transpose(1, 2).flatten(2)


class QKNorm(nn.Module):
    """RMSNorm of each head's queries and keys; all heads of a layer share a gain for queries and one for keys.

    It bounds the logits of attention whatever the weights grow to (arXiv 2302.05442, section 2, with LayerNorm).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.query_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.key_norm = RMSNorm(config.head_dim, config.norm_eps)

    def forward(self, qkv_BSQ: Tensor) -> Tensor:
        """(B, S, Q) with normalised queries and keys; the values are unchanged."""
        q_BSD, k_BSD, v_BSD = qkv_BSQ.chunk(3, dim=-1)
        heads_BSNC = (*q_BSD.shape[:2], -1, self.query_norm.weight.shape[0])
        q_BSNC, k_BSNC = self.query_norm(q_BSD.reshape(heads_BSNC)), self.key_norm(k_BSD.reshape(heads_BSNC))
        return torch.cat((q_BSNC.flatten(2).to(v_BSD.dtype), k_BSNC.flatten(2).to(v_BSD.dtype), v_BSD), dim=-1)


class FeedForward(nn.Module):
    """A dense SwiGLU without biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up_HD = nn.Parameter(torch.empty(2 * hidden, width))
        self.down_DF = nn.Parameter(torch.empty(width, hidden))
        self.kernels: Kernels | None = None
        self.products: dense.Products | None = None

    def forward(self, x_BSD: Tensor) -> Tensor:
        h_BSH = dense.multiply(x_BSD, self.up_HD, self.products)
        activation = fused.either(h_BSH, self.kernels, fused.swiglu, swiglu)
        return dense.multiply(activation(h_BSH), self.down_DF, self.products)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467), in float32 or wider."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps
        self.kernels: Kernels | None = None

    def forward(self, x_BSD: Tensor) -> Tensor:
        norm = fused.either(x_BSD, self.kernels, fused.rms_norm, rms_norm)
        return norm(x_BSD, self.weight, self.eps)


def rms_norm(x_BSD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32 or wider."""
    wide = x_BSD.to(wide_dtype(x_BSD))
    return F.rms_norm(wide, weight_D.shape, weight_D.to(wide.dtype), eps)


def document_mask(tokens_BS: Tensor, end_of_text_id: int) -> Tensor:
    """bool (B, S, S): True where a position may attend to another one, of its own document and not after it.

    `end_of_text_id` belongs to the document that it ends. Rotary positions count from the start of the window; since
    only their differences matter, a document's place in the window changes nothing.
    """
    ends_BS = tokens_BS == end_of_text_id
    document_BS = ends_BS.cumsum(dim=1) - ends_BS.long()
    same_BSS = document_BS.unsqueeze(2) == document_BS.unsqueeze(1)
    return same_BSS.tril()


def rotary_tables(seq_len: int, config: ModelConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin (S, C) of position * theta^(-2j/C); both halves of C have the same angles, as in LLaMA."""
    exponents = torch.arange(0, config.head_dim, 2, device=like.device, dtype=torch.float32) / config.head_dim
    positions = torch.arange(seq_len, device=like.device, dtype=torch.float32)
    angles_SC = torch.outer(positions, config.rope_theta**-exponents).repeat(1, 2)
    return angles_SC.cos().to(like.dtype), angles_SC.sin().to(like.dtype)


def rotate(x_BNSC: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate each pair (x_j, x_{j+C/2}) by its position's angle j."""
    cos_SC, sin_SC = rotary
    first, second = x_BNSC.chunk(2, dim=-1)
    return (x_BNSC * cos_SC + torch.cat((-second, first), dim=-1) * sin_SC).to(x_BNSC.dtype)


def build_model(run: Run, vocab_size: int, end_of_text_id: int | None = None) -> Transformer:
    """The model that `run` describes, on the CPU, with the weights that `run.seed` gives.

    `end_of_text_id` is the token that ends a document, for `data.mask_documents`.
    """
    model = Transformer(run, vocab_size, end_of_text_id)
    model.init_weights(run.seed)
    fused.use_kernels(model, chosen_kernels(run.engine.kernels))
    dense.use_products(model, dense.chosen_products(run.engine.kernels, run.trainer.precision))
    return model


def weights_digest(model: nn.Module) -> str:
    """Sixteen hex digits of a hash over the names, shapes, types and bytes of all parameters.

    If the model is sharded, all processes must call this.
    """
    digest = hashlib.sha256()
    for name, param in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(param.shape)}{param.dtype}".encode())
        digest.update(whole(param.detach()).cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _build_moe(run: Run, experts: MoEExpertsConfig) -> MoE:
    assert isinstance(run.router, RouterConfig)
    router = Router(run.model.width, experts.num_experts, experts.top_k, run.router, run.balancer.EXPERTS_CHOOSE)
    return MoE(router, Experts(experts.num_experts, run.model.width, experts.ffn_hidden, run.engine.expert_backend))


def _generator(seed: int, label: str) -> torch.Generator:
    """A generator whose seed follows from the arguments alone."""
    digest = hashlib.sha256(f"{seed}:{label}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _matrices(name: str, param: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(label, matrix) of every matrix in `param`, which is a matrix or a stack of them."""
    if param.dim() == 2:
        yield name, param
    else:
        yield from ((f"{name}[{e}]", matrix) for e, matrix in enumerate(param))
