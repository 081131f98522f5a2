"""Quantile balancing: exact balance up to ties, and the assignment of largest total score by a linear program.

Axes: T tokens, E experts, K picks per token, C = KT/E tokens per expert.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import make_run
from scipy.optimize import linear_sum_assignment, linprog  # type: ignore[import-untyped]
from scipy.sparse import eye as identity  # type: ignore[import-untyped]
from scipy.sparse import kron, vstack
from torch import Tensor
from unit.balancing.records import HAND, build

from moe_sweeps.balancing import Quantile, QuantileConfig, quantile, quantile_thresholds
from moe_sweeps.balancing.quantile import ROUNDS_UNSEEN, layers_at_once
from moe_sweeps.model.router import Routing, SigmoidConfig, SoftmaxTopkConfig

ROUNDS = QuantileConfig().iterations


def scores(tokens: int, experts: int, seed: int) -> Tensor:
    """Softmax scores (T, E) in float64; some experts are wanted much more than others."""
    generator = torch.Generator().manual_seed(seed)
    slope = 4 * torch.rand((), generator=generator).item()
    logits_TE = torch.randn(tokens, experts, generator=generator, dtype=torch.float64)
    return (logits_TE + torch.linspace(slope, -slope, experts)).softmax(-1)


def picked(scores_TE: Tensor, beta_E: Tensor, k: int) -> Tensor:
    """Which experts each token picks, (T, E) of 0 and 1."""
    return torch.zeros_like(scores_TE).scatter_(1, (scores_TE - beta_E).topk(k).indices, 1.0)


def best_assignment(scores_TE: Tensor, k: int) -> Tensor:
    """x (T, E) in [0, 1] of largest sum x s, with k experts a token and kT/E tokens an expert, by HiGHS."""
    tokens, experts = scores_TE.shape
    per_token = kron(identity(tokens), np.ones((1, experts)))
    per_expert = kron(np.ones((1, tokens)), identity(experts))
    sums = np.concatenate([np.full(tokens, k), np.full(experts, k * tokens / experts)])
    found = linprog(-scores_TE.flatten().numpy(), A_eq=vstack([per_token, per_expert]), b_eq=sums, bounds=(0, 1))
    return torch.from_numpy(found.x).view(tokens, experts)


def test_quantile_thresholds_by_hand() -> None:
    """Four tokens, two experts, top-1, C = 2; everyone prefers expert 0, by 4, 3, 2, 1.

    alpha = the middle of both = (3, 2.5, 2, 1.5). s - alpha = (2, 1.5, 1, .5) for expert 0 and minus that for expert 1.
    The middles of second and third are beta = (1.25, -1.25). Then s_0 - s_1 - 2.5 = (1.5, .5, -.5, -1.5): the two
    tokens that want expert 0 most have it, and further rounds change nothing.
    """
    scores_TE = torch.tensor([[5.0, 1.0], [4.0, 1.0], [3.0, 1.0], [2.0, 1.0]])
    for rounds in (1, 2, 5):
        beta_E = quantile_thresholds(scores_TE, torch.zeros(2), 1, rounds)
        assert beta_E.tolist() == [1.25, -1.25]
        assert picked(scores_TE, beta_E, 1)[:, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("tokens", "experts", "k"), [(6, 3, 1), (12, 4, 3), (40, 5, 2), (64, 8, 2), (64, 16, 4), (96, 8, 5)]
)
def test_the_picks_are_the_assignment_of_largest_score_by_a_linear_program(tokens: int, experts: int, k: int) -> None:
    for seed in range(10):
        scores_TE = scores(tokens, experts, seed)
        beta_E = quantile_thresholds(scores_TE, torch.zeros(experts, dtype=torch.float64), k, ROUNDS)
        ours_TE = picked(scores_TE, beta_E, k)
        torch.testing.assert_close(ours_TE, best_assignment(scores_TE, k), atol=1e-7, rtol=0)
        assert ours_TE.sum(0).tolist() == [k * tokens / experts] * experts


@pytest.mark.parametrize(("tokens", "experts"), [(32, 4), (256, 8), (256, 32)])
def test_with_one_pick_it_is_the_assignment_of_the_hungarian_method(tokens: int, experts: int) -> None:
    """Every expert stands kT/E times in the square problem that scipy solves."""
    for seed in range(5):
        scores_TE = scores(tokens, experts, seed)
        beta_E = quantile_thresholds(scores_TE, torch.zeros(experts, dtype=torch.float64), 1, ROUNDS)
        _, seats_T = linear_sum_assignment(scores_TE.repeat_interleave(tokens // experts, dim=1), maximize=True)
        expert_T = (scores_TE - beta_E).argmax(1).numpy()
        np.testing.assert_array_equal(expert_T, seats_T // (tokens // experts))


@pytest.mark.parametrize(
    ("tokens", "experts", "k"),
    [(64, 4, 3), (256, 8, 2), (512, 8, 1), (1024, 16, 4), (2048, 8, 2), (2048, 64, 6), (20480, 8, 2)],
)
@pytest.mark.parametrize("gate", [SoftmaxTopkConfig(), SigmoidConfig()], ids=lambda g: g.kind)
def test_after_one_update_every_expert_gets_its_share(
    gate: SoftmaxTopkConfig | SigmoidConfig, tokens: int, experts: int, k: int
) -> None:
    """One global update on the scores of two micro-batches, in float32 as the router gives them."""
    for seed in range(3 if tokens <= 2048 else 1):
        generator = torch.Generator().manual_seed(seed)
        logits_TE = torch.randn(tokens, experts, generator=generator) + torch.linspace(2, -2, experts)
        balancer = QuantileConfig().build(make_run(router=gate), 1, experts)
        for half_TE in logits_TE.chunk(2):
            record = Routing(half_TE, half_TE.topk(k).indices, half_TE, gate.scores_TE(half_TE), torch.empty(0))
            balancer.observe([record])
        balancer.update(torch.zeros(1, experts, dtype=torch.int64))
        ids_TK = balancer.ranking_TE(0, logits_TE, gate.scores_TE(logits_TE)).topk(k).indices
        share = k * tokens // experts
        assert torch.bincount(ids_TK.flatten(), minlength=experts).tolist() == [share] * experts
        before_E = torch.bincount(logits_TE.topk(k).indices.flatten(), minlength=experts)
        assert before_E.max() > 1.15 * share


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_where_scores_tie_at_most_the_share_is_above_and_at_least_the_share_reaches(grid: int) -> None:
    """Logits rounded to multiples of 1/grid, so that many tokens want two experts exactly alike."""
    experts, k, share = 4, 2, 64
    for seed in range(5):
        logits_TE = torch.randn(128, experts, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        scores_TE = (((logits_TE + torch.linspace(1, -1, experts)) * grid).round() / grid).sigmoid()
        beta_E = quantile_thresholds(scores_TE, torch.zeros(experts, dtype=torch.float64), k, ROUNDS)
        pairs_T2 = (scores_TE - beta_E).topk(k + 1).values[:, -2:]
        margin_TE = scores_TE - beta_E - pairs_T2.mean(1, keepdim=True)
        assert ((margin_TE > 1e-12).sum(0) <= share).all()
        assert ((margin_TE > -1e-12).sum(0) >= share).all()


def test_equal_scores_and_balanced_ones_move_nothing() -> None:
    beta_E = torch.tensor([0.25, 0.25, 0.25])
    assert torch.equal(quantile_thresholds(torch.ones(6, 3), beta_E, 1, ROUNDS), beta_E)
    assert torch.equal(quantile_thresholds(torch.eye(3).repeat(2, 1), beta_E, 1, ROUNDS), beta_E)


@pytest.mark.parametrize("iterations", [3, 40, ROUNDS])
def test_rounds_that_nobody_looked_after_change_nothing(iterations: int) -> None:
    """A GPU is waited for once in a few rounds, and ends where a look after every round would have ended."""
    scores_TE = scores(256, 8, seed=0)
    start_E = torch.zeros(8, dtype=torch.float64)
    expected_E = quantile_thresholds(scores_TE, start_E, 2, iterations, look_every=1)
    for look_every in (2, 7, ROUNDS_UNSEEN, 10 * ROUNDS):
        found_E = quantile_thresholds(scores_TE, start_E, 2, iterations, look_every=look_every)
        assert torch.equal(found_E, expected_E), look_every


def test_it_keeps_nothing_from_a_finished_step() -> None:
    """beta is a function of the last beta and of this step's scores."""
    balancer: Quantile = build("quantile")
    for _ in range(2):
        balancer.observe([HAND, HAND])
        balancer.update(torch.zeros(2, 3, dtype=torch.int64))
        assert balancer._seen == []


