"""Clipping. How a step's gradients come about is tested with the trainer."""

from __future__ import annotations

import torch

from moe_sweeps.gradients import clip_gradients


def test_clipping() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradients(model, 0).item() == 5.0
    assert model.weight.grad.tolist() == [[3.0, 4.0]]
    assert clip_gradients(model, 1.0).item() == 5.0
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]))


def test_a_norm_within_the_limit_changes_no_bit() -> None:
    """As with torch's own clipping, which multiplies by 1 then."""
    for limit in (5.0, 5.000002, 7.0, 4.9999995):
        ours, torchs = (torch.nn.Linear(2, 1, bias=False) for _ in range(2))
        for model in (ours, torchs):
            model.weight.grad = torch.tensor([[3.0, 4.0]])
        clip_gradients(ours, limit)
        torch.nn.utils.clip_grad_norm_(torchs.parameters(), limit)
        assert ours.weight.grad is not None
        assert torchs.weight.grad is not None
        assert ours.weight.grad.tolist() == torchs.weight.grad.tolist()


def test_a_norm_that_is_no_number_is_left_to_torch() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[float("nan"), 4.0]])
    assert torch.isnan(clip_gradients(model, 1.0))
    assert torch.isnan(model.weight.grad).all()
