"""What every gate must keep, as functions of its config; `CHECKS` has them all.

Axes: T tokens, D width, E experts, K picks per token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from moe_sweeps.model.router import Router, RouterConfig

TOKENS, WIDTH, EXPERTS, TOP_K = 32, 16, 6, 2


def probs_are_a_distribution(config: RouterConfig) -> None:
    """Also where logits are so extreme that scores underflow."""
    for size in (1.0, 30.0):
        logits_TE = size * _logits().clamp(-2, 2)
        probs_TE = config.probs_TE(config.scores_TE(logits_TE))
        assert (probs_TE >= 0).all()
        torch.testing.assert_close(probs_TE.sum(-1), torch.ones(TOKENS, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def a_larger_logit_is_a_larger_score(config: RouterConfig) -> None:
    logits_TE = _logits()
    for expert in range(EXPERTS):
        raised_TE = logits_TE.clone()
        raised_TE[:, expert] += 0.1
        assert (config.scores_TE(raised_TE) > config.scores_TE(logits_TE))[:, expert].all()


def experts_are_alike(config: RouterConfig) -> None:
    """Renumbering the experts renumbers scores and leaves the weights of a token's picks as they are."""
    logits_TE, order_E = _logits(), torch.tensor([3, 0, 5, 1, 2, 4])
    ids_TK = logits_TE.topk(TOP_K).indices
    renumbered_TK = order_E.argsort()[ids_TK]
    moved_TE = logits_TE[:, order_E]
    torch.testing.assert_close(config.scores_TE(moved_TE), config.scores_TE(logits_TE)[:, order_E])
    one_TK = config.weights_TK(logits_TE, config.scores_TE(logits_TE), ids_TK)
    torch.testing.assert_close(config.weights_TK(moved_TE, config.scores_TE(moved_TE), renumbered_TK), one_TK)


def a_token_is_routed_for_itself(config: RouterConfig) -> None:
    """Neither scores nor weights of a token depend on other tokens, so nothing leaks from the future."""
    logits_TE = _logits()
    ids_TK = logits_TE.topk(TOP_K).indices
    scores_TE = config.scores_TE(logits_TE)
    torch.testing.assert_close(config.scores_TE(logits_TE[:5]), scores_TE[:5])
    torch.testing.assert_close(config.probs_TE(scores_TE[:5]), config.probs_TE(scores_TE)[:5])
    some_TK = config.weights_TK(logits_TE[:5], scores_TE[:5], ids_TK[:5])
    torch.testing.assert_close(some_TK, config.weights_TK(logits_TE, scores_TE, ids_TK)[:5])


def weights_are_finite_positive_and_rank_as_logits(config: RouterConfig) -> None:
    for size in (1.0, 100.0):
        routing = _router(config)(size * _input())
        weights_TK = routing.weights_TK
        assert torch.isfinite(weights_TK).all()
        assert (weights_TK >= 0).all()
        assert (weights_TK[:, 0] >= weights_TK[:, 1]).all()
        assert torch.equal(routing.ids_TK, routing.logits_TE.topk(TOP_K).indices)


def the_router_learns_from_the_weights(config: RouterConfig) -> None:
    """A finite gradient that is not 0 reaches the router, as with the finite differences of its logits."""
    router = _router(config)
    (router(_input()).weights_TK * torch.tensor([1.0, -1.0])).sum().backward()
    gradient = router.weight_ED.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    logits_TE = _logits()[:4].requires_grad_()
    ids_TK = logits_TE.topk(TOP_K).indices

    def weights(z_TE: Tensor) -> Tensor:
        return config.weights_TK(z_TE, config.scores_TE(z_TE), ids_TK)

    assert torch.autograd.gradcheck(weights, (logits_TE,), eps=1e-6, atol=1e-7)


def arithmetic_is_float32_under_bfloat16(config: RouterConfig) -> None:
    router, x_TD = _router(config), _input().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = router(x_TD)
    expected = router(x_TD.float())
    for name in ("weights_TK", "logits_TE", "probs_TE"):
        assert getattr(found, name).dtype == torch.float32
        assert torch.equal(getattr(found, name), getattr(expected, name))


CHECKS: tuple[Callable[[RouterConfig], None], ...] = (
    probs_are_a_distribution,
    a_larger_logit_is_a_larger_score,
    experts_are_alike,
    a_token_is_routed_for_itself,
    weights_are_finite_positive_and_rank_as_logits,
    the_router_learns_from_the_weights,
    arithmetic_is_float32_under_bfloat16,
)


# --- parts ------------------------------------------------------------------------------------------------------------


def _logits() -> Tensor:
    return torch.randn(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _input() -> Tensor:
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def _router(config: RouterConfig) -> Router:
    router = Router(WIDTH, EXPERTS, TOP_K, config)
    router.init_weights(0.3, torch.Generator().manual_seed(2))
    return router