def test_with_every_expert_picked_there_is_nothing_to_balance() -> None:
    assert quantile_thresholds(torch.rand(6, 3), torch.zeros(3), 3, 5).tolist() == [0.0] * 3


@pytest.mark.parametrize("look_every", [1, 5])
def test_layers_together_are_the_layers_one_by_one_to_the_last_bit(look_every: int) -> None:
    """Some are balanced after fewer rounds than others, and stay as they are meanwhile."""
    scores_LTE = torch.stack([scores(96, 8, seed) for seed in range(5)])
    start_LE = 0.05 * torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for rounds in (1, 4, ROUNDS):
        found_LE = quantile_thresholds(scores_LTE, start_LE, 2, rounds, look_every=look_every)
        alone = [quantile_thresholds(*pair, 2, rounds) for pair in zip(scores_LTE, start_LE, strict=True)]
        assert torch.equal(found_LE, torch.stack(alone))


def test_a_balancer_that_takes_all_layers_at_once_ends_on_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for size in (1, 2, 9):
        monkeypatch.setattr(quantile, "layers_at_once", lambda n, *_, s=size: [slice(i, i + s) for i in range(0, n, s)])
        balancer = QuantileConfig().build(make_run(router=SigmoidConfig()), 3, 8)
        for seed in range(4):
            logits = [scores(64, 8, 10 * seed + layer).float() for layer in range(3)]
            records = [Routing(x, x.topk(2).indices, x, x.softmax(-1), torch.empty(0)) for x in logits]
            balancer.observe(records)
            if seed % 2:
                balancer.update(torch.zeros(3, 8, dtype=torch.int64))
        ends.append(balancer.beta_LE)
    assert ends[0].abs().min() > 0
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_layers_at_once() -> None:
    """A GPU takes all of talk's 24 layers of 20,480 tokens and 8 experts, and a part of those of long batches."""
    gpu = torch.device("cuda")
    assert layers_at_once(3, 20_480 * 8, torch.device("cpu")) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert layers_at_once(24, 20_480 * 8, gpu) == [slice(0, 24)]
    assert layers_at_once(12, 163_840 * 128, gpu) == [slice(i, i + 1) for i in range(12)]
    assert layers_at_once(5, 2**24, gpu) == [slice(0, 2), slice(2, 4), slice(4, 5)]
