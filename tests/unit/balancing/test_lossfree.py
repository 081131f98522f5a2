"""The bias of loss-free balancing: its exact sequence on hand counts, and that it steers the selection alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import make_run
from unit.balancing.records import GATES, HAND, build

from moe_sweeps.balancing import AuxLossFreeConfig, BiasTarget, BiasUpdate, LossFreeConfig, UpdateEvery
from moe_sweeps.model.router import Router, RouterConfig


def test_lossfree_bias_sequence_on_hand_counts() -> None:
    balancer = LossFreeConfig(rate=0.5).build(make_run(), num_layers=2, num_experts=4)
    loads = [
        torch.tensor([[4, 2, 2, 0], [2, 2, 2, 2]]),  # mean 2: overloaded goes down, underloaded up, sign(0) = 0
        torch.tensor([[0, 0, 0, 8], [1, 1, 1, 2]]),  # means 2 and 1.25
    ]
    balancer.update(loads[0])
    assert balancer.bias_LE.tolist() == [[-0.5, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]
    balancer.update(loads[1])
    assert balancer.bias_LE.tolist() == [[0.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.5, -0.5]]
    assert balancer.bias_LE.dtype is torch.float32
    assert "bias_LE" in balancer.state_dict()


def test_lossfree_compares_large_counts_exactly() -> None:
    """A mean in float32 would call these equal."""
    balancer = LossFreeConfig(rate=1.0).build(make_run(), num_layers=1, num_experts=2)
    balancer.update(torch.tensor([[2**25 + 1, 2**25 - 1]]))
    assert balancer.bias_LE.tolist() == [[-1.0, 1.0]]


HAND_LOADS = (torch.tensor([[4, 2, 2, 0]]), torch.tensor([[0, 0, 0, 8]]))  # of mean 2: e = (-1, 0, 0, 1), (1, 1, 1, -3)


@pytest.mark.parametrize(
    ("knobs", "first", "second"),
    [
        ({}, [-0.5, 0, 0, 0.5], [0, 0.5, 0.5, 0]),
        ({"update": BiasUpdate.magnitude}, [-0.5, 0, 0, 0.5], [0, 0.5, 0.5, -1]),
        ({"recenter": True}, [-0.5, 0, 0, 0.5], [-0.25, 0.25, 0.25, -0.25]),  # the mean of (0, .5, .5, 0) is .25
        ({"decay_fraction": 0.5}, [-0.5, 0, 0, 0.5], [-0.25, 0.25, 0.25, 0.25]),  # halfway down the last half
        ({"decay_fraction": 1.0}, [-0.5, 0, 0, 0.5], [-0.375, 0.125, 0.125, 0.375]),
        (
            {"update": BiasUpdate.magnitude, "recenter": True, "decay_fraction": 0.5},
            [-0.5, 0, 0, 0.5],
            [-0.25, 0.25, 0.25, -0.25],
        ),
    ],
)
@pytest.mark.parametrize("config", [LossFreeConfig, AuxLossFreeConfig])
def test_variants_of_the_bias_on_hand_counts(
    config: type[LossFreeConfig], knobs: dict[str, Any], first: list[float], second: list[float]
) -> None:
    balancer = config(rate=0.5, **knobs).build(make_run(), num_layers=1, num_experts=4)
    balancer.update(HAND_LOADS[0], progress=0.0)
    assert balancer.bias_LE.tolist() == [first]
    balancer.update(HAND_LOADS[1], progress=0.75)
    assert balancer.bias_LE.tolist() == [second]


def test_the_rate_falls_to_zero_over_the_last_fraction_of_the_steps() -> None:
    balancer = LossFreeConfig(rate=1.0, decay_fraction=0.2).build(make_run(), 1, 4)
    rates = [balancer.rate(step / 10) for step in range(10)]
    assert rates == [1.0] * 8 + [pytest.approx(1.0), pytest.approx(0.5)]
    assert balancer.rate(1.0) == 0.0


def test_a_bias_that_moves_at_micro_steps_moves_at_nothing_else() -> None:
    """Two micro-batches with c = (3, 2, 1): b = -rate, 0, +rate after each; the step's end adds nothing."""
    balancer = LossFreeConfig(rate=0.5, update_every=UpdateEvery.micro_step).build(make_run(), 1, 3)
    balancer.observe([HAND])
    assert balancer.bias_LE.tolist() == [[-0.5, 0.0, 0.5]]
    balancer.observe([HAND])
    balancer.update(2 * HAND.counts_E.unsqueeze(0))
    assert balancer.bias_LE.tolist() == [[-1.0, 0.0, 1.0]]


def test_aux_lossfree_is_the_bias_and_the_loss() -> None:
    balancer = build("aux_lossfree")
    assert balancer.loss([HAND, HAND]).item() == build("aux").loss([HAND, HAND]).item()
    balancer.update(torch.tensor([[4, 2, 0]] * 2))
    z_TE = torch.zeros(1, 3)
    assert balancer.ranking_TE(0, z_TE, z_TE).tolist() == [[pytest.approx(-1e-3), 0.0, pytest.approx(1e-3)]]


@pytest.mark.parametrize("target", list(BiasTarget), ids=lambda t: t.value)
@pytest.mark.parametrize("gate", GATES, ids=lambda g: g.kind)
def test_the_bias_steers_the_selection_and_never_the_weights(gate: RouterConfig, target: BiasTarget) -> None:
    balancer = LossFreeConfig(bias_on=target).build(make_run(), num_layers=1, num_experts=4)
    balancer.bias_LE[0] = torch.tensor([100.0, 0.0, 0.0, 50.0])
    router = Router(8, 4, 2, gate)
    torch.nn.init.normal_(router.weight_ED)
    x_TD = torch.randn(10, 8)
    biased = router(x_TD, lambda z, s: balancer.ranking_TE(0, z, s))
    assert biased.ids_TK.tolist() == [[0, 3]] * 10
    scores_TE = gate.scores_TE(biased.logits_TE)
    expected_TK = gate.weights_TK(biased.logits_TE, scores_TE, biased.ids_TK)
    assert torch.equal(biased.weights_TK, expected_TK)
