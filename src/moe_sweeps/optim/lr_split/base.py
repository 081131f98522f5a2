"""Roles, the interface of all learning-rate splits, and the two splits that do not depend on loads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, Component, Unread, component, knob
from moe_sweeps.optim.lr_split.ratios import LoadRatios

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


class Role(Enum):
    """The role of a parameter. Every trainable parameter has exactly one."""

    expert = "expert"
    router = "router"
    dense = "dense"  # attention and dense feed-forward
    embedding = "embedding"
    norm = "norm"


@dataclass(slots=True)
class LrSplitConfig(Component):
    """Base: a multiplier of `optimizer.base_lr` for each role."""

    def multiplier(self, role: Role) -> float:
        """The multiplier of `optimizer.base_lr` for `role`."""
        return 1.0

    def canonical(self, run: Run) -> LrSplitConfig:
        return self

    def ratios(self, run: Run) -> LoadRatios | None:
        """Computes each expert's ratio of its role's learning rate in every step; None where all have the same rate."""
        return None


@component("lr_split", "matched")
@dataclass(slots=True)
class MatchedConfig(LrSplitConfig):
    """Every role learns at `optimizer.base_lr`."""

    kind: str = "matched"


@dataclass(slots=True)
class RoleMultipliers(LrSplitConfig):
    """Base of the splits with a fixed multiplier of `optimizer.base_lr` for each role."""

    expert: float = knob(1.0, ge=0, doc="multiple of optimizer.base_lr for the experts")
    router: float = knob(1.0, ge=0, doc="multiple of optimizer.base_lr for the router")
    dense: float = knob(1.0, ge=0, doc="multiple of optimizer.base_lr for attention")
    embedding: float = knob(1.0, ge=0, doc="multiple of optimizer.base_lr for the embedding")
    norm: float = knob(1.0, ge=0, doc="multiple of optimizer.base_lr for the norms")

    def multiplier(self, role: Role) -> float:
        return float(getattr(self, role.value))

    def unread(self, run: Run) -> dict[str, Unread]:
        moe_only = [] if run.experts.is_moe else [Role.expert.value, Role.router.value]
        return dict.fromkeys(moe_only, DENSE_HAS_NO_ROUTER)

    def without_loads(self, run: Run, expert: float) -> LrSplitConfig:
        """The canonical split with the same multipliers, except `expert` for the experts."""
        plain = StaticConfig(
            expert=expert, router=self.router, dense=self.dense, embedding=self.embedding, norm=self.norm
        )
        unread = RoleMultipliers.unread(self, run)
        all_one = all(plain.multiplier(role) == 1.0 for role in Role if role.value not in unread)
        return MatchedConfig() if all_one else plain


@component("lr_split", "static")
@dataclass(slots=True)
class StaticConfig(RoleMultipliers):
    """A fixed multiplier of `optimizer.base_lr` for each role."""

    kind: str = "static"

    def canonical(self, run: Run) -> LrSplitConfig:
        return self.without_loads(run, self.expert)
