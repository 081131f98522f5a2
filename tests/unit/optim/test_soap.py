"""SOAP against a float64 oracle written from algorithms 3 and 4 of arXiv 2409.11321.

Axes: R, C rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from optimizing import go_on, gradients, group_by_role, parameter, train
from torch import Tensor

from moe_sweeps.errors import Diverged, MoeSweepsError
from moe_sweeps.optim import AdamWConfig, SoapConfig

Array = npt.NDArray[np.float64]
UP, OUT, NORM, EMBEDDING = (
    "layers.0.moe.experts.up_EHD",
    "layers.0.attention.out_DD",
    "final_norm.weight",
    "embedding.weight",
)


def oracle(config: SoapConfig, start: Array, grads: Sequence[Array], decay: float, bases: dict[int, Array]) -> Array:
    """One matrix. `bases` are those after the first step; a side without one keeps its own."""
    p, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    factors = [np.zeros((n, n)) for n in p.shape]
    sides, bases = tuple(bases), {side: np.eye(n) for side, n in enumerate(p.shape)} | bases
    for t, g in enumerate(grads):
        if t:
            m = config.beta1 * m + (1 - config.beta1) * g
            turned = bases[0].T @ g @ bases[1]
            v = config.beta2 * v + (1 - config.beta2) * turned**2
            mean = bases[0].T @ (m / (1 - config.beta1**t)) @ bases[1]
            adam = mean / (np.sqrt(v / (1 - config.beta2**t)) + config.eps)
            p = p - config.base_lr * (decay * p + bases[0] @ adam @ bases[1].T)
        outer = (g @ g.T, g.T @ g)
        factors = [config.shampoo_beta * f + (1 - config.shampoo_beta) * o for f, o in zip(factors, outer, strict=True)]
        for side in sides:
            if t and t % config.precondition_frequency == 0:
                power = factors[side] @ bases[side]
                order = np.argsort(-np.einsum("ij,ij->j", bases[side], power), kind="stable")
                bases[side] = np.linalg.qr(power[:, order])[0]
                v = np.take(v, order, axis=side)
    return p


def as_arrays(grads: list[Tensor]) -> list[Array]:
    return [g.numpy() for g in grads]


@pytest.mark.parametrize(
    ("name", "shape", "decay", "limit", "sides"),
    [
        (OUT, (14, 9), 0.1, 100, (0, 1)),
        (OUT, (9, 14), 0.1, 100, (0, 1)),
        (OUT, (14, 9), 0.1, 10, (1,)),
        (OUT, (9, 14), 0.1, 10, (0,)),
        (OUT, (14, 9), 0.1, 5, ()),
        (EMBEDDING, (20, 9), 0.0, 100, (1,)),  # a vocabulary keeps its basis
    ],
)
def test_the_oracle(name: str, shape: tuple[int, int], decay: float, limit: int, sides: tuple[int, ...]) -> None:
    config = SoapConfig(base_lr=0.01, precondition_frequency=3, max_preconditioner_dim=limit)
    grads, start = gradients(shape, 14), parameter(*shape, dtype=torch.float64)
    before = start.detach().numpy().copy()
    optimizer = train(config, {name: start}, {name: grads[:1]})
    state = optimizer.state_dict()["stacks"][0][0]
    bases = {side: state[f"basis_{side}"][0].numpy().copy() for side in sides}
    for side, basis in bases.items():  # a rank-deficient factor has many: any is right
        outer = grads[0] @ grads[0].mT if side == 0 else grads[0].mT @ grads[0]
        turned = basis.T @ outer.numpy() @ basis
        np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-12)
        np.testing.assert_allclose(turned, np.diag(np.sort(turned.diagonal())[::-1]), atol=1e-10 * turned.max())
    go_on(optimizer, {name: start}, {name: grads[1:]})
    expected = oracle(config, before, as_arrays(grads), decay, bases)
    np.testing.assert_allclose(start.detach().numpy(), expected, rtol=1e-8, atol=1e-10)
    assert {key for key in state if key.startswith("basis")} == {f"basis_{side}" for side in sides}


def test_the_first_step_moves_nothing_and_later_norms_are_adamws() -> None:
    shapes = {OUT: (6, 5), NORM: (5,)}
    grads = {name: gradients(shape, 9) for name, shape in shapes.items()}
    params = {name: parameter(*shape) for name, shape in shapes.items()}
    starts = {name: param.detach().clone() for name, param in params.items()}
    optimizer = train(SoapConfig(base_lr=0.01), params, {name: g[:1] for name, g in grads.items()})
    assert all(torch.equal(params[name], starts[name]) for name in params)
    for step in range(1, 9):
        for name, param in params.items():
            param.grad = grads[name][step].float()
        optimizer.step()
    adamw = {NORM: parameter(5)}
    train(AdamWConfig(base_lr=0.01), adamw, {NORM: grads[NORM][1:]})
    torch.testing.assert_close(params[NORM], adamw[NORM], rtol=0, atol=1e-6)


def test_bases_are_orthonormal_and_come_to_diagonalise_their_factors() -> None:
    """With one gradient distribution the power iteration converges, largest eigenvalue first."""
    param, grads = parameter(10, 8, dtype=torch.float64), gradients((10, 8), 1)
    optimizer = train(SoapConfig(precondition_frequency=1), {OUT: param}, {OUT: gradients((10, 8), 3) + grads * 300})
    state = optimizer.state_dict()["stacks"][0][0]
    basis, factor = state["basis_1"][0], state["factor_1"][0]
    torch.testing.assert_close(basis.mT @ basis, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)
    turned = basis.mT @ factor @ basis
    values = turned.diagonal()
    assert (turned - values.diag()).abs().max() < 1e-6 * values.max()
    assert torch.equal(values, values.sort(descending=True).values)


def test_an_expert_without_tokens_is_left_where_it_is() -> None:
    param, grads = parameter(2, 8, 6), gradients((2, 8, 6), 8)
    for grad in grads:
        grad[1] = 0
    before = param.detach().clone()
    train(SoapConfig(weight_decay=0.0, precondition_frequency=2), {UP: param}, {UP: grads})
    assert torch.equal(param[1], before[1])
    assert (param[0] != before[0]).all()


def test_nan_and_failures_name_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    grads = gradients((6, 5), 2)
    grads[0][2, 3] = torch.nan
    with pytest.raises(Diverged, match=f"factor of {OUT} is NaN or infinite"):
        train(SoapConfig(), {OUT: parameter(6, 5)}, {OUT: grads})

    def failing(_: Tensor) -> tuple[Tensor, Tensor]:
        raise torch.linalg.LinAlgError("failed to converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    with pytest.raises(MoeSweepsError, match=f"a preconditioner of {OUT} could not be decomposed"):
        train(SoapConfig(), {OUT: parameter(6, 5)}, {OUT: gradients((6, 5), 1)})
    assert group_by_role({OUT: parameter(6, 5)})[0].names == (OUT,)
