"""Measures of routing: closed forms, hand values, and what random routing looks like.

Axes: L MoE layers, T tokens, E experts, K picks per token.
"""

from __future__ import annotations

import math

import pytest
import torch

from moe_sweeps.balancing import metrics
from moe_sweeps.balancing.load import LoadCounter
from moe_sweeps.balancing.metrics import maxvio, maxvio_L
from moe_sweeps.model.router import Routing, count_picks


@pytest.mark.parametrize(("experts", "k"), [(8, 2), (16, 1), (4, 4)])
def test_closed_forms(experts: int, k: int) -> None:
    balanced = torch.full((1, experts), 30)
    collapsed = torch.zeros(1, experts, dtype=torch.int64)
    collapsed[0, :k] = 100
    assert maxvio(balanced).item() == 0
    assert maxvio(collapsed).item() == experts / k - 1
    for load_LE, cv, gini, effective, dead in (
        (balanced, 0, 0, experts, 0),
        (collapsed, math.sqrt(experts / k - 1), 1 - k / experts, k, experts - k),
    ):
        assert metrics.cv_L(load_LE).item() == pytest.approx(cv)
        assert metrics.gini_L(load_LE).item() == pytest.approx(gini)
        assert metrics.effective_experts_L(load_LE).item() == pytest.approx(effective)
        assert metrics.dead_experts_L(load_LE).item() == dead


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


def test_hand_values_of_load_measures() -> None:
    load_LE = torch.tensor([[1, 3], [2, 2]])
    assert metrics.cv_L(load_LE).tolist() == [0.5, 0.0]  # sd 1 around 2, divided by n, not by n - 1
    assert metrics.gini_L(load_LE).tolist() == [0.25, 0.0]  # mean |difference| over all pairs is 1; 1 / (2 * 2)
    h = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert metrics.effective_experts_L(load_LE).tolist() == pytest.approx([math.exp(h), 2.0])


def test_the_gini_coefficient_is_half_the_mean_absolute_difference() -> None:
    load_LE = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(0)).double()
    pairs = (load_LE[:, :, None] - load_LE[:, None, :]).abs().mean(dim=(1, 2))
    torch.testing.assert_close(metrics.gini_L(load_LE), pairs / (2 * load_LE.mean(dim=1)))


def test_an_expert_is_dead_below_a_hundredth_of_the_mean() -> None:
    rest = [2000 - 19, 2000 + 19 - 9 - 10]  # the mean is 1000
    assert metrics.dead_experts_L(torch.tensor([[9, 10, *rest]])).tolist() == [1.0]


def test_entropies_of_certain_undecided_and_divided_tokens() -> None:
    certain_alike = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    certain_apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    undecided = torch.full((2, 2), 0.5)
    probs_LTE = torch.stack([certain_alike, certain_apart, undecided])
    ln2 = math.log(2)
    assert metrics.token_entropy_L(probs_LTE).tolist() == pytest.approx([0, 0, ln2])
    assert metrics.batch_entropy_L(probs_LTE.mean(dim=-2)).tolist() == pytest.approx([0, ln2, ln2])
    assert metrics.mutual_information_L(
        probs_LTE.mean(dim=-2), metrics.token_entropy_L(probs_LTE)
    ).tolist() == pytest.approx([0, ln2, 0])
    assert metrics.mean_prob_max_L(probs_LTE.mean(dim=-2)).tolist() == [1, 0.5, 0.5]
    assert metrics.max_prob_L(probs_LTE).tolist() == [1, 1, 0.5]


def test_the_logit_scale_is_a_root_mean_square() -> None:
    assert metrics.logit_scale_L(torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])).tolist() == pytest.approx([12.5**0.5, 0])


def test_saturation_counts_common_picks_in_any_order() -> None:
    now_LTK = torch.tensor([[[0, 1], [2, 3]], [[0, 1], [0, 1]]])
    final_LTK = torch.tensor([[[1, 0], [3, 4]], [[2, 3], [2, 3]]])
    assert metrics.saturation_L(now_LTK, final_LTK).tolist() == [0.75, 0.0]


@pytest.mark.parametrize(("tokens", "floor"), [(2_560, 0.053), (20_480, 0.018), (163_840, 0.007)])
def test_the_floor_of_maxvio_under_random_balanced_routing(tokens: int, floor: float) -> None:
    """Each token picks 2 of 8 experts, all pairs alike: what perfect balance on average looks like in a sample."""
    generator = torch.Generator().manual_seed(0)
    repeats = 200 if tokens < 100_000 else 60
    load_RE = torch.stack([_random_load(tokens, generator) for _ in range(repeats)])
    assert maxvio_L(load_RE).mean().item() == pytest.approx(floor, abs=0.0015)


def _random_load(tokens: int, generator: torch.Generator) -> torch.Tensor:
    first_T = torch.randint(8, (tokens,), generator=generator)
    second_T = (first_T + torch.randint(1, 8, (tokens,), generator=generator)) % 8  # any expert but the first
    return count_picks(torch.stack([first_T, second_T], dim=1), 8)
