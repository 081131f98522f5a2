"""Expert loads: counted once per optimizer step, over all micro-batches. Balancers and metrics read them from here.

Axes: L MoE layers, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from moe_sweeps.model.router import Routing


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
