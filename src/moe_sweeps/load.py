"""Expert loads: counted once per optimizer step, over all micro-batches. Balancers and metrics read them from here.

Axes: L MoE layers, E experts, B sequences, P picks of a sequence, N windows, D domains of the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from moe_sweeps.model.router import Routing, count_picks


def stack_counts(routings: Sequence[Routing]) -> Tensor:
    """Picks of one micro-batch, int64 (L, E)."""
    return torch.stack([r.counts_E for r in routings])


class LoadCounter:
    """Sums the picks of an optimizer step's micro-batches."""

    def __init__(self) -> None:
        self._sum_LE: Tensor | None = None

    def add(self, routings: Sequence[Routing]) -> None:
        """Count one micro-batch."""
        if not routings:
            return
        counts_LE = stack_counts(routings)
        self._sum_LE = counts_LE if self._sum_LE is None else self._sum_LE + counts_LE

    def total(self) -> Tensor | None:
        """`load_LE`, int64 (L, E): picks of everything that was added; None for a model without experts."""
        return self._sum_LE


class DomainLoads:
    """Picks of each domain's tokens over a pass through validation windows, whose domains are `domain_N` in order."""

    def __init__(self, domain_N: Sequence[int], num_domains: int) -> None:
        self._domain_N, self._num_domains = domain_N, num_domains
        self._windows = 0
        self._sum_DLE: Tensor | None = None

    def add(self, routings: Sequence[Routing], num_windows: int) -> None:
        """Count the next `num_windows` windows."""
        domains = self._domain_N[self._windows : self._windows + num_windows]
        self._windows += num_windows
        load_DLE = torch.stack([self._layer_DE(routing, domains) for routing in routings], dim=1)
        self._sum_DLE = load_DLE if self._sum_DLE is None else self._sum_DLE + load_DLE

    def _layer_DE(self, routing: Routing, domains: Sequence[int]) -> Tensor:
        """A pick of expert e by a token of domain d is number d * E + e of D * E."""
        num_experts = routing.counts_E.shape[0]
        picks_BP = routing.ids_TK.view(len(domains), -1)
        domain_B1 = torch.tensor(domains, device=picks_BP.device).unsqueeze(1)
        return count_picks(domain_B1 * num_experts + picks_BP, self._num_domains * num_experts).view(-1, num_experts)

    def total(self) -> Tensor | None:
        """`load_DLE`, int64 (D, L, E); None before anything was added."""
        return self._sum_DLE
