"""Shampoo: AdamW before the first roots, a float64 oracle around them, failures, NaN, and what it is for.

Axes: R, C rows and columns of a block.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers import make_run
from optimizing import gradients, group_by_role, parameter, train
from torch import Tensor, nn

from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.errors import Diverged, MoeSweepsError
from moe_sweeps.optim import AdamWConfig, OptimizerConfig, ShampooConfig

Array = npt.NDArray[np.float64]
UP, DENSE, ROUTER, NORM = (
    "layers.0.moe.experts.up_EHD",
    "layers.0.attention.out_DD",
    "layers.0.moe.router.weight_ED",
    "final_norm.weight",
)


def oracle(config: ShampooConfig, start: Array, grads: Sequence[Array], decay: float) -> Array:
    """One block of any order, dimension by dimension with einsum, in float64 and straight from the definition."""
    b1, b2, p, order = config.beta1, config.beta2, start.copy(), start.ndim
    m, v = np.zeros_like(p), np.zeros_like(p)
    factors, roots = [np.zeros((n, n)) for n in p.shape], [np.eye(n) for n in p.shape]
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        for d in range(order):
            g_DX = np.moveaxis(g, d, 0).reshape(g.shape[d], -1)
            factors[d] = b2 * factors[d] + (1 - b2) * g_DX @ g_DX.T
        if t % config.precondition_frequency == 0:
            roots = [_root(f / (1 - b2**t), -1 / (2 * order), config.eps) for f in factors]
        mean = m / (1 - b1**t)
        adam = mean / (np.sqrt(v / (1 - b2**t)) + config.grafting_eps)
        direction = adam
        if t >= config.precondition_frequency:
            direction = mean
            for d in range(order):
                direction = np.moveaxis(np.tensordot(roots[d], direction, axes=(1, d)), 0, d)
            direction = direction * np.linalg.norm(adam) / (np.linalg.norm(direction) + 1e-16)
        p = p - config.base_lr * (decay * p + direction)
    return p


def _root(factor: Array, exponent: float, eps: float) -> Array:
    values, vectors = np.linalg.eigh(factor + eps * np.eye(len(factor)))
    if values[0] < eps:
        values = values + (eps - values[0])
    root: Array = vectors @ np.diag(values**exponent) @ vectors.T
    return root


def ours(config: ShampooConfig, name: str, start: nn.Parameter, grads: list[Tensor]) -> Array:
    train(config, {name: start}, {name: grads})
    return start.detach().double().numpy()


def as_arrays(grads: list[Tensor]) -> list[Array]:
    return [g.numpy() for g in grads]


@pytest.mark.parametrize("steps", [99, 100, 101, 199, 200, 201])
@pytest.mark.parametrize(
    ("name", "shape", "decay"), [(DENSE, (24, 36), 0.1), (ROUTER, (3, 5), 0.1), (NORM, (20,), 0.0)]
)
def test_the_oracle_around_the_first_two_roots(name: str, shape: tuple[int, ...], decay: float, steps: int) -> None:
    config = ShampooConfig(base_lr=0.01)
    grads = gradients(shape, steps)
    start = parameter(*shape, dtype=torch.float64)
    flat = name is not DENSE  # 3 x 5 is merged into 15
    block = start.detach().numpy().reshape(-1) if flat else start.detach().numpy()
    block_grads = [g.reshape(-1) if flat else g for g in as_arrays(grads)]
    expected = oracle(config, block, block_grads, decay).reshape(shape)
    np.testing.assert_allclose(ours(config, name, start, grads), expected, rtol=1e-9, atol=1e-11)


def test_float32_agrees_with_the_oracle_where_factors_have_full_rank() -> None:
    """The direction alone, because a weight hides its rounding."""
    config = ShampooConfig(base_lr=1.0, weight_decay=0.0)
    grads = [g.float().double() for g in gradients((24, 36), 100)]
    start = nn.Parameter(torch.zeros(24, 36))
    before = oracle(config, np.zeros((24, 36)), as_arrays(grads[:99]), 0.0)
    expected = oracle(config, np.zeros((24, 36)), as_arrays(grads), 0.0) - before
    train(config, {DENSE: start}, {DENSE: grads[:99]})
    at_99 = start.detach().clone()
    again = nn.Parameter(torch.zeros(24, 36))
    train(config, {DENSE: again}, {DENSE: grads})
    found = (again.detach() - at_99).double().numpy()
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4


def test_the_oracle_of_a_matrix_that_is_cut() -> None:
    """1000 x 700 is 768 x 700 and 232 x 700, each a block with factors and a norm of its own."""
    config = ShampooConfig(base_lr=0.01, precondition_frequency=4)  # by then 4 x 232 rows: every factor has full rank
    grads = gradients((1000, 700), 5)
    start = parameter(1000, 700, dtype=torch.float64)
    block = start.detach().numpy().copy()
    expected = np.concatenate(
        [
            oracle(config, block[rows], [g[rows] for g in as_arrays(grads)], 0.1)
            for rows in (slice(768), slice(768, None))
        ]
    )
    np.testing.assert_allclose(ours(config, DENSE, start, grads), expected, rtol=1e-8, atol=1e-10)


def test_the_oracle_with_three_dimensions() -> None:
    """No parameter of ours has such blocks; the exponent is -1/6."""
    from moe_sweeps.distributed.ranks import ALONE
    from moe_sweeps.optim.findings import Findings
    from moe_sweeps.optim.shampoo import ShampooStack

    class Three:
        role, index, shape = None, 0, (1, 3, 4, 5)
        like = torch.empty(0, dtype=torch.float64)
        findings = Findings()

        def zeros(self, *shape: int) -> Tensor:
            return self.like.new_zeros(shape or self.shape)

        def owner(self, block: int) -> str:
            return f"block {block}"

    config = ShampooConfig(base_lr=1.0, precondition_frequency=2)
    stack = ShampooStack(config, ALONE, Three())  # type: ignore[arg-type]
    found, grads = torch.zeros(3, 4, 5, dtype=torch.float64), gradients((3, 4, 5), 5)
    for t, grad in enumerate(grads, 1):
        found -= stack.direction(grad.unsqueeze(0), t)[0]
    expected = oracle(config, np.zeros((3, 4, 5)), as_arrays(grads), 0.0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_steps_1_to_99_equal_adamw_and_step_100_does_not() -> None:
    shapes = {UP: (4, 12, 10), DENSE: (20, 20), ROUTER: (4, 6), NORM: (20,), "embedding.weight": (50, 20)}
    grads = {name: gradients(shape, 100) for name, shape in shapes.items()}
    ends = []
    for config in (AdamWConfig(base_lr=0.01), ShampooConfig(base_lr=0.01)):
        params = {name: parameter(*shape) for name, shape in shapes.items()}
        optimizer = config.build(group_by_role(params))
        trajectory = []
        for step in range(100):
            for name, param in params.items():
                param.grad = grads[name][step].float()
            optimizer.step()
            trajectory.append({name: param.detach().clone() for name, param in params.items()})
        ends.append(trajectory)
    for step, (adamw, shampoo) in enumerate(zip(*ends, strict=True), 1):
        for name in shapes:
            difference = (adamw[name] - shampoo[name]).abs().max().item()
            assert difference < 1e-6 if step < 100 else difference > 1e-3, (step, name)


def test_roots_are_computed_at_the_start_and_then_at_multiples_of_the_frequency() -> None:
    due = [step for step in range(1, 50) if ShampooConfig(precondition_frequency=10).is_due(step)]
    assert due == [10, 20, 30, 40]
    due = [step for step in range(1, 50) if ShampooConfig(precondition_frequency=10, start_step=25).is_due(step)]
    assert due == [25, 30, 40]


def test_a_failed_decomposition_keeps_the_root_and_warns_and_a_few_in_a_row_are_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    param, grads = parameter(6, 4), gradients((6, 4), 40)
    config = ShampooConfig(precondition_frequency=2, max_preconditioner_dim=6)
    optimizer = train(config, {DENSE: param}, {DENSE: grads[:2]})
    kept = {k: v.clone() for k, v in optimizer.state_dict()["stacks"][0][0].items() if k.startswith("root")}

    def failing(_: Tensor) -> tuple[Tensor, Tensor]:
        raise torch.linalg.LinAlgError("failed to converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.linalg, "eigh", failing)

    def step(number: int) -> None:
        param.grad = grads[number].float()
        optimizer.step()

    with caplog.at_level(logging.WARNING):
        for number in range(2, 8):  # three more computations
            step(number)
    assert caplog.messages == [f"a preconditioner of {DENSE} could not be decomposed; its last root stays in use"] * 6
    for key, root in kept.items():
        assert torch.equal(optimizer.state_dict()["stacks"][0][0][key], root)
    step(8)
    with pytest.raises(MoeSweepsError, match=f"a preconditioner of {DENSE} could not be decomposed 4 times in a row"):
        step(9)
    monkeypatch.undo()


def test_a_success_forgets_earlier_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    param, grads = parameter(6, 4), gradients((6, 4), 6)
    optimizer = train(
        ShampooConfig(precondition_frequency=2, max_preconditioner_dim=6), {DENSE: param}, {DENSE: grads[:1]}
    )
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "eigh", lambda m: (_ for _ in ()).throw(torch.linalg.LinAlgError("no")))  # type: ignore[attr-defined]
        param.grad = grads[1].float()
        optimizer.step()
    state = optimizer.state_dict()["stacks"][0][0]
    assert [state["failures_0"].tolist(), state["failures_1"].tolist()] == [[1], [1]]
    assert torch.equal(state["root_0"][0], torch.eye(6))  # until a first one succeeds
    for grad in grads[2:4]:
        param.grad = grad.float()
        optimizer.step()
    assert [state["failures_0"].tolist(), state["failures_1"].tolist()] == [[0], [0]]


def test_nan_in_a_factor_names_the_parameter() -> None:
    other = UP.replace("layers.0", "layers.1")
    params = {name: parameter(2, 8, 6) for name in (UP, other)}
    grads = {name: gradients((2, 8, 6), 2) for name in params}
    grads[other][0][1, 3, 2] = torch.nan
    with pytest.raises(Diverged, match=f"a preconditioner's factor of {other} is NaN or infinite"):
        train(ShampooConfig(precondition_frequency=2), params, grads)


def test_a_run_that_ends_before_the_first_roots_is_refused() -> None:
    def rules(steps: int, **knobs: int | None) -> list[str]:
        run = make_run(optimizer=ShampooConfig(**knobs), trainer=TrainerConfig(steps=steps))  # type: ignore[arg-type]
        return [str(error) for error in run.optimizer.check(run)]

    assert rules(100) == []
    assert rules(99) == [
        "optimizer.precondition_frequency=100 is refused: training ends before that step (trainer.steps=99), "
        "so this would be AdamW. Lower it, or train longer."
    ]
    assert rules(2000, start_step=50) == [
        "optimizer.start_step=50 is refused: roots exist from step optimizer.precondition_frequency (100) on. "
        "Start then or later, or lower the frequency."
    ]


@pytest.mark.parametrize("lr", [0.01, 0.02, 0.05, 0.1])
def test_an_ill_conditioned_quadratic_after_300_steps(lr: float) -> None:
    """|A (W - W*) B|^2 / 2 with A and B of condition 10^1.5, whose axes are not those of the weights.

    At learning rates from 0.01 on, with which the weights can go as far as W*.
    """
    adamw, shampoo = (quadratic(config(base_lr=lr, weight_decay=0.0)) for config in (AdamWConfig, ShampooConfig))
    assert shampoo < 0.9 * adamw


def quadratic(config: OptimizerConfig) -> float:
    """The loss at step 300, with the learning rate falling linearly to 0."""
    generator = torch.Generator().manual_seed(0)

    def rotation(size: int) -> Tensor:
        q: Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
        return q

    left, right = (rotation(n) @ torch.diag(torch.logspace(-1.5, 0, n)) @ rotation(n) for n in (40, 30))
    target, param = torch.randn(40, 30, generator=generator), nn.Parameter(torch.zeros(40, 30))
    optimizer = config.build(group_by_role({DENSE: param}))
    loss = torch.zeros(())
    for step in range(300):
        optimizer.param_groups[0]["lr"] = config.base_lr * (1 - step / 300)
        loss = (left @ (param - target) @ right).square().sum() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()
