"""Learning-rate splits: how the experts, the router and the rest share one base learning rate.

A split gives each role a multiplier; a load-based one gives each expert a ratio besides, anew in every step. Between
two splits nothing but learning rates differs.

Every module of this package is imported, so that a split in a new one is registered by existing.
"""

from importlib import import_module
from pkgutil import iter_modules

from moe_sweeps.optim.lr_split.base import LrSplitConfig, MatchedConfig, Role, RoleMultipliers, StaticConfig
from moe_sweeps.optim.lr_split.load_based import BatchFractionConfig, IdealNormalizedConfig, LoadBasedConfig
from moe_sweeps.optim.lr_split.ratios import Control, LoadRatios, Ratios, permutation_LE

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "BatchFractionConfig",
    "Control",
    "IdealNormalizedConfig",
    "LoadBasedConfig",
    "LoadRatios",
    "LrSplitConfig",
    "MatchedConfig",
    "Ratios",
    "Role",
    "RoleMultipliers",
    "StaticConfig",
    "permutation_LE",
]
