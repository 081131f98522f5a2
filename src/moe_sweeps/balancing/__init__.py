"""Balancers: what keeps the experts' loads alike, as one class with its config each.

A balancer may add a loss (seen by autograd), steer the selection (what top-k ranks), and keep state that is updated
once per optimizer step from the summed loads. It never looks at anything but `Routing` records and loads.

Every module of this package is imported, so that a balancer in a new one is registered by existing.
"""

from importlib import import_module
from pkgutil import iter_modules

from moe_sweeps.balancing.auxiliary import (
    AuxBalancer,
    AuxBalancerConfig,
    AuxConfig,
    AuxNormalization,
    AuxScope,
    aux_loss,
    balance_loss,
    z_loss,
)
from moe_sweeps.balancing.base import Balancer, BalancerConfig, NoBalancerConfig
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
    "quantile_thresholds",
    "z_loss",
]
