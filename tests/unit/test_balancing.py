"""Balancers against values computed by hand, closed forms and float64 gradients."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from helpers import make_run
from torch import Tensor

from moe_sweeps.balancing import (
    AuxBalancerConfig,
    AuxConfig,
    AuxLossFreeConfig,
    AuxNormalization,
    AuxScope,
    BiasTarget,
    BiasUpdate,
    ExpertChoiceConfig,
    LossFreeConfig,
    NoBalancerConfig,
    QuantileConfig,
    UpdateEvery,
    aux_loss,
    balance_loss,
    quantile_thresholds,
    z_loss,
)
from moe_sweeps.config.groups import ModelConfig, MoEExpertsConfig, TrainerConfig
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.config.schema import problems
from moe_sweeps.model.router import Router, RouterConfig, Routing, SigmoidConfig, SoftmaxTopkConfig, TopkSoftmaxConfig
from moe_sweeps.model.transformer import build_model

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


@pytest.mark.parametrize("normalization", list(AuxNormalization), ids=lambda n: n.name)
@pytest.mark.parametrize("scope", list(AuxScope), ids=lambda s: s.name)
def test_scopes_by_hand(scope: AuxScope, normalization: AuxNormalization) -> None:
    found = aux_loss(
        [TWO_SEQUENCES] * 2, normalization=normalization, scope=scope, num_sequences=2, step_load_LE=STEP_LOAD_LE
    )
    assert found.item() == pytest.approx(BY_SCOPE[scope] * FACTORS[normalization], abs=1e-15)


def test_the_scopes_agree_on_one_sequence() -> None:
    terms = [aux_loss([HAND], normalization=AuxNormalization.switch, scope=s).item() for s in AuxScope]
    assert terms == [pytest.approx(1.15, abs=1e-15)] * 3


def test_sequences_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"aux\.scope=sequence needs sequences of one length: 3 tokens are not 2"):
        aux_loss([HAND], normalization=AuxNormalization.talk, scope=AuxScope.sequence, num_sequences=2)


@pytest.mark.parametrize("normalization", list(AuxNormalization), ids=lambda n: n.name)
@pytest.mark.parametrize("scope", list(AuxScope), ids=lambda s: s.name)
def test_every_scope_and_normalization_on_balance_and_on_collapse(
    scope: AuxScope, normalization: AuxNormalization
) -> None:
    """L_norm is 1 when all experts are picked alike, in every sequence, and E/k when k experts take everything."""
    experts, k = 4, 2
    balanced = routing([[1 / 4] * 4] * 4, [[0, 1], [2, 3]] * 2)
    collapsed = routing([[0.5, 0.5, 0, 0]] * 4, [[0, 1]] * 4)
    factor = {AuxNormalization.switch: 1, AuxNormalization.megatron: 2, AuxNormalization.talk: k / experts}
    for record, l_norm in ((balanced, 1.0), (collapsed, experts / k)):
        found = aux_loss(
            [record] * 2,
            normalization=normalization,
            scope=scope,
            num_sequences=2,
            step_load_LE=torch.stack([3 * record.counts_E] * 2),
        )
        assert found.item() == pytest.approx(l_norm * factor[normalization], abs=1e-14)


@pytest.mark.parametrize("scope", list(AuxScope), ids=lambda s: s.name)
@pytest.mark.parametrize("gate", GATES, ids=lambda g: g.kind)
@pytest.mark.parametrize("normalization", list(AuxNormalization), ids=lambda n: n.value)
def test_gradient_of_the_aux_loss_by_finite_differences(
    gate: RouterConfig, normalization: AuxNormalization, scope: AuxScope
) -> None:
    """In float64, with the picks held fixed: f is detached, so only P moves."""
    logits_TE = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    ids_TK = logits_TE.topk(2).indices
    counts_E = torch.bincount(ids_TK.flatten(), minlength=4)

    def loss(z_TE: Tensor) -> Tensor:
        probs_TE = gate.probs_TE(gate.scores_TE(z_TE))
        record = Routing(torch.empty(0), ids_TK, z_TE, probs_TE, counts_E)
        step_load_LE = torch.tensor([[5, 9, 3, 7]])
        return aux_loss([record], normalization=normalization, scope=scope, num_sequences=3, step_load_LE=step_load_LE)

    assert torch.autograd.gradcheck(loss, (logits_TE,), eps=1e-6, atol=1e-8)


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


def test_quantile_thresholds_by_hand() -> None:
    """Four tokens, two experts, top-1, C = 2; everyone prefers expert 0, by 4, 3, 2, 1.

    alpha = second largest = (1, 1, 1, 1). s - alpha = (4, 3, 2, 1) and 0; beta = third largest = (2, 0). Then s - beta
    gives expert 0 the two tokens that want it most; the third ties. Again: alpha = (1, 1, 1, 0), beta_0 = 2: at rest.
    """
    scores_TE = torch.tensor([[5.0, 1.0], [4.0, 1.0], [3.0, 1.0], [2.0, 1.0]])
    for rounds in (1, 2, 5):
        assert quantile_thresholds(scores_TE, torch.zeros(2), 1, rounds).tolist()[0] == 2.0
    margin_T = scores_TE[:, 0] - 2.0 - scores_TE[:, 1] + quantile_thresholds(scores_TE, torch.zeros(2), 1, 1)[1]
    assert margin_T.tolist() == [2.0, 1.0, 0.0, -1.0]


@pytest.mark.parametrize(("tokens", "experts", "k"), [(256, 8, 2), (512, 8, 1), (1024, 16, 4), (64, 4, 3)])
def test_after_one_quantile_update_every_expert_gets_its_share_up_to_ties(tokens: int, experts: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_TE = torch.randn(tokens, experts, generator=generator) + torch.linspace(2, -2, experts)
    gate = SoftmaxTopkConfig()
    balancer = QuantileConfig(iterations=64).build(make_run(router=gate), 1, experts)
    halves = [Routing(z, z.topk(k).indices, z, gate.scores_TE(z), torch.empty(0)) for z in logits_TE.chunk(2)]
    for half in halves:  # two micro-batches of one step
        balancer.observe([half])
    balancer.update(torch.zeros(1, experts, dtype=torch.int64))
    ranked_TE = balancer.ranking_TE(0, logits_TE, gate.scores_TE(logits_TE))
    above_TE = ranked_TE - ranked_TE.topk(k + 1).values[:, -1:]  # s - beta - alpha
    share, rounding = k * tokens // experts, 1e-6
    assert ((above_TE > rounding).sum(0) <= share).all()
    assert ((above_TE > -rounding).sum(0) >= share).all()
    counts_E = torch.bincount(ranked_TE.topk(k).indices.flatten(), minlength=experts)
    assert (counts_E - share).abs().max() < experts
    unbalanced_E = torch.bincount(logits_TE.topk(k).indices.flatten(), minlength=experts)
    assert unbalanced_E.max() > 1.2 * share


def test_quantile_keeps_nothing_from_a_finished_step() -> None:
    """beta is a function of the last beta and of this step's scores; with k = E there is nothing to balance."""
    balancer = build("quantile")
    for _ in range(2):
        balancer.observe([HAND, HAND])
        balancer.update(torch.zeros(2, 3, dtype=torch.int64))
        assert balancer._seen == []
    scores_TE = torch.rand(6, 3)
    assert quantile_thresholds(scores_TE, torch.zeros(3), 3, 5).tolist() == [0.0] * 3


