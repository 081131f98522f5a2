"""The auxiliary loss and the z-loss against values computed by hand, closed forms and float64 gradients."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from unit.balancing.records import GATES, GLOBAL, HAND, build, routing

from moe_sweeps.balancing import aux_loss, balance_loss, z_loss
from moe_sweeps.config.groups import AuxConfig, AuxNormalization, AuxScope
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import RouterConfig, Routing, SigmoidConfig

with_every_normalization = pytest.mark.parametrize("normalization", list(AuxNormalization), ids=lambda n: n.name)
with_every_scope = pytest.mark.parametrize("scope", list(AuxScope), ids=lambda s: s.name)
with_every_reader = pytest.mark.parametrize("kind", ["aux", "aux_lossfree"])


def test_balance_loss_by_hand() -> None:
    assert balance_loss(counts_E=HAND.counts_E, probs_TE=HAND.probs_TE).item() == pytest.approx(1.15, abs=1e-15)


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        (AuxNormalization.switch, 1.15),  # mean over the two layers
        (AuxNormalization.megatron, 2.30),  # sum over them
        (AuxNormalization.talk, 23 / 30),  # no factor E, c/T instead of c/(kT)
    ],
)
def test_normalizations_by_hand(normalization: AuxNormalization, expected: float) -> None:
    assert aux_loss([HAND, HAND], normalization=normalization).item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("experts", "k", "layers"), [(8, 2, 24), (16, 2, 4), (4, 1, 1)])
def test_conversion_between_the_conventions(experts: int, k: int, layers: int) -> None:
    """coef_talk = coef_switch * E/k and coef_megatron = coef_switch / L give the same term."""
    probs_TE = torch.rand(32, experts, dtype=torch.float64).softmax(-1)
    ids_TK = probs_TE.topk(k).indices
    record = routing(probs_TE.tolist(), ids_TK.tolist())
    terms = {n: aux_loss([record] * layers, normalization=n).item() for n in AuxNormalization}
    switch = 0.025 * terms[AuxNormalization.switch]
    assert 0.025 * experts / k * terms[AuxNormalization.talk] == pytest.approx(switch, rel=1e-12)
    assert 0.025 / layers * terms[AuxNormalization.megatron] == pytest.approx(switch, rel=1e-12)


@pytest.mark.parametrize(("experts", "k"), [(8, 2), (16, 4), (4, 4)])
def test_closed_forms_of_the_balance_loss(experts: int, k: int) -> None:
    uniform_TE = torch.full((experts, experts), 1 / experts, dtype=torch.float64)
    balanced_E = torch.full((experts,), k)
    assert balance_loss(counts_E=balanced_E, probs_TE=uniform_TE).item() == pytest.approx(1.0)
    collapsed_E = torch.cat([torch.full((k,), experts), torch.zeros(experts - k, dtype=torch.int64)])
    probs_TE = (collapsed_E / collapsed_E.sum()).double().repeat(experts, 1)
    assert balance_loss(counts_E=collapsed_E, probs_TE=probs_TE).item() == pytest.approx(experts / k, rel=1e-6)


# Two sequences of two tokens, three experts, top-1. First: c = (2, 0, 0), P = (.5, .3, .2), L_norm = 1.5.
# Second: c = (1, 1, 0), P = (.4, .4, .2), L_norm = 1.2. Together: c = (3, 1, 0), P = (.45, .35, .2), L_norm = 1.275.
TWO_SEQUENCES = routing([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.5, 0.3, 0.2], [0.3, 0.5, 0.2]], [[0], [0], [0], [1]])


# What a step of which these are half might count: f = (.25, .25, .5), L_norm = 3 (.1125 + .0875 + .1) = 0.9.
STEP_LOAD_LE = torch.tensor([[2, 2, 4]] * 2)


BY_SCOPE = {AuxScope.micro: 1.275, AuxScope.sequence: 1.35, GLOBAL: 0.9}


FACTORS = {AuxNormalization.switch: 1.0, AuxNormalization.megatron: 2.0, AuxNormalization.talk: 1 / 3}


@with_every_reader
@with_every_normalization
@with_every_scope
def test_every_balancer_with_the_loss_by_hand(scope: AuxScope, normalization: AuxNormalization, kind: str) -> None:
    balancer = build(kind, AuxConfig(coef=0.5, normalization=normalization, scope=scope))
    found = balancer.loss([TWO_SEQUENCES] * 2, num_sequences=2, step_load_LE=STEP_LOAD_LE)
    assert found.item() == pytest.approx(0.5 * BY_SCOPE[scope] * FACTORS[normalization], abs=1e-15)


def test_the_scopes_agree_on_one_sequence() -> None:
    terms = [aux_loss([HAND], normalization=AuxNormalization.switch, scope=s).item() for s in AuxScope]
    assert terms == [pytest.approx(1.15, abs=1e-15)] * 3


@with_every_reader
def test_sequence_scope_refuses_tokens_that_are_no_whole_sequences(kind: str) -> None:
    balancer = build(kind, AuxConfig(scope=AuxScope.sequence))
    rule = r"aux\.scope=sequence is refused: it needs sequences of one length, and 3 tokens are not 2 of them"
    with pytest.raises(ConfigError, match=rf"{rule}\. Use aux\.scope=micro"):
        balancer.loss([HAND] * 2, num_sequences=2)


@with_every_reader
@with_every_normalization
@with_every_scope
def test_every_balancer_with_the_loss_on_balance_and_on_collapse(
    scope: AuxScope, normalization: AuxNormalization, kind: str
) -> None:
    """L_norm is 1 when all experts are picked alike, in every sequence, and E/k when k experts take everything."""
    experts, k = 4, 2
    balanced = routing([[1 / 4] * 4] * 4, [[0, 1], [2, 3]] * 2)
    collapsed = routing([[0.5, 0.5, 0, 0]] * 4, [[0, 1]] * 4)
    factor = {AuxNormalization.switch: 1, AuxNormalization.megatron: 2, AuxNormalization.talk: k / experts}
    balancer = build(kind, AuxConfig(coef=0.5, normalization=normalization, scope=scope))
    for record, l_norm in ((balanced, 1.0), (collapsed, experts / k)):
        found = balancer.loss([record] * 2, num_sequences=2, step_load_LE=torch.stack([3 * record.counts_E] * 2))
        assert found.item() == pytest.approx(0.5 * l_norm * factor[normalization], abs=1e-14)


@with_every_reader
@with_every_scope
@pytest.mark.parametrize("gate", GATES, ids=lambda g: g.kind)
@with_every_normalization
def test_gradient_of_every_balancer_with_the_loss_by_finite_differences(
    gate: RouterConfig, normalization: AuxNormalization, scope: AuxScope, kind: str
) -> None:
    """In float64, with the picks held fixed: f is detached, so only P moves."""
    logits_TE = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    ids_TK = logits_TE.topk(2).indices
    counts_E = torch.bincount(ids_TK.flatten(), minlength=4)
    balancer = build(kind, AuxConfig(coef=0.5, normalization=normalization, scope=scope))

    def loss(z_TE: Tensor) -> Tensor:
        record = Routing(torch.empty(0), ids_TK, z_TE, gate.probs_TE(gate.scores_TE(z_TE)), counts_E)
        term: Tensor = balancer.loss([record], num_sequences=3, step_load_LE=torch.tensor([[5, 9, 3, 7]]))
        return term

    assert torch.autograd.gradcheck(loss, (logits_TE,), eps=1e-6, atol=1e-8)


# E f_i of every token of TWO_SEQUENCES, by the tokens over which f is counted: c = (3, 1, 0) of 4; (2, 0, 0) of 2, then
# (1, 1, 0) of 2; and (2, 2, 4) of 8.
E_TIMES_F = {
    AuxScope.micro: [[2.25, 0.75, 0.0]] * 4,
    AuxScope.sequence: [[3.0, 0.0, 0.0]] * 2 + [[1.5, 1.5, 0.0]] * 2,
    GLOBAL: [[0.75, 0.75, 1.5]] * 4,
}


@with_every_reader
@with_every_normalization
@with_every_scope
def test_f_is_a_constant_of_the_gradient(scope: AuxScope, normalization: AuxNormalization, kind: str) -> None:
    """dL_norm / dp_ti = E f_i / T: nothing of it comes from f."""
    probs_TE = TWO_SEQUENCES.probs_TE.clone().requires_grad_()
    record = dataclasses.replace(TWO_SEQUENCES, probs_TE=probs_TE)
    balancer = build(kind, AuxConfig(coef=0.5, normalization=normalization, scope=scope))
    balancer.loss([record] * 2, num_sequences=2, step_load_LE=STEP_LOAD_LE).backward()
    expected_TE = 0.5 * FACTORS[normalization] * torch.tensor(E_TIMES_F[scope], dtype=torch.float64) / 4
    torch.testing.assert_close(probs_TE.grad, expected_TE, atol=1e-15, rtol=0)


@pytest.mark.parametrize("shift", [0.0, -5.0, -10.0])
def test_sigmoid_scores_cannot_hide(shift: float) -> None:
    """P has unit rows and the loss keeps its value when a model pushes all scores down together."""
    gate = SigmoidConfig()
    logits_TE = torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 4
    counts_E = torch.tensor([40, 40, 30, 18])
    before, after = (gate.probs_TE(gate.scores_TE(z)) for z in (logits_TE, logits_TE + shift))
    torch.testing.assert_close(before.sum(-1), torch.ones(64, dtype=torch.float64), atol=1e-4, rtol=0)
    losses = [balance_loss(counts_E=counts_E, probs_TE=p).item() for p in (before, after)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_z_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]], dtype=torch.float64)
    record = dataclasses.replace(HAND, logits_TE=logits)
    expected = (math.log(2) ** 2 + math.log(4) ** 2) / 2
    assert z_loss([record]).item() == pytest.approx(expected, abs=1e-15)
    assert z_loss([record, record]).item() == pytest.approx(expected, abs=1e-15)  # mean over layers
