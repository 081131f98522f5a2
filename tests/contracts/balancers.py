"""What every balancer must keep, as functions of a run that uses it; `CHECKS` has them all.

unit/balancing/test_contract.py calls each for every registered balancer, and test_new_balancer.py for balancers that
exist in that test alone. How much a balancer balances is for tests of its own.

Axes: T tokens, D width, E experts, K picks per token, L MoE layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from helpers import TINY, compose_run
from torch import Tensor

from moe_sweeps.balancing import Balancer
from moe_sweeps.config.groups import ExpertBackend, MoEExpertsConfig
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.moe import Experts, MoE
from moe_sweeps.model.router import Router, Routing, count_picks
from moe_sweeps.model.transformer import build_model

LAYERS, EXPERTS, TOP_K = 2, 4, 2
WIDTH, TOKENS = 16, 32


def run_with(kind: str, *more: str) -> RunConfig:
    """A small run of `balancer=kind`."""
    return compose_run(*TINY, f"experts.num_experts={EXPERTS}", f"balancer={kind}", "model.init_std=0.3", *more)


# --- checks -----------------------------------------------------------------------------------------------------------


def loss_is_a_scalar_or_none(run: RunConfig) -> None:
    loss = _loss(_built(run), [_routing(run, _logits())] * LAYERS)
    assert loss is None or (loss.shape == () and torch.isfinite(loss))


def loss_has_the_gradient_of_finite_differences(run: RunConfig) -> None:
    """In float64, with the picks held fixed."""
    balancer, logits_TE = _built(run), _logits().requires_grad_()
    ids_TK = logits_TE.topk(TOP_K).indices
    if _loss(balancer, [_routing(run, logits_TE)] * LAYERS) is None:
        return

    def loss(z_TE: Tensor) -> Tensor:
        term = _loss(balancer, [_routing(run, z_TE, ids_TK)] * LAYERS)
        assert term is not None
        return term

    assert torch.autograd.gradcheck(loss, (logits_TE,), eps=1e-6, atol=1e-8)


def loss_alone_moves_the_router_alone(run: RunConfig) -> None:
    balancer = _built(run)
    assert moved_by(run, lambda routing: _loss(balancer, [routing] * LAYERS)) in (None, {"router.weight_ED"})


def perfect_balance_is_left_alone(run: RunConfig) -> None:
    """Where all experts are picked alike, for equal reasons, nothing is steered and the loss is at its lowest."""
    balanced, collapsed = (_routing(run, logits_TE) for logits_TE in (_even_logits(), _collapsed_logits()))
    balancer = _built(run)
    losses = [_loss(balancer, [record] * LAYERS) for record in (balanced, collapsed)]
    assert losses[0] is None or losses[1] is None or losses[0] < losses[1]
    before_E = _offsets(balancer, run)
    _one_step(balancer, balanced)
    torch.testing.assert_close(_offsets(balancer, run), before_E)


def full_collapse_is_countered(run: RunConfig) -> None:
    """By a loss that falls if the router moves away, by a ranking that does, or by experts that choose."""
    balancer, logits_TE = _built(run), _collapsed_logits().requires_grad_()
    record = _routing(run, logits_TE)
    loss = _loss(balancer, [record] * LAYERS)
    if loss is not None:
        (gradient_TE,) = torch.autograd.grad(loss, logits_TE)
        assert gradient_TE[:, :TOP_K].sum() > 0 > gradient_TE[:, TOP_K:].sum()
    before_E = _offsets(balancer, run)
    _one_step(balancer, record)
    moved_E = _offsets(balancer, run) - before_E
    steers = moved_E[TOP_K:].min() > moved_E[:TOP_K].max()
    assert steers or torch.equal(moved_E, torch.zeros_like(moved_E))
    counters = steers or loss is not None or run.balancer.EXPERTS_CHOOSE
    assert counters != (run.balancer.kind == "none")


def only_training_steps_move_state(run: RunConfig) -> None:
    balancer = _built(run)
    _one_step(balancer, _routing(run, _collapsed_logits()))
    before = {name: t.clone() for name, t in balancer.state_dict().items()}
    logits_TE = _logits()
    _loss(balancer, [_routing(run, logits_TE)] * LAYERS)
    assert balancer.ranking_TE(1, logits_TE, run.router.scores_TE(logits_TE)).shape == logits_TE.shape
    assert all(torch.equal(before[name], t) for name, t in balancer.state_dict().items())


def weights_do_not_depend_on_its_state(run: RunConfig) -> None:
    """A balancer steers which experts are picked; their weights come from unbiased scores."""
    balancer = _built(run)
    for _ in range(50):
        _one_step(balancer, _routing(run, _collapsed_logits()))
    router = Router(WIDTH, EXPERTS, TOP_K, run.router)
    torch.nn.init.normal_(router.weight_ED)
    found: Routing = router(torch.randn(TOKENS, WIDTH), lambda z, s: balancer.ranking_TE(0, z, s))
    scores_TE = run.router.scores_TE(found.logits_TE)
    assert torch.equal(found.weights_TK, run.router.weights_TK(found.logits_TE, scores_TE, found.ids_TK))


def state_dict_is_all_of_its_state(run: RunConfig) -> None:
    """A new one that loads it ranks, adds and moves alike, bit for bit."""
    first, second = _built(run), _built(run)
    for _ in range(3):
        _one_step(first, _routing(run, _collapsed_logits()))
    second.load_state_dict(first.state_dict())
    for seed in range(2):
        record = _routing(run, _logits(seed))
        losses = [_loss(balancer, [record] * LAYERS) for balancer in (first, second)]
        assert losses[0] is losses[1] or torch.equal(*losses)  # type: ignore[arg-type]
        assert torch.equal(_offsets(first, run), _offsets(second, run))
        _one_step(first, record)
        _one_step(second, record)


def no_position_sees_a_later_one(run: RunConfig) -> None:
    """Changing a token changes nothing before it; only in expert choice, and there only in training, it does."""
    for training in (True, False):
        leaks = run.balancer.EXPERTS_CHOOSE and training
        changed = _largest_change_before_a_changed_token(run, training)
        assert changed > 0.01 if leaks else changed < 1e-5


CHECKS: tuple[Callable[[RunConfig], None], ...] = (
    loss_is_a_scalar_or_none,
    loss_has_the_gradient_of_finite_differences,
    loss_alone_moves_the_router_alone,
    perfect_balance_is_left_alone,
    full_collapse_is_countered,
    only_training_steps_move_state,
    weights_do_not_depend_on_its_state,
    state_dict_is_all_of_its_state,
    no_position_sees_a_later_one,
)


def record_of_probs(probs: list[list[float]]) -> Routing:
    """A record in which every token picks its first choice."""
    probs_TE = torch.tensor(probs, dtype=torch.float64)
    ids_TK = probs_TE.topk(1).indices
    return Routing(torch.ones(len(probs), 1), ids_TK, probs_TE.log(), probs_TE, count_picks(ids_TK, len(probs[0])))


def moved_by(run: RunConfig, term: Callable[[Routing], Tensor | None]) -> set[str] | None:
    """Parameters of a layer with a gradient other than 0 where its output counts for nothing and `term` for 1."""
    experts = Experts(EXPERTS, WIDTH, WIDTH, ExpertBackend.auto)
    layer = MoE(Router(WIDTH, EXPERTS, TOP_K, run.router, run.balancer.EXPERTS_CHOOSE), experts)
    for param in layer.parameters():
        torch.nn.init.normal_(param, std=0.3)
    y_TD, routing = layer(torch.randn(TOKENS, WIDTH))
    loss = term(routing)
    if loss is None:
        return None
    (y_TD.sum() * 0 + loss).backward()
    assert all(p.grad is not None for p in layer.parameters())
    return {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


# --- parts ------------------------------------------------------------------------------------------------------------


def _built(run: RunConfig) -> Balancer:
    assert isinstance(run.experts, MoEExpertsConfig)
    assert (run.experts.num_experts, run.experts.top_k) == (EXPERTS, TOP_K)
    return run.balancer.build(run, LAYERS, EXPERTS)


def _logits(seed: int = 0) -> Tensor:
    return torch.randn(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _even_logits() -> Tensor:
    """Each pair of neighbouring experts is wanted by as many tokens as any other."""
    expert_E, token_T1 = torch.arange(EXPERTS), torch.arange(TOKENS).unsqueeze(1)
    return ((expert_E - token_T1) % EXPERTS < TOP_K).double()


def _collapsed_logits() -> Tensor:
    """Every token wants the first k experts, some more than others."""
    wanted_E = (torch.arange(EXPERTS) < TOP_K).double()
    return wanted_E * (1 + torch.arange(TOKENS).unsqueeze(1) / TOKENS)


def _routing(run: RunConfig, logits_TE: Tensor, ids_TK: Tensor | None = None) -> Routing:
    """The record of a layer in which tokens pick their k largest logits, or `ids_TK`."""
    scores_TE = run.router.scores_TE(logits_TE)
    picked_TK = logits_TE.topk(TOP_K).indices if ids_TK is None else ids_TK
    weights_TK = run.router.weights_TK(logits_TE, scores_TE, picked_TK)
    return Routing(weights_TK, picked_TK, logits_TE, run.router.probs_TE(scores_TE), count_picks(picked_TK, EXPERTS))


def _loss(balancer: Balancer, routings: list[Routing]) -> Tensor | None:
    """Of four sequences, in a step of which this is half."""
    step_load_LE = torch.stack([2 * r.counts_E for r in routings])
    return balancer.loss(routings, num_sequences=4, step_load_LE=step_load_LE)


def _one_step(balancer: Balancer, record: Routing) -> None:
    """A step of one micro-batch in which all layers decided alike."""
    balancer.observe([record] * LAYERS)
    balancer.update(torch.stack([record.counts_E] * LAYERS))


def _offsets(balancer: Balancer, run: RunConfig) -> Tensor:
    """What layer 1 adds to each expert when every logit is alike, in float64 and up to a constant of all experts."""
    logits_TE = torch.zeros(1, EXPERTS, dtype=torch.float64)
    ranked_E = balancer.ranking_TE(1, logits_TE, run.router.scores_TE(logits_TE))[0].double()
    return ranked_E - ranked_E.mean()


@torch.no_grad()
def _largest_change_before_a_changed_token(run: RunConfig, training: bool) -> float:
    model, balancer = build_model(run, 64).train(training), _built(run)
    tokens_BS = torch.randint(64, (1, WIDTH), generator=torch.Generator().manual_seed(0))
    changed = 0.0
    for t in range(1, WIDTH):
        other_BS = tokens_BS.clone()
        other_BS[0, t] = (tokens_BS[0, t] + 7) % 64
        one, other = (model(x, ranking=balancer.ranking_TE).logits_BSV[0, :t] for x in (tokens_BS, other_BS))
        changed = max(changed, (one - other).abs().max().item())
    return changed
