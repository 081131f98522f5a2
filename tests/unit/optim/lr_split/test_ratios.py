"""Ratios of learning rates from loads, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from moe_sweeps.optim.lr_split import Control, LoadRatios, permutation_LE
from moe_sweeps.optim.lr_split.ratios import RatioRule, load_ratio_LE

# T = 8 tokens, k = 2 picks: 16 picks a layer.
LOAD = torch.tensor([[8, 4, 4, 0], [4, 4, 4, 4]])


def ratios(per_pick: float = 4.0, *, sqrt: bool = False, low: float = 0.0, high: float | None = None,
           ema: float = 0.0, control: Control = Control.none, seed: int = 0) -> LoadRatios:  # fmt: skip
    return LoadRatios(RatioRule(per_pick, sqrt, low, high, ema, control, seed))


def test_the_two_kinds_by_hand() -> None:
    batch_fraction = load_ratio_LE(LOAD, 2.0)
    assert batch_fraction.tolist() == [[1.0, 0.5, 0.5, 0.0], [0.5] * 4]
    assert batch_fraction.sum(-1).tolist() == [2.0, 2.0]
    ideal = load_ratio_LE(LOAD, 4.0)
    assert ideal.tolist() == [[2.0, 1.0, 1.0, 0.0], [1.0] * 4]


@pytest.mark.parametrize("experts", [3, 7, 8, 60, 128])
def test_balanced_loads_give_exactly_one(experts: int) -> None:
    """To the last bit: a multiplication by it changes nothing."""
    load_LE = torch.full((2, experts), 331)
    assert torch.equal(load_ratio_LE(load_LE, float(experts)), torch.ones(2, experts).double())
    averaged = ratios(float(experts), ema=0.9, sqrt=True)
    for step in range(1, 30):
        assert torch.equal(averaged.next(step, load_LE).ratio_LE, torch.ones(2, experts).double())


def test_square_root_then_clipping() -> None:
    assert ratios(sqrt=True).next(1, LOAD).ratio_LE[0].tolist() == pytest.approx([2**0.5, 1, 1, 0])
    assert ratios(sqrt=True, low=0.25, high=1.2).next(1, LOAD).ratio_LE[0].tolist() == [1.2, 1.0, 1.0, 0.25]


def test_the_moving_average_is_bias_corrected() -> None:
    """m_t = b m_{t-1} + (1 - b) r_t, divided by 1 - b^t."""
    loads = [torch.randint(1, 50, (2, 4), generator=torch.Generator().manual_seed(s)) for s in range(5)]
    found, m = ratios(ema=0.7), torch.zeros(2, 4).double()
    for t, load_LE in enumerate(loads, start=1):
        m = 0.7 * m + 0.3 * load_ratio_LE(load_LE, 4.0)
        torch.testing.assert_close(found.next(t, load_LE).ratio_LE, m / (1 - 0.7**t), rtol=1e-12, atol=0)


def test_the_square_root_is_taken_of_the_average() -> None:
    found = ratios(ema=0.5, sqrt=True)
    found.next(1, LOAD)
    second = found.next(2, LOAD.flip(1)).ratio_LE[0]
    expected = [(0.5 * first + new) / 1.5 for first, new in zip([2.0, 1, 1, 0], [0, 1, 1, 2.0], strict=True)]
    assert second.square().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("sqrt", [False, True])
def test_uniform_is_the_mean_of_the_layer(sqrt: bool) -> None:
    own = ratios(sqrt=sqrt).next(1, LOAD).ratio_LE
    uniform = ratios(sqrt=sqrt, control=Control.uniform).next(1, LOAD).ratio_LE
    assert uniform[0].tolist() == pytest.approx([own[0].mean().item()] * 4)
    assert uniform[1].tolist() == [1.0] * 4


def test_shuffled_permutes_and_says_how() -> None:
    shuffled = ratios(control=Control.shuffled, seed=3)
    own = ratios().next(1, LOAD).ratio_LE
    seen: set[tuple[int, ...]] = set()
    for step in range(1, 20):
        found = shuffled.next(step, LOAD)
        assert found.permutation_LE is not None
        assert torch.equal(found.permutation_LE, permutation_LE(3, step, 2, 4))
        for layer in range(2):
            order = found.permutation_LE[layer].tolist()
            assert sorted(order) == [0, 1, 2, 3]
            assert found.ratio_LE[layer].tolist() == [own[layer, i].item() for i in order]
        seen.add(tuple(found.permutation_LE[0].tolist()))
    assert len(seen) > 8  # anew in every step


def test_a_permutation_depends_on_seed_step_and_layer_alone() -> None:
    def orders(seed: int, step: int) -> list[list[int]]:
        found: list[list[int]] = permutation_LE(seed, step, 3, 32).tolist()
        return found

    state = torch.get_rng_state()
    first = orders(0, 5)
    torch.rand(3)
    assert orders(0, 5) == first
    assert torch.equal(permutation_LE(0, 5, 2, 32), torch.tensor(first[:2]))  # whatever layers there are besides
    assert len({tuple(order) for order in [*first, *orders(1, 5), *orders(0, 6)]}) == 9
    torch.set_rng_state(state)


def test_a_known_permutation_never_changes() -> None:
    """Runs of the shuffled control would otherwise not be the runs that their ids say."""
    assert permutation_LE(0, 1, 1, 8).tolist() == [[6, 1, 2, 4, 3, 0, 7, 5]]


def test_the_moving_average_resumes_exactly() -> None:
    loads = [torch.randint(1, 50, (2, 4), generator=torch.Generator().manual_seed(s)) for s in range(6)]
    whole, first, second = (ratios(ema=0.9) for _ in range(3))
    expected: list[Tensor] = [whole.next(t, load_LE).ratio_LE for t, load_LE in enumerate(loads, start=1)]
    for t in (1, 2, 3):
        first.next(t, loads[t - 1])
    second.load_state_dict(first.state_dict())
    for t in (4, 5, 6):
        assert torch.equal(second.next(t, loads[t - 1]).ratio_LE, expected[t - 1])


def test_ratios_depend_on_summed_counts_alone() -> None:
    """Whatever share of the batch a rank saw, all ranks read the sum, and so have the same bits."""
    parts = [torch.randint(0, 90, (2, 4), generator=torch.Generator().manual_seed(s)) for s in range(4)]
    one, other = parts[0] + parts[1] + parts[2] + parts[3], (parts[3] + parts[1]) + (parts[2] + parts[0])
    for control in Control:
        pair = [ratios(ema=0.3, sqrt=True, control=control).next(9, load_LE).ratio_LE for load_LE in (one, other)]
        assert torch.equal(*pair)
