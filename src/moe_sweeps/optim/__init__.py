"""Optimizers, learning rates by role, and schedules.

Every module of this package is imported, so that an optimizer or a schedule in a new module registers itself.
"""

from importlib import import_module
from pkgutil import iter_modules

from moe_sweeps.optim.build import AdamWConfig, OptimizerConfig, state_bytes
from moe_sweeps.optim.muon import MuonConfig
from moe_sweeps.optim.shampoo import ShampooConfig
from moe_sweeps.optim.soap import SoapConfig

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["AdamWConfig", "MuonConfig", "OptimizerConfig", "ShampooConfig", "SoapConfig", "state_bytes"]
