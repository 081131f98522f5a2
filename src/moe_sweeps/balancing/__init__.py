"""Balancers keep the loads of the experts even. Each is one class with its config.

A balancer may add a differentiable loss, steer the selection (the values that top-k ranks), and keep state that is
updated once per optimizer step from the summed loads. It sees nothing but `Routing` records and loads.

Every module of this package is imported, so that a balancer in a new module registers itself.
"""

from importlib import import_module
from pkgutil import iter_modules

from moe_sweeps.balancing.auxiliary import AuxBalancer, AuxBalancerConfig, aux_loss, balance_loss, z_loss
from moe_sweeps.balancing.base import Balancer, BalancerConfig, NoBalancerConfig, build_balancer
from moe_sweeps.balancing.expert_choice import ExpertChoiceConfig
from moe_sweeps.balancing.lossfree import (
    AuxLossFree,
    AuxLossFreeConfig,
    BiasTarget,
    BiasUpdate,
    LossFree,
    LossFreeConfig,
    UpdateEvery,
)
from moe_sweeps.balancing.quantile import Quantile, QuantileConfig, quantile_thresholds
from moe_sweeps.config.groups import AuxConfig, AuxNormalization, AuxScope

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "AuxBalancer",
    "AuxBalancerConfig",
    "AuxConfig",
    "AuxLossFree",
    "AuxLossFreeConfig",
    "AuxNormalization",
    "AuxScope",
    "Balancer",
    "BalancerConfig",
    "BiasTarget",
    "BiasUpdate",
    "ExpertChoiceConfig",
    "LossFree",
    "LossFreeConfig",
    "NoBalancerConfig",
    "Quantile",
    "QuantileConfig",
    "UpdateEvery",
    "aux_loss",
    "balance_loss",
    "build_balancer",
    "quantile_thresholds",
    "z_loss",
]
