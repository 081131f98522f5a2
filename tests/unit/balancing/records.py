"""Routing records with values for hand computation, and balancers without Hydra.

Axes: T tokens, E experts, K picks per token, L MoE layers.
"""

from __future__ import annotations

from typing import Any

import torch
from helpers import make_run
from torch import Tensor

from moe_sweeps.config.groups import AuxConfig, AuxScope, MoEExpertsConfig
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.model.router import RouterConfig, Routing, SigmoidConfig, SoftmaxTopkConfig, TopkSoftmaxConfig

GLOBAL = AuxScope["global"]
GATES: list[RouterConfig] = [TopkSoftmaxConfig(), SoftmaxTopkConfig(), SigmoidConfig()]


def routing(probs: list[list[float]], ids: list[list[int]], logits: Tensor | None = None) -> Routing:
    probs_TE = torch.tensor(probs, dtype=torch.float64)
    ids_TK = torch.tensor(ids)
    counts_E = torch.tensor([(ids_TK == e).sum().item() for e in range(probs_TE.shape[1])])
    logits_TE = torch.zeros_like(probs_TE) if logits is None else logits
    return Routing(torch.empty(0), ids_TK, logits_TE, probs_TE, counts_E)


# Three tokens, three experts, top-2. c = (3, 2, 1), f = c/6; P = column means = (0.5, 0.3, 0.2).
# L_norm = 3 (3*0.5 + 2*0.3 + 1*0.2) / 6 = 1.15; talk: sum (c/3) P = (1.5 + 0.6 + 0.2) / 3 = 23/30.
HAND = routing([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3]], [[0, 1], [0, 1], [0, 2]])


def build(kind: str, aux: AuxConfig | None = None, **knobs: Any) -> Any:
    """A balancer for two layers of three experts."""
    run = make_run(aux=aux or AuxConfig(coef=0.5), experts=MoEExpertsConfig(num_experts=3))
    return REGISTRY["balancer"][kind](**knobs).build(run, 2, 3)  # type: ignore[attr-defined]
