"""Metrics of routing, as pure functions of loads, probabilities, logits or picks.

Loads c_i are picks of expert i over the tokens in scope; sum_i c_i = kT. Distributions p_ti are over experts.

Axes: L MoE layers, T tokens, E experts, K picks per token, D domains of the corpus.
"""

from __future__ import annotations

import torch
from torch import Tensor

# An expert with less than this share of the mean load is dead.
DEAD_SHARE = 0.01


# --- of loads ---------------------------------------------------------------------------------------------------------


def maxvio_L(load_LE: Tensor) -> Tensor:
    """MaxVio = (max_i c_i - mean c) / mean c of each layer, float64 (L,) (arXiv 2408.15664).

    0 when balanced, E/k - 1 when k experts take every token. The tokens in scope are one step's global batch
    (`maxvio_batch`), one micro-batch (`maxvio_micro`) or the whole validation set (`maxvio_global`): sum counts over
    the scope first, and do not average MaxVio over parts of it.
    """
    load = load_LE.to(torch.float64)
    mean_L = load.mean(dim=-1)
    return (load.amax(dim=-1) - mean_L) / mean_L


def maxvio(load_LE: Tensor) -> Tensor:
    """Mean over layers of `maxvio_L`, a float64 scalar."""
    return maxvio_L(load_LE).mean()


def cv_L(load_LE: Tensor) -> Tensor:
    """Coefficient of variation sd(c) / mean c of each layer, float64 (L,), with the population standard deviation.

    0 when balanced, sqrt(E/k - 1) when k experts take every token. Its square is the importance loss of
    arXiv 1701.06538.
    """
    load = load_LE.to(torch.float64)
    return load.std(dim=-1, unbiased=False) / load.mean(dim=-1)


def gini_L(load_LE: Tensor) -> Tensor:
    """Gini coefficient of each layer, float64 (L,): sum_i (2i - E - 1) c_(i) / (E sum c), c_(1) the smallest load.

    Half the mean absolute difference between two experts over the mean. 0 when balanced, 1 - k/E when k take all.
    """
    load = load_LE.to(torch.float64)
    experts = load.shape[-1]
    rank_E = torch.arange(1 - experts, experts, 2, dtype=load.dtype, device=load.device)
    return (load.sort(dim=-1).values * rank_E).sum(dim=-1) / (experts * load.sum(dim=-1))


def effective_experts_L(load_LE: Tensor) -> Tensor:
    """N_eff = exp(entropy of f) of each layer, float64 (L,), f_i = c_i / sum c: E when balanced, k when k take all."""
    load = load_LE.to(torch.float64)
    return entropy(load / load.sum(dim=-1, keepdim=True)).exp()


def dead_experts_L(load_LE: Tensor) -> Tensor:
    """Number of experts of each layer whose load is below 1% of the mean load, float64 (L,)."""
    load = load_LE.to(torch.float64)
    return (load < DEAD_SHARE * load.mean(dim=-1, keepdim=True)).sum(dim=-1).to(torch.float64)


# --- of probabilities and logits --------------------------------------------------------------------------------------


def entropy(p_XE: Tensor) -> Tensor:
    """-sum_i p_i ln p_i in nats over the last axis, with 0 ln 0 = 0; shape (X,), whatever axes X stands for."""
    terms: Tensor = torch.special.entr(p_XE)
    return terms.sum(dim=-1)


def token_entropy_L(probs_LTE: Tensor) -> Tensor:
    """Mean over tokens of H_t = -sum_i p_ti ln p_ti of each layer, (L,): ln E when uniform, 0 when certain."""
    return entropy(probs_LTE).mean(dim=-1)


def batch_entropy_L(mean_prob_LE: Tensor) -> Tensor:
    """Entropy of the mean over tokens of p_t, of each layer, (L,): ln E when the mean is uniform."""
    return entropy(mean_prob_LE)


def mutual_information_L(mean_prob_LE: Tensor, token_entropy_L: Tensor) -> Tensor:
    """Batch entropy minus token entropy, (L,): nats of information that a token gives about its expert; 0 to ln E."""
    return batch_entropy_L(mean_prob_LE) - token_entropy_L


def mean_prob_max_L(mean_prob_LE: Tensor) -> Tensor:
    """Largest mean probability, max_i mean_t p_ti of each layer, (L,): 1/E when the mean is uniform."""
    return mean_prob_LE.amax(dim=-1)


def max_prob_L(probs_LTE: Tensor) -> Tensor:
    """Mean over tokens of a token's largest probability, mean_t max_i p_ti of each layer, (L,)."""
    return probs_LTE.amax(dim=-1).mean(dim=-1)


def logit_scale_L(logits_LTE: Tensor) -> Tensor:
    """Root mean square of the router's logits over tokens and experts, of each layer, (L,)."""
    return logits_LTE.square().mean(dim=(-2, -1)).sqrt()


# --- of picks ---------------------------------------------------------------------------------------------------------


def saturation_L(now_LTK: Tensor, final_LTK: Tensor) -> Tensor:
    """Router saturation (OLMoE, arXiv 2409.02060): mean over tokens of |top-k now and at the end| / k, float64 (L,).

    1 when routing no longer changes; about k/E for a router that is independent of the final one.
    """
    kept_LTK = (now_LTK.unsqueeze(-1) == final_LTK.unsqueeze(-2)).any(dim=-1)
    return kept_LTK.to(torch.float64).mean(dim=(-2, -1))
