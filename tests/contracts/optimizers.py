"""What every optimizer must keep, as functions of its config; `CHECKS` has them all.

A stack is separate matrices, steps are linear in lr where the config says so, and state comes back exactly.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import torch
from optimizing import go_on, gradients, group_by_role, parameter, train
from torch import nn

from moe_sweeps.optim import OptimizerConfig

UP, DOWN, QKV, ROUTER, EMBEDDING, NORM = (
    "layers.0.moe.experts.up_EHD",
    "layers.0.moe.experts.down_EDF",
    "layers.0.attention.qkv_QD",
    "layers.0.moe.router.weight_ED",
    "embedding.weight",
    "final_norm.weight",
)
SHAPES = {UP: (3, 20, 12), DOWN: (3, 12, 10), QKV: (36, 12), ROUTER: (3, 12), EMBEDDING: (40, 12), NORM: (12,)}


def made_up(steps: int) -> tuple[dict[str, nn.Parameter], dict[str, Any]]:
    params = {name: parameter(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}
    return params, {name: gradients(shape, steps, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}


def a_stack_is_as_many_matrices_and_seams_part_them(config: OptimizerConfig) -> None:
    """Each expert's gate, up and down, and query, key and value, trained as parameters of their own."""
    if hasattr(config, "max_preconditioner_dim"):
        changes: dict[str, Any] = {"max_preconditioner_dim": 20}  # so that 10 x 12 stays a matrix
        config = dataclasses.replace(config, **changes)
    params, grads = made_up(8)
    params, grads = ({name: d[name] for name in (UP, DOWN, QKV)} for d in (params, grads))
    apart: dict[str, tuple[str, Any, nn.Parameter]] = {}
    for name, at in [
        *((UP, (e, rows)) for e in range(3) for rows in (slice(10), slice(10, 20))),
        *((DOWN, (e,)) for e in range(3)),
        *((QKV, (slice(12 * i, 12 * i + 12),)) for i in range(3)),
    ]:
        role = "attention" if name == QKV else "moe.experts"
        key = f"layers.{len(apart)}.{role}.one_OI"
        apart[key] = (name, at, nn.Parameter(params[name].detach()[at].clone()))
    separate = {key: param for key, (_, _, param) in apart.items()}
    separate_grads = {key: [g[at].clone() for g in grads[name]] for key, (name, at, _) in apart.items()}
    train(config, params, grads)
    train(config, separate, separate_grads)
    for name, at, param in apart.values():
        torch.testing.assert_close(params[name].detach()[at], param.detach(), rtol=1e-5, atol=1e-6)


def other_experts_do_not_matter(config: OptimizerConfig) -> None:
    """An expert moves the same whatever the gradients of its neighbours are."""
    params, grads = made_up(8)
    other, other_grads = made_up(8)
    for grad in other_grads[UP]:
        grad[1:] *= 100
    train(config, params, grads)
    train(config, other, other_grads)
    torch.testing.assert_close(params[UP][0], other[UP][0], rtol=1e-5, atol=1e-6)
    if not config.ELEMENTWISE:  # whose steps hardly know the size of a gradient either
        assert not torch.equal(params[UP][1], other[UP][1])


def stopped_and_resumed_is_bit_identical(config: OptimizerConfig) -> None:
    """Through bytes, without unpickling code, between two computations of roots and after both."""
    params, grads = made_up(8)
    train(config, params, grads)
    again, _ = made_up(8)
    stopped = train(config, again, {name: g[:4] for name, g in grads.items()})
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    buffer.seek(0)
    resumed = config.build(group_by_role(again))
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    go_on(resumed, again, {name: g[4:] for name, g in grads.items()})
    for name in SHAPES:
        assert torch.equal(params[name], again[name]), name


def a_step_is_linear_in_the_learning_rate_decay_included(config: OptimizerConfig) -> None:
    """p - new p doubles with lr: at lr and at 2 lr from the same state."""
    if not config.LINEAR_IN_LR:
        return  # load-based splits refuse it
    _, grads = made_up(6)
    moves = []
    for factor in (1.0, 2.0):
        params = {name: nn.Parameter(p.detach().double()) for name, p in made_up(0)[0].items()}
        optimizer = train(config, params, {name: g[:5] for name, g in grads.items()})
        before = {name: param.detach().clone() for name, param in params.items()}
        for group in optimizer.param_groups:
            group["lr"] *= factor
        go_on(optimizer, params, {name: g[5:] for name, g in grads.items()})
        moves.append({name: param.detach() - before[name] for name, param in params.items()})
    for name in SHAPES:
        torch.testing.assert_close(moves[1][name], 2 * moves[0][name], rtol=1e-6, atol=1e-12)


def groups_keep_role_learning_rate_and_decay(config: OptimizerConfig) -> None:
    """With lr 0 for one role that role stands still; the decay acts on matrices of expert, router and dense roles."""
    params, grads = made_up(4)
    optimizer = config.build(group_by_role(params))
    found = {g["role"]: (g["lr"], g["peak_lr"], g["weight_decay"]) for g in optimizer.param_groups}
    base, decay = config.base_lr, config.weight_decay
    decayed = dict.fromkeys(("expert", "router", "dense"), (base, base, decay))
    assert found == decayed | dict.fromkeys(("embedding", "norm"), (base, base, 0.0))
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if group["role"] == "router" else group["lr"]
    before = {name: param.detach().clone() for name, param in params.items()}
    go_on(optimizer, params, grads)
    for name, param in params.items():
        assert torch.equal(param, before[name]) == (name == ROUTER), name


CHECKS: tuple[Callable[[OptimizerConfig], None], ...] = (
    a_stack_is_as_many_matrices_and_seams_part_them,
    other_experts_do_not_matter,
    stopped_and_resumed_is_bit_identical,
    a_step_is_linear_in_the_learning_rate_decay_included,
    groups_keep_role_learning_rate_and_decay,
)
