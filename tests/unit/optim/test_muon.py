"""Muon: torch's own for each matrix, a float64 oracle, and AdamW on what is no hidden matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from optimizing import gradients, parameter, train
from torch import nn

from moe_sweeps.optim import AdamWConfig, MuonConfig
from moe_sweeps.optim.muon import MuonScaling, orthogonalized

UP, DOWN, OUT = "layers.0.moe.experts.up_EHD", "layers.0.moe.experts.down_EDF", "layers.0.attention.out_DD"


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_newton_schulz_against_float64(shape: tuple[int, int]) -> None:
    """The quintic acts on singular values alone: U f(...f(S)) V^T, with S scaled to a Frobenius norm of 1."""
    (grad,) = gradients(shape, 1)
    left, values, right = np.linalg.svd(grad.numpy(), full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected = left @ np.diag(values) @ right
    np.testing.assert_allclose(orthogonalized(grad[None], 5)[0].numpy(), expected, rtol=1e-10, atol=1e-12)
    found = orthogonalized(grad[None].float(), 5)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_singular_values_of_a_well_conditioned_matrix_come_near_to_1() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(1, 16, 64), 5))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_in_bfloat16_the_iterations_are_those_of_torch() -> None:
    from torch.optim._muon import _zeropower_via_newtonschulz

    (grad,) = gradients((24, 40), 1)
    for matrix in (grad.float(), grad.float().mT.contiguous()):
        theirs = _zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7)
        found = orthogonalized(matrix[None], 5, torch.bfloat16)[0]
        assert found.dtype is torch.bfloat16
        torch.testing.assert_close(found, theirs, rtol=0, atol=0.02)


@pytest.mark.parametrize("scaling", list(MuonScaling), ids=lambda s: s.value)
def test_every_matrix_of_a_stack_moves_as_under_torch_optim_muon(scaling: MuonScaling) -> None:
    """To bfloat16's rounding, in which torch iterates: 0.05 of the step."""
    config = MuonConfig(base_lr=0.01, weight_decay=0.3, scaling=scaling)
    shapes = {UP: (3, 20, 8), DOWN: (3, 8, 10), OUT: (8, 8)}
    params = {name: parameter(*shape) for name, shape in shapes.items()}
    grads = {name: gradients(shape, 4) for name, shape in shapes.items()}
    pieces: dict[Any, tuple[str, Any]] = {
        **{(UP, e, half): (UP, (e, slice(10 * half, 10 * half + 10))) for e in range(3) for half in range(2)},
        **{(DOWN, e): (DOWN, (e,)) for e in range(3)},
        (OUT,): (OUT, ()),
    }
    apart = {key: nn.Parameter(params[name].detach()[at].clone()) for key, (name, at) in pieces.items()}
    starts = {key: p.detach().clone() for key, p in apart.items()}
    theirs = torch.optim.Muon(apart.values(), lr=0.01, weight_decay=0.3, momentum=0.95, adjust_lr_fn=scaling.value)
    for step in range(4):
        for key, (name, at) in pieces.items():
            apart[key].grad = grads[name][step].float()[at].clone()
        theirs.step()
    train(config, params, grads)
    for key, (name, at) in pieces.items():
        moved, expected = params[name].detach()[at] - starts[key], apart[key].detach() - starts[key]
        assert (moved - expected).norm() < 0.05 * expected.norm(), key


def test_a_step_has_the_root_mean_square_of_adamws() -> None:
    """About 0.2 for any shape (arXiv 2502.16982, section 2.2), so that AdamW's learning rate and decay carry over."""
    for shape in ((64, 176), (176, 64), (64, 64)):
        (grad,) = gradients(shape, 1)
        step = orthogonalized(grad[None].float(), 5) * MuonConfig().scale(*shape)
        assert 0.14 < step.square().mean().sqrt().item() < 0.24


def test_embedding_router_and_norms_are_adamws() -> None:
    shapes = {"embedding.weight": (30, 8), "layers.0.moe.router.weight_ED": (4, 8), "final_norm.weight": (8,)}
    grads = {name: gradients(shape, 20) for name, shape in shapes.items()}
    ends = []
    for config in (AdamWConfig(base_lr=0.01), MuonConfig(base_lr=0.01)):
        params = {name: parameter(*shape) for name, shape in shapes.items()}
        train(config, params, grads)
        ends.append(params)
    for name in shapes:
        torch.testing.assert_close(ends[1][name], ends[0][name], rtol=0, atol=1e-6)


def test_the_original_scaling_by_hand() -> None:
    config = MuonConfig(scaling=MuonScaling.original)
    assert [config.scale(9, 1), config.scale(1, 9), config.scale(4, 4)] == [3.0, 1.0, 1.0]
