"""From a step's loads to each expert's ratio of its role's learning rate.

In this order: the ratios of the step's loads, their moving average over steps, the square root, clipping, the control.

Axes: L MoE layers, E experts. Loads c_i are picks of expert i over the step's global batch of T tokens, sum c = kT.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.config.choice import Choice
from moe_sweeps.model.precision import to_device


class Control(Choice):
    """What a load-based result is compared with."""

    none = "none", "each expert gets its own ratio"
    uniform = "uniform", "each expert of a layer gets the mean of the layer's ratios"
    shuffled = "shuffled", "the ratios of a layer are permuted among its experts, anew in every step"


@dataclass(frozen=True, slots=True)
class RatioRule:
    """How loads become ratios. `per_pick` is the ratio of an expert that takes all picks: k for c/T, E for cE/(kT)."""

    per_pick: float
    sqrt: bool
    min_ratio: float
    max_ratio: float | None
    ema: float
    control: Control
    seed: int


@dataclass(frozen=True, slots=True)
class Ratios:
    """The ratios of one step, float64 (L, E), and their permutation, int64 (L, E), if they were shuffled.

    `ratio_LE[l, e]` then follows from the load of expert `permutation_LE[l, e]`.
    """

    ratio_LE: Tensor
    permutation_LE: Tensor | None = None


class LoadRatios:
    """Turns the loads of each step into ratios. Its state is the moving average."""

    def __init__(self, rule: RatioRule) -> None:
        self.rule = rule
        self._average_LE: Tensor | None = None
        self._steps = 0

    def next(self, step: int, load_LE: Tensor) -> Ratios:
        """Ratios of step number `step`, counted from 1, from its loads (L, E): summed over micro-batches and ranks."""
        ratio_LE = self._smoothed(load_ratio_LE(load_LE, self.rule.per_pick))
        ratio_LE = ratio_LE.sqrt() if self.rule.sqrt else ratio_LE
        ratio_LE = ratio_LE.clamp(self.rule.min_ratio, self.rule.max_ratio)
        if self.rule.control is Control.uniform:
            return Ratios(ratio_LE.mean(dim=-1, keepdim=True).expand_as(ratio_LE))
        if self.rule.control is Control.shuffled:
            order_LE = to_device(permutation_LE(self.rule.seed, step, *load_LE.shape), load_LE.device)
            return Ratios(ratio_LE.gather(-1, order_LE), order_LE)
        return Ratios(ratio_LE)

    def _smoothed(self, ratio_LE: Tensor) -> Tensor:
        """The bias-corrected exponential moving average m / (1 - ema^t), written as a step towards the new ratios.

        In this form an average of equal ratios is exactly that ratio.
        """
        if not self.rule.ema:
            return ratio_LE
        self._steps += 1
        share = (1 - self.rule.ema) / (1 - self.rule.ema**self._steps)
        before_LE = ratio_LE if self._average_LE is None else self._average_LE
        self._average_LE = before_LE + share * (ratio_LE - before_LE)
        return self._average_LE

    def state_dict(self) -> dict[str, Any]:
        return {"average_LE": self._average_LE, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average_LE, self._steps = state["average_LE"], int(state["steps"])


def load_ratio_LE(load_LE: Tensor, per_pick: float) -> Tensor:
    """per_pick * c_i / sum_j c_j of each layer, float64 (L, E).

    With per_pick = k it is c_i/T, in [0, 1] with sum k; with per_pick = E it is c_i E/(kT), with mean 1.
    """
    load = load_LE.to(torch.float64)
    return load * per_pick / load.sum(dim=-1, keepdim=True)


def permutation_LE(seed: int, step: int, num_layers: int, num_experts: int) -> Tensor:
    """One permutation of the experts for each layer, int64 (L, E), which depends on (seed, step, layer) alone."""
    return torch.stack([_permutation_E(f"{seed}:lr_split:{step}:{i}", num_experts) for i in range(num_layers)])


def _permutation_E(label: str, num_experts: int) -> Tensor:
    digest = hashlib.sha256(label.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.randperm(num_experts, generator=generator)