def refusal(**overrides: Any) -> str:
    (error,) = problems(make_run(**overrides))
    return str(error)


def test_bad_inputs_are_refused_when_a_run_is_planned() -> None:
    assert "balancer.rate" in refusal(balancer=LossFreeConfig(rate=0.0))
    assert "balancer.rate" in refusal(balancer=AuxLossFreeConfig(rate=-1.0))
    assert "balancer.decay_fraction" in refusal(balancer=LossFreeConfig(decay_fraction=1.5))
    assert "balancer.iterations" in refusal(balancer=QuantileConfig(iterations=0))
    uneven = refusal(
        balancer=QuantileConfig(),
        experts=MoEExpertsConfig(num_experts=6),
        trainer=TrainerConfig(batch_size=4, micro_batch_size=2, seq_len=8),
    )
    assert "trainer.batch_size=4" in uneven
    assert "4 sequences of 8 tokens with 2 picks each do not divide by 6 experts" in uneven
    assert "Use a multiple of 3." in uneven
    trainer = TrainerConfig(batch_size=6, micro_batch_size=2, seq_len=8)
    experts = MoEExpertsConfig(num_experts=6)
    assert "trainer.micro_batch_size=2" in refusal(balancer=ExpertChoiceConfig(), experts=experts, trainer=trainer)
    conflict = refusal(balancer=AuxLossFreeConfig(update_every=UpdateEvery.micro_step), aux=AuxConfig(scope=GLOBAL))
    assert "balancer.update_every=micro_step" in conflict


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


