"""An optimizer over stacks of blocks: each stack's rule turns gradients into a direction, along which it descends.

Axes: N blocks of one stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.optim.blocks import Cut, Stacks
from moe_sweeps.optim.findings import Findings
from moe_sweeps.optim.groups import ParamGroup


class Rule(Protocol):
    """The update rule of one stack of equally shaped blocks, with its state."""

    def direction(self, grad_N: Tensor, step: int) -> Tensor | None:
        """The direction to descend along in step `step`, counted from 1: (N, ...), or None for no update."""

    def state(self) -> dict[str, Tensor]:
        """The tensors that the next step depends on, by name. They are updated in place."""


class Stack:
    """What a rule knows of its stack: role, shape (N, ...), dtype and device, and the owner of each block.

    What it finds out about its numbers goes to `findings`.
    """

    def __init__(self, group: ParamGroup, stacks: Stacks, index: int, findings: Findings) -> None:
        self.role, self.index, self.findings = group.role, index, findings
        self.shape = stacks.shapes[index]
        first = group.params[0]
        self.like = first.new_empty(0, dtype=torch.promote_types(first.dtype, torch.float32))
        self._stacks = stacks

    def zeros(self, *shape: int) -> Tensor:
        """Zeros of the stack's dtype on its device, by default of its shape."""
        return self.like.new_zeros(shape or self.shape)

    def owner(self, block: int) -> str:
        """The name of the parameter that block number `block` is part of."""
        return self._stacks.owner(self.index, block)


class BlockedOptimizer(torch.optim.Optimizer):
    """p <- p - lr * (decay * p + direction), block by block.

    `cut` gives the function that cuts a group's parameters into blocks, and `rule` the update rule of a stack of them.
    `state_dict` holds the state of each stack, not of each parameter.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        torch_groups: Sequence[dict[str, Any]],
        cut: Callable[[ParamGroup], Cut],
        rule: Callable[[Stack], Rule],
    ) -> None:
        super().__init__(list(torch_groups), {})
        self.steps = 0
        self._findings = Findings()
        self.stacks = [Stacks(group.names, group.params, cut(group)) for group in groups]
        self.rules = [
            [rule(Stack(group, stacks, i, self._findings)) for i in range(len(stacks.shapes))]
            for group, stacks in zip(groups, self.stacks, strict=True)
        ]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update.

        Raises:
            MoeSweepsError: a parameter has no gradient.
            Diverged, MoeSweepsError: a rule refuses its numbers. On a GPU it does at the end of the step.
        """
        if closure is not None:
            raise NotImplementedError("a step takes no closure")
        self.steps += 1
        for group, stacks, rules in zip(self.param_groups, self.stacks, self.rules, strict=True):
            grads = [_gradient(*named) for named in zip(stacks.names, group["params"], strict=True)]
            views = zip(stacks.views(group["params"]), stacks.views(grads), rules, strict=True)
            for param_views, grad_views, rule in views:
                direction_N = rule.direction(torch.cat(grad_views), self.steps)
                if direction_N is not None:
                    _descend(param_views, direction_N, group["lr"], group["weight_decay"])
        self._findings.read()
        return None

    def state_dict(self) -> dict[str, Any]:
        """torch's state, with the number of steps and the tensors of each stack by group."""
        stacks = [[rule.state() for rule in rules] for rules in self.rules]
        return super().state_dict() | {"steps": self.steps, "stacks": stacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            MoeSweepsError: the state belongs to other blocks.
        """
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        self.steps = state_dict["steps"]
        for rules, saved_rules in zip(self.rules, state_dict["stacks"], strict=True):
            for rule, saved in zip(rules, saved_rules, strict=True):
                _restore(rule.state(), saved)


def _gradient(name: str, param: nn.Parameter) -> Tensor:
    if param.grad is None:
        raise MoeSweepsError(f"parameter {name} has no gradient, so its block would silently not be trained")
    return param.grad


def _descend(param_views: list[Tensor], direction_N: Tensor, lr: float, decay: float) -> None:
    pieces = list(direction_N.split([len(view) for view in param_views]))
    if decay:
        torch._foreach_mul_(param_views, 1 - lr * decay)
    torch._foreach_add_(param_views, pieces, alpha=-lr)


def _restore(own: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    shapes, saved_shapes = ({k: tuple(v.shape) for k, v in state.items()} for state in (own, saved))
    if shapes != saved_shapes:
        raise MoeSweepsError(f"the optimizer's state has {saved_shapes} where this optimizer has {shapes}")
    for key, tensor in own.items():
        tensor.copy_(saved[key])
