"""Expert loads: counted once per optimizer step, over all micro-batches, for balancers and metrics.

Axes: L MoE layers, E experts, B sequences, P picks of a sequence, N windows, D domains of the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from moe_sweeps.model.precision import to_device
from moe_sweeps.model.router import Routing, count_picks


def stack_counts(routings: Sequence[Routing]) -> Tensor:
    """Picks of one micro-batch, int64 (L, E)."""
    return torch.stack([r.counts_E for r in routings])


def count_by_group(ids_BP: Tensor, group_B: Tensor, num_groups: int, num_experts: int) -> Tensor:
    """Picks of each group's rows, int64 (num_groups, E): row b of `ids_BP` belongs to group `group_B[b]`."""
    numbered_BP = group_B.unsqueeze(1) * num_experts + ids_BP  # expert e of group g is number g * E + e
    return count_picks(numbered_BP, num_groups * num_experts).view(num_groups, num_experts)


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
    """Picks by domain over a pass through validation windows; `domain_N` has the domain of each window, in order."""

    def __init__(self, domain_N: Sequence[int], num_domains: int) -> None:
        self._domain_N, self._num_domains = torch.tensor(domain_N, dtype=torch.int64), num_domains
        self._windows = 0
        self._sum_DLE: Tensor | None = None

    def add(self, routings: Sequence[Routing], num_windows: int) -> None:
        """Count the next `num_windows` windows."""
        if self._windows == 0:  # one copy to a GPU a pass
            self._domain_N = to_device(self._domain_N, routings[0].ids_TK.device)
        domain_B = self._domain_N[self._windows : self._windows + num_windows]
        self._windows += num_windows
        load_DLE = torch.stack([self._layer_DE(routing, domain_B) for routing in routings], dim=1)
        self._sum_DLE = load_DLE if self._sum_DLE is None else self._sum_DLE + load_DLE

    def _layer_DE(self, routing: Routing, domain_B: Tensor) -> Tensor:
        ids_BP = routing.ids_TK.view(len(domain_B), -1)
        return count_by_group(ids_BP, domain_B, self._num_domains, routing.counts_E.shape[0])

    def total(self) -> Tensor | None:
        """`load_DLE`, int64 (D, L, E); None before anything was added."""
        return self._sum_DLE
