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


# --- logits that stay narrow, as on a GPU -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0], ids=["flat", "ordinary", "certain"])
def test_narrow_logits_lose_nothing_but_the_rounding_of_their_gradient(scale: float) -> None:
    """Against float64 on the same logits: a loss to float32, and softmax - one-hot rounded to bfloat16 once."""
    generator = torch.Generator().manual_seed(0)
    logits_RV = (scale * torch.randn(T, V, generator=generator)).bfloat16()
    targets_R = torch.randint(V, (T,), generator=generator)
    targets_R[::2] = logits_RV.argmax(dim=1)[::2]  # some are nearly certain, where p - 1 is small
    exact_RV = logits_RV.double().softmax(dim=1) - F.one_hot(targets_R, V)
    wanted_R = F.cross_entropy(logits_RV.double(), targets_R, reduction="none")
    right_R = logits_RV.argmax(dim=1) == targets_R
    loss_R, correct_R, gradient_RV = cross_entropy._narrow_score_(logits_RV, targets_R, True)
    assert_close(loss_R.double(), wanted_R, rtol=1e-6, atol=1e-6)
    assert torch.equal(correct_R, right_R)
    assert gradient_RV is logits_RV
    assert ((gradient_RV.double() - exact_RV).abs() <= 2**-8 * exact_RV.abs() + 1e-7).all()


def test_narrow_logits_without_gradient_stay_as_they_are() -> None:
    logits_RV = torch.randn(T, V, generator=torch.Generator().manual_seed(0)).bfloat16()
    before_RV, targets_R = logits_RV.clone(), torch.arange(T) % V
    loss_R, correct_R, gradient_RV = cross_entropy._narrow_score_(logits_RV, targets_R, False)
    assert gradient_RV is None
    assert torch.equal(logits_RV, before_RV)
    again = cross_entropy._narrow_score_(logits_RV, targets_R, True)
    assert torch.equal(loss_R, again[0])
    assert torch.equal(correct_R, again[1])


@pytest.mark.parametrize("block", [2 * V, 10**6], ids=["2 tokens", "all"])
def test_the_loss_with_narrow_logits_is_the_loss(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(cross_entropy, "_CPU_BLOCK", block)
    inputs = _inputs(torch.float32)
    found = []
    for narrow in (False, True):
        monkeypatch.setattr(cross_entropy, "_stays_narrow", lambda *_, narrow=narrow: narrow)
        with torch.autocast("cpu", torch.bfloat16):
            losses = linear_cross_entropy(*inputs)
        found.append((*losses, *torch.autograd.grad(losses[0], inputs[:2])))
    for wide, narrow_ in zip(*found, strict=True):
        assert wide.dtype == narrow_.dtype
        assert_close(narrow_.double(), wide.double(), rtol=0, atol=2e-3 * float(wide.detach().double().abs().max()))
    assert torch.equal(found[0][2], found[1][2])
    assert_close(found[1][0], found[0][0], rtol=1e-6, atol=0)


def test_logits_stay_narrow_on_a_gpu_under_autocast_alone() -> None:
    class OnGpu(Tensor):
        is_cuda = True

    x_TD = torch.ones(2, 3)
    assert cross_entropy._stays_narrow(x_TD.as_subclass(OnGpu), torch.bfloat16)
    assert not cross_entropy._stays_narrow(x_TD.as_subclass(OnGpu), torch.float32)
    assert not cross_entropy._stays_narrow(x_TD, torch.bfloat16)
