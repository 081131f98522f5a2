"""The blockwise cross-entropy against torch's, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from moe_sweeps.model import cross_entropy
from moe_sweeps.model.cross_entropy import linear_cross_entropy

T, D, V = 23, 8, 31


def _inputs(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_TD = (scale * torch.randn(T, D, generator=generator)).to(dtype).requires_grad_()
    weight_VD = torch.randn(V, D, generator=generator).to(dtype).requires_grad_()
    return x_TD, weight_VD, torch.randint(V, (T,), generator=generator)


@pytest.mark.parametrize("block", [1, 2 * V, 7 * V + 3, 10**6], ids=["1 token", "2 tokens", "7 tokens", "all"])
@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["ordinary", "huge logits"])
def test_values_and_gradients_equal_torch(monkeypatch: pytest.MonkeyPatch, block: int, scale: float) -> None:
    monkeypatch.setattr(cross_entropy, "_CPU_BLOCK", block)
    x_TD, weight_VD, targets_T = _inputs(scale=scale)
    mean, token_loss_T, correct_T = linear_cross_entropy(x_TD, weight_VD, targets_T)
    logits_TV = x_TD @ weight_VD.T
    expected_T = F.cross_entropy(logits_TV, targets_T, reduction="none")
    assert_close(token_loss_T, expected_T.detach(), rtol=1e-12, atol=1e-12)
    assert_close(mean, expected_T.mean(), rtol=1e-12, atol=0)
    assert torch.equal(correct_T, logits_TV.argmax(1) == targets_T)
    found = torch.autograd.grad(3 * mean, (x_TD, weight_VD))
    expected = torch.autograd.grad(3 * expected_T.mean(), (x_TD, weight_VD))
    assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_without_gradient_the_losses_are_the_same() -> None:
    inputs = _inputs(torch.float32)
    with torch.no_grad():
        evaluated = linear_cross_entropy(*inputs)
    trained = linear_cross_entropy(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(evaluated, trained, strict=True))
    assert trained[0].requires_grad
    assert not any(t.requires_grad for t in (*evaluated, *trained[1:]))


def test_bfloat16_autocast_keeps_losses_in_float32() -> None:
    inputs = _inputs(torch.float32)
    expected, *_ = linear_cross_entropy(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mean, token_loss_T, _ = linear_cross_entropy(*inputs)
    assert mean.dtype == token_loss_T.dtype == torch.float32
    assert_close(mean, expected, rtol=0.02, atol=0)
    grads, wanted = (torch.autograd.grad(loss, inputs[:2]) for loss in (mean, expected))
    for grad, want in zip(grads, wanted, strict=True):
        assert grad.dtype == torch.float32
        assert float((grad - want).norm() / want.norm()) < 0.02


def test_of_tied_bfloat16_logits_the_first_is_the_choice() -> None:
    x_TD, weight_VD = torch.ones(3, 2), torch.zeros(4, 2)
    weight_VD[1:3] = 1.0
    targets_T = torch.tensor([0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        *_, correct_T = linear_cross_entropy(x_TD, weight_VD, targets_T)
    assert correct_T.tolist() == [False, True, False]
