"""Learning-rate splits: the learning rates of experts, router and the rest, relative to one base learning rate.

A split gives each role a multiplier. A load-based one also gives each expert a ratio, a new one in every step. Two
splits differ in nothing but learning rates.

Every module of this package is imported, so that a split in a new module registers itself.
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