def build(kind: str, **knobs: Any) -> Any:
    run = make_run(aux=AuxConfig(coef=0.5), experts=MoEExpertsConfig(num_experts=3))
    return REGISTRY["balancer"][kind](**knobs).build(run, 2, 3)  # type: ignore[attr-defined]


def test_aux_balancer_multiplies_by_its_coefficient() -> None:
    assert build("aux").loss([HAND, HAND]).item() == pytest.approx(0.5 * 23 / 30)


@pytest.mark.parametrize("kind", sorted(REGISTRY["balancer"]))
def test_every_balancer_keeps_the_contract(kind: str) -> None:
    """A loss is a scalar or None; ranking has the scores' shape; only update() changes state."""
    balancer = build(kind)
    before = {name: t.clone() for name, t in balancer.state_dict().items()}
    loss = balancer.loss([HAND, HAND])
    assert loss is None or (loss.shape == () and torch.isfinite(loss))
    z_TE = torch.randn(5, 3)
    assert balancer.ranking_TE(1, z_TE, z_TE.softmax(-1)).shape == z_TE.shape
    assert all(torch.equal(before[name], t) for name, t in balancer.state_dict().items())


def test_the_control_does_nothing() -> None:
    balancer = NoBalancerConfig().build(make_run(), 1, 3)
    z_TE = torch.randn(5, 3)
    assert balancer.loss([HAND]) is None
    assert balancer.ranking_TE(0, z_TE, z_TE.softmax(-1)) is z_TE
    assert balancer.state_dict() == {}


@pytest.mark.parametrize("term", ["aux", "z"])
def test_a_balancing_term_alone_moves_the_router_and_no_expert(term: str) -> None:
    run = make_run(
        model=ModelConfig(layers=1, width=16, heads=2), experts=MoEExpertsConfig(num_experts=3, ffn_hidden=16)
    )
    model = build_model(run, 64)
    routings = model(torch.randint(64, (2, 8)), torch.randint(64, (2, 8))).routings
    loss = AuxBalancerConfig().build(run, 1, 3).loss(routings) if term == "aux" else z_loss(routings)
    loss.backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert "layers.0.moe.router.weight_ED" in moved
    assert not any("experts" in name for name in moved)
    assert not any(r.counts_E.requires_grad for r in routings)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kind", sorted(REGISTRY["balancer"]))
def test_causality(kind: str, training: bool) -> None:
    """Changing a token changes nothing before it; only in expert choice, and there only in training, it does."""
    experts = MoEExpertsConfig(num_experts=4, ffn_hidden=16)
    component: Any = REGISTRY["balancer"][kind]()
    run = make_run(model=ModelConfig(layers=2, width=16, heads=2, init_std=0.3), experts=experts, balancer=component)
    model, balancer = build_model(run, 64).train(training), component.build(run, 2, 4)
    tokens_BS = torch.randint(64, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = 0.0
    for t in range(1, 16):
        other_BS = tokens_BS.clone()
        other_BS[0, t] = (tokens_BS[0, t] + 7) % 64
        with torch.no_grad():
            one, other = (model(x, ranking=balancer.ranking_TE).logits_BSV[0, :t] for x in (tokens_BS, other_BS))
        changed = max(changed, (one - other).abs().max().item())
    leaks = component.EXPERTS_CHOOSE and training
    assert changed > 0.01 if leaks else changed < 1e-5
