"""Parameter groups by role: one function assigns every trainable parameter to exactly one role, and checks that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.optim.lr_split import LrSplitConfig, Role

# A parameter's name determines its role. Exactly one pattern must match.
ROLE_PATTERNS: dict[Role, str] = {
    Role.expert: r"\.experts\.",
    Role.router: r"\.router\.",
    Role.dense: r"\.(attention|ffn)\.(?!\w+_norm\.)",
    Role.embedding: r"^embedding\.",
    Role.norm: r"norm\.weight$",
}
DECAYED_ROLES = frozenset({Role.expert, Role.router, Role.dense})
# A parameter's name ends in its axes. These have rows of several matrices: gate and up; query, key and value.
FUSED_ROWS = {"H": 2, "Q": 3}
STACK_AXIS = "E"


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """All parameters of one role. Two learning-rate splits differ in `lr_multiplier` alone.

    `weight_decay` replaces the optimizer's where it is given. `decay_all` decays roles that usually have no decay, too.
    """

    role: Role
    names: tuple[str, ...]
    params: tuple[nn.Parameter, ...]
    lr_multiplier: float
    weight_decay: float | None = None
    decay_all: bool = False

    def as_torch(self, base_lr: float, weight_decay: float) -> dict[str, Any]:
        """The group as torch optimizers take it. `peak_lr` is the rate that the schedule scales."""
        peak_lr = base_lr * self.lr_multiplier
        own = weight_decay if self.weight_decay is None else self.weight_decay
        decay = own if self.decay_all or self.role in DECAYED_ROLES else 0.0
        return {
            "params": list(self.params),
            "role": self.role.value,
            "lr": peak_lr,
            "peak_lr": peak_lr,
            "weight_decay": decay,
        }


def role_of(name: str) -> Role:
    """The role of the parameter called `name`.

    Raises:
        MoeSweepsError: no pattern, or more than one, matches.
    """
    roles = [role for role, pattern in ROLE_PATTERNS.items() if re.search(pattern, name)]
    if len(roles) != 1:
        found = ", ".join(r.value for r in roles) or "none"
        raise MoeSweepsError(f"parameter {name} must have exactly one role, and matches {found}; see ROLE_PATTERNS")
    return roles[0]


def matrices(name: str, tensor: Tensor) -> list[Tensor]:
    """Views of the matrices in a parameter (or in its gradient), each (N, out, in); (1, dim) of a vector.

    An optimizer of matrices must see a stack of experts as E matrices, and projections that are stored as one matrix
    separately. `layers.0.moe.experts.up_EHD` (E, 2F, D) gives gates (E, F, D) and ups (E, F, D).

    Raises:
        MoeSweepsError: it has three dimensions and is no stack of experts, or has more than three.
    """
    found = re.search(r"_([A-Z]+)$", name)
    axes = found.group(1) if found else ""
    if tensor.dim() > 3 or (tensor.dim() == 3 and not axes.startswith(STACK_AXIS)):
        raise MoeSweepsError(f"parameter {name} of shape {tuple(tensor.shape)} is neither a matrix nor a stack of them")
    stack = tensor if tensor.dim() == 3 else tensor.unsqueeze(0)
    return list(stack.chunk(FUSED_ROWS.get(axes[-2:-1], 1), dim=1))


def parameter_groups(
    model: nn.Module,
    lr_split: LrSplitConfig,
    expected: frozenset[Role],
    own_decay: Mapping[Role, float | None] | None = None,
    *,
    decay_all: bool = False,
) -> list[ParamGroup]:
    """One group for each role of `expected`, holding every trainable parameter of `model` exactly once.

    `own_decay` has the weight decay of roles with one of their own. With `decay_all` embedding and norms are decayed,
    too.

    Raises:
        MoeSweepsError: a parameter has no single role, an expected role is empty, or an unexpected one is not.
    """
    by_role: dict[Role, list[tuple[str, nn.Parameter]]] = {role: [] for role in Role}
    for name, param in model.named_parameters():
        if param.requires_grad:
            by_role[role_of(name)].append((name, param))
    for role, members in by_role.items():
        if bool(members) != (role in expected):
            problem = "has no parameters" if role in expected else f"is not expected, but has {members[0][0]}"
            raise MoeSweepsError(f"the role {role.value} {problem}")
    decay = own_decay or {}
    return [
        ParamGroup(role, *_columns(members), lr_split.multiplier(role), decay.get(role), decay_all)
        for role, members in by_role.items()
        if members
    ]


def _columns(members: list[tuple[str, nn.Parameter]]) -> tuple[tuple[str, ...], tuple[nn.Parameter, ...]]:
    return tuple(name for name, _ in members), tuple(param for _, param in members)


def expected_roles(is_moe: bool) -> frozenset[Role]:
    """The roles that the parameters of our models have."""
    return frozenset(Role) if is_moe else frozenset({Role.dense, Role.embedding, Role.norm})
