"""An optimizer over stacks of blocks: it gathers gradients, asks each stack's rule for a direction, and descends.

Axes: N blocks of one stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.optim.blocks import Cut, Stacks
from moe_sweeps.optim.groups import ParamGroup


class Rule(Protocol):
    """How one stack of equally shaped blocks moves. Keeps the stack's state."""

    def direction(self, grad_N: Tensor, step: int) -> Tensor | None:
        """What to descend along, (N, ...), in step `step`, counted from 1; None: not at all."""

    def state(self) -> dict[str, Tensor]:
        """The tensors that the next step depends on."""


class Stack:
    """What a rule is told about its stack: (N, ...), an empty tensor of its dtype and device, and whose block n is."""

    def __init__(self, group: ParamGroup, stacks: Stacks, index: int) -> None:
        self.role, self.index = group.role, index
        self.shape = stacks.shapes[index]
        first = group.params[0]
        self.like = first.new_empty(0, dtype=torch.promote_types(first.dtype, torch.float32))
        self._stacks = stacks

    def zeros(self, *shape: int) -> Tensor:
        return self.like.new_zeros(shape or self.shape)

    def owner(self, block: int) -> str:
        """The parameter that block number `block` is part of."""
        return self._stacks.owner(self.index, block)


class BlockedOptimizer(torch.optim.Optimizer):
    """p <- p - lr * (decay * p + direction), block by block.

    `cut` says how a group's parameters become blocks, `rule` how a stack of them moves. `state_dict` holds the stacks'
    state instead of each parameter's.
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
        self.stacks = [Stacks(group.names, group.params, cut(group)) for group in groups]
        self.rules = [
            [rule(Stack(group, stacks, i)) for i in range(len(stacks.shapes))]
            for group, stacks in zip(groups, self.stacks, strict=True)
        ]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update.

        Raises:
            MoeSweepsError: a parameter has no gradient.
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
        return None

    def state_dict(self) -> dict[str, Any]:
        """torch's own, with the number of steps and each stack's tensors, by group."""
        stacks = [[rule.state() for rule in rules] for rules in self.rules]
        return super().state_dict() | {"steps": self.steps, "stacks": stacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            MoeSweepsError: the state is of other blocks.
        """
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        self.steps = state_dict["steps"]
        for rules, saved_rules in zip(self.rules, state_dict["stacks"], strict=True):
            for rule, saved in zip(rules, saved_rules, strict=True):
                _restore(rule.state(), saved)


def _gradient(name: str, param: nn.Parameter) -> Tensor:
    if param.grad is None:
        raise MoeSweepsError(f"parameter {name} has no gradient, and its block would stand still unnoticed")
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
