"""MaxVio in closed form."""

from __future__ import annotations

import pytest
import torch

from moe_sweeps.load import LoadCounter
from moe_sweeps.metrics import maxvio, maxvio_L
from moe_sweeps.model.router import Routing, count_picks


@pytest.mark.parametrize(("experts", "k"), [(8, 2), (16, 1), (4, 4)])
def test_closed_forms(experts: int, k: int) -> None:
    balanced = torch.full((1, experts), 30)
    collapsed = torch.zeros(1, experts, dtype=torch.int64)
    collapsed[0, :k] = 100
    assert maxvio(balanced).item() == 0
    assert maxvio(collapsed).item() == experts / k - 1


def test_mean_over_layers_of_hand_counts() -> None:
    load_LE = torch.tensor([[6, 2, 2, 2], [3, 3, 3, 3]])  # means 3 and 3: MaxVio 1 and 0
    assert maxvio_L(load_LE).tolist() == [1.0, 0.0]
    assert maxvio(load_LE).item() == 0.5


def test_counts_are_summed_before_maxvio_is_taken() -> None:
    """Two opposite micro-batches balance each other; the mean of their MaxVio would not be 0."""
    counter = LoadCounter()
    for ids in ([[0], [0]], [[1], [1]]):
        ids_TK = torch.tensor(ids)
        empty = torch.empty(0)
        counter.add([Routing(empty, ids_TK, empty, empty, count_picks(ids_TK, 2))])
    total = counter.total()
    assert total is not None
    assert total.tolist() == [[2, 2]]
    assert maxvio(total).item() == 0


def test_a_model_without_experts_has_no_load() -> None:
    counter = LoadCounter()
    counter.add([])
    assert counter.total() is None
