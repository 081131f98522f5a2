"""Learning rates by role: how the experts, the router and the rest share one base learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, Component, Unread, component, knob

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


class Role(Enum):
    """What a parameter is for. Every trainable parameter has exactly one role."""

    expert = "expert"
    router = "router"
    dense = "dense"  # attention and dense feed-forward
    embedding = "embedding"
    norm = "norm"


@dataclass(slots=True)
class LrSplitConfig(Component):
    """Base: a multiplier of `optimizer.base_lr` for each role."""

    def multiplier(self, role: Role) -> float:
        return 1.0


@component("lr_split", "matched")
@dataclass(slots=True)
class MatchedConfig(LrSplitConfig):
    """Every role learns at `optimizer.base_lr`."""

    kind: str = "matched"


@component("lr_split", "static")
@dataclass(slots=True)
class StaticConfig(LrSplitConfig):
    """A fixed multiplier of `optimizer.base_lr` for each role."""

    kind: str = "static"
    expert: float = knob(1.0, ge=0)
    router: float = knob(1.0, ge=0)
    dense: float = knob(1.0, ge=0)
    embedding: float = knob(1.0, ge=0)
    norm: float = knob(1.0, ge=0)

    def multiplier(self, role: Role) -> float:
        return float(getattr(self, role.value))

    def canonical(self, run: RunConfig) -> LrSplitConfig:
        unread = self.unread(run)
        all_one = all(self.multiplier(role) == 1.0 for role in Role if role.value not in unread)
        return MatchedConfig() if all_one else self

    def unread(self, run: RunConfig) -> dict[str, Unread]:
        moe_only = [] if run.experts.is_moe else [Role.expert.value, Role.router.value]
        return dict.fromkeys(moe_only, DENSE_HAS_NO_ROUTER)
