"""Learning rates that follow the load: the rate of expert i of a layer is ratio_i * its role's learning rate.

Loads c_i are picks of expert i over the step's global batch of T tokens, sum_i c_i = kT.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from moe_sweeps.config.groups import MoEExpertsConfig
from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, REGISTRY, Unread, component, knob
from moe_sweeps.errors import ConfigError
from moe_sweeps.optim.lr_split.base import LrSplitConfig, RoleMultipliers
from moe_sweeps.optim.lr_split.ratios import Control, LoadRatios, RatioRule

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


@dataclass(slots=True)
class LoadBasedConfig(RoleMultipliers):
    """Base: lr of expert i = ratio_i * `expert` * optimizer.base_lr * schedule.

    The ratios of the step's loads are averaged over steps (`ema`; 0: not), replaced by their square roots (`sqrt`),
    clipped, and assigned to experts as `control` says. With `scale_decay` an expert's weight decay follows its learning
    rate, as in an optimizer with a parameter group for each expert. Without it decay follows the role's learning rate.
    """

    sqrt: bool = knob(False, doc="use the square root of the ratios")
    min_ratio: float = knob(0.0, ge=0, doc="lower bound of the ratios")
    max_ratio: float | None = knob(None, gt=0, doc="upper bound of the ratios; null: none")
    ema: float = knob(0.0, ge=0, lt=1, doc="decay of the moving average of the ratios; 0: none")
    control: Control = knob(Control.none, doc="a control experiment: what a load-based result is compared with")
    scale_decay: bool = knob(True, doc="the ratio scales weight decay, too")

    def per_pick(self, experts: MoEExpertsConfig) -> float:
        """The ratio of an expert that takes all kT picks; see `ratios.load_ratio_LE`."""
        raise NotImplementedError

    def ratios(self, run: Run) -> LoadRatios | None:
        if not isinstance(run.experts, MoEExpertsConfig):
            return None
        bounds = self.min_ratio, self.max_ratio
        rule = RatioRule(self.per_pick(run.experts), self.sqrt, *bounds, self.ema, self.control, run.seed)
        return LoadRatios(rule)

    def check(self, run: Run) -> Iterator[ConfigError]:
        if not isinstance(run.experts, MoEExpertsConfig):
            return
        largest = self._largest(run.experts) if self.max_ratio is None else self.max_ratio
        if self.min_ratio >= largest:
            rule = f"it must be below the largest ratio, which is {largest:g} here, or all ratios are equal"
            yield ConfigError("lr_split.min_ratio", self.min_ratio, rule, "Lower it, or raise lr_split.max_ratio.")
        elif not run.optimizer.LINEAR_IN_LR and isinstance(self.canonical(run), LoadBasedConfig):
            linear = [kind for kind, cls in REGISTRY["optimizer"].items() if getattr(cls, "LINEAR_IN_LR", False)]
            rule = (
                f"it scales each expert's step, which is a learning rate only where the step is linear in it, and that "
                f"of optimizer={run.optimizer.kind} is not"
            )
            yield ConfigError("lr_split", self.kind, rule, f"Use optimizer={' or '.join(linear)}, or lr_split=static.")

    def unread(self, run: Run) -> dict[str, Unread]:
        found = RoleMultipliers.unread(self, run)
        if not run.experts.is_moe:
            of_loads = {f.name for f in fields(LoadBasedConfig)} - {f.name for f in fields(RoleMultipliers)}
            return found | dict.fromkeys(sorted(of_loads), DENSE_HAS_NO_ROUTER)
        if run.optimizer.weight_decay == 0:
            found["scale_decay"] = Unread("optimizer.weight_decay=0", "any weight decay above 0")
        return found

    def canonical(self, run: Run) -> LrSplitConfig:
        """A static split where every expert always has the same ratio; no upper bound where it has no effect."""
        if not isinstance(run.experts, MoEExpertsConfig):
            return self.without_loads(run, 1.0)
        ratio = self._constant_ratio(run, run.experts)
        decay_follows = self.scale_decay or run.optimizer.weight_decay == 0
        if ratio is not None and (ratio == 1.0 or decay_follows):
            return self.without_loads(run, self.expert * ratio)
        binds = self.max_ratio is not None and self.max_ratio < self._largest(run.experts)
        return self if binds else replace(self, max_ratio=None)

    def _constant_ratio(self, run: Run, experts: MoEExpertsConfig) -> float | None:
        """The ratio that every expert has in every step, or None where it depends on the loads."""
        if self.expert == 0:
            return 1.0
        balanced = self.per_pick(experts) / experts.num_experts
        clips = self.min_ratio > 0 or (self.max_ratio is not None and self.max_ratio < self._largest(experts))
        if self.control is Control.uniform and not self.sqrt and not clips:
            return balanced  # the mean of the ratios, whatever the loads
        if run.balancer.EXPERTS_CHOOSE or experts.top_k == experts.num_experts:
            ratio = math.sqrt(balanced) if self.sqrt else balanced
            return max(self.min_ratio, ratio if self.max_ratio is None else min(ratio, self.max_ratio))
        return None

    def _largest(self, experts: MoEExpertsConfig) -> float:
        """The ratio of an expert that every token uses."""
        ratio = self.per_pick(experts) / experts.top_k
        return math.sqrt(ratio) if self.sqrt else ratio


@component("lr_split", "batch_fraction")
@dataclass(slots=True)
class BatchFractionConfig(LoadBasedConfig):
    """ratio_i = c_i/T, the share of the batch's tokens that use expert i: in [0, 1], sum k, k/E when balanced."""

    kind: str = "batch_fraction"

    def per_pick(self, experts: MoEExpertsConfig) -> float:
        return float(experts.top_k)


@component("lr_split", "ideal_normalized")
@dataclass(slots=True)
class IdealNormalizedConfig(LoadBasedConfig):
    """ratio_i = c_i E/(kT), the load over its ideal: mean 1, at most E/k, 1 when balanced."""

    kind: str = "ideal_normalized"

    def per_pick(self, experts: MoEExpertsConfig) -> float:
        return float(experts.num_experts)
