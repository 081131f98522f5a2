"""Gates by hand, selection bias, precision, counts and the three initialisations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from moe_sweeps.model.router import (
    Router,
    RouterConfig,
    RouterInit,
    SigmoidConfig,
    SoftmaxTopkConfig,
    TopkSoftmaxConfig,
    count_picks,
)

# One token whose logits are ln 1, ln 2, ln 3, ln 4: softmax 0.1, 0.2, 0.3, 0.4; sigmoid 1/2, 2/3, 3/4, 4/5.
LOGITS = [math.log(n) for n in (1, 2, 3, 4)]
SOFTMAX = [0.1, 0.2, 0.3, 0.4]
SIGMOID = [1 / 2, 2 / 3, 3 / 4, 4 / 5]
SIGMOID_SUM = sum(SIGMOID)


def _router(config: RouterConfig, top_k: int = 2) -> Router:
    """A router whose logits for the input [[1]] are LOGITS."""
    router = Router(1, 4, top_k, config).double()
    with torch.no_grad():
        router.weight_ED.copy_(torch.tensor(LOGITS, dtype=torch.float64)[:, None])
    return router


def _one() -> Tensor:
    return torch.ones(1, 1, dtype=torch.float64)


def _row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("config", "weights", "probs"),
    [
        (TopkSoftmaxConfig(), (4 / 7, 3 / 7), SOFTMAX),
        (SoftmaxTopkConfig(), (0.4, 0.3), SOFTMAX),
        (SoftmaxTopkConfig(renormalize=True), (4 / 7, 3 / 7), SOFTMAX),
        (SigmoidConfig(), (0.8 / 1.55, 0.75 / 1.55), [s / SIGMOID_SUM for s in SIGMOID]),
        (SigmoidConfig(weight_scale=2.5), (2.0 / 1.55, 1.875 / 1.55), [s / SIGMOID_SUM for s in SIGMOID]),
    ],
    ids=["topk_softmax", "softmax_topk", "softmax_topk renormalised", "sigmoid", "sigmoid scaled"],
)
def test_gate_by_hand(config: RouterConfig, weights: tuple[float, float], probs: list[float]) -> None:
    routing = _router(config)(_one())
    assert routing.ids_TK.tolist() == [[3, 2]]
    assert_close(routing.weights_TK, _row(*weights))
    assert_close(routing.logits_TE, _row(*LOGITS))
    assert_close(routing.probs_TE, _row(*probs), rtol=1e-6, atol=0)
    assert routing.counts_E.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (TopkSoftmaxConfig(), (1 / 5, 4 / 5)),
        (SoftmaxTopkConfig(), (0.1, 0.4)),
        (SigmoidConfig(), (0.5 / 1.3, 0.8 / 1.3)),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_selection_bias_changes_the_picks_and_not_their_weights(
    config: RouterConfig, weights: tuple[float, float]
) -> None:
    bias_E = _row(100.0, 0.0, 0.0, 0.0)
    routing = _router(config)(_one(), lambda logits_TE, scores_TE: scores_TE + bias_E)
    assert routing.ids_TK.tolist() == [[0, 3]]
    assert_close(routing.weights_TK, _row(*weights))
    assert_close(routing.probs_TE, _router(config)(_one()).probs_TE)


@pytest.mark.parametrize("config", [TopkSoftmaxConfig(), SoftmaxTopkConfig(), SigmoidConfig()], ids=lambda c: c.kind)
def test_arithmetic_is_float32_under_bfloat16(config: RouterConfig) -> None:
    router = Router(64, 8, 2, config)
    router.init_weights(0.5, torch.Generator().manual_seed(0))
    x_TD = torch.randn(32, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        routing = router(x_TD)
    expected = router(x_TD.float())
    for found, wanted in zip(
        (routing.weights_TK, routing.logits_TE, routing.probs_TE),
        (expected.weights_TK, expected.logits_TE, expected.probs_TE),
        strict=True,
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
    exact_TE = x_TD.double() @ router.weight_ED.detach().double().T
    assert_close(routing.logits_TE.double(), exact_TE, rtol=1e-5, atol=1e-5)  # bfloat16 would be off by 1e-2


def test_saturated_scores_still_select_by_logit_and_stay_finite() -> None:
    router = _router(SigmoidConfig())
    for scale in (1000.0, -1000.0):
        routing = router(_one() * scale)
        assert routing.ids_TK.tolist() == [[3, 2] if scale > 0 else [0, 1]]
        assert routing.weights_TK.isfinite().all()


def test_counts_by_hand() -> None:
    assert count_picks(torch.tensor([[0, 2], [2, 3], [2, 0]]), 5).tolist() == [2, 0, 3, 1, 0]


def test_counts_of_a_batch_sum_to_its_picks() -> None:
    router = Router(16, 8, 3, TopkSoftmaxConfig())
    router.init_weights(0.02, torch.Generator().manual_seed(0))
    routing = router(torch.randn(100, 16, generator=torch.Generator().manual_seed(1)))
    assert routing.counts_E.dtype == torch.int64
    assert routing.counts_E.tolist() == [int((routing.ids_TK == e).sum()) for e in range(8)]
    assert int(routing.counts_E.sum()) == 300


def _initialised(init: RouterInit, seed: int = 0) -> Router:
    router = Router(768, 8, 2, TopkSoftmaxConfig(init=init))
    router.init_weights(0.02, torch.Generator().manual_seed(seed))
    return router


def _max_vio(router: Router) -> float:
    # Normalised tokens, as a router sees them after RMSNorm.
    x_TD = torch.randn(2560, 768, generator=torch.Generator().manual_seed(9))
    counts_E = router(x_TD).counts_E.double()
    return float(counts_E.max() / counts_E.mean() - 1)


def test_normal_and_small_inits_have_their_spread() -> None:
    normal, small = (_initialised(i).weight_ED.detach() for i in (RouterInit.normal, RouterInit.small))
    assert float(normal.std()) == pytest.approx(0.02, rel=0.05)
    assert_close(small, normal / 10)


def test_small_init_starts_near_uniform() -> None:
    x_TD = torch.randn(64, 768, generator=torch.Generator().manual_seed(1))
    spread = {init: float((8 * _initialised(init)(x_TD).probs_TE.detach() - 1).abs().max()) for init in RouterInit}
    assert spread[RouterInit.small] < 0.25 < 1 < spread[RouterInit.normal]


def test_talk_init_keeps_the_spread_and_makes_row_norms_differ_by_an_order_of_magnitude() -> None:
    ratios, overloads = [], []
    for seed in range(8):
        normal, talk = _initialised(RouterInit.normal, seed), _initialised(RouterInit.talk, seed)
        assert_close(talk.weight_ED.std(), normal.weight_ED.std())
        norms_E = talk.weight_ED.detach().norm(dim=1)
        ratios.append(float(norms_E.max() / norms_E.min()))
        overloads.append((_max_vio(normal), _max_vio(talk)))
        # Rows keep their directions up to sign.
        cosine_E = torch.cosine_similarity(talk.weight_ED, normal.weight_ED).detach().abs()
        assert_close(cosine_E, torch.ones(8))
    assert sorted(ratios)[4] > 10
    assert all(talk > 3 * normal and talk > 0.3 for normal, talk in overloads), overloads
