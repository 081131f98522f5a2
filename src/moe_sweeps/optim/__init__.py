"""Optimizers, learning rates by role, and schedules.

Importing this package registers every optimizer.
"""

from moe_sweeps.optim.build import AdamWConfig, OptimizerConfig, state_bytes
from moe_sweeps.optim.muon import MuonConfig
from moe_sweeps.optim.shampoo import ShampooConfig
from moe_sweeps.optim.soap import SoapConfig

__all__ = ["AdamWConfig", "MuonConfig", "OptimizerConfig", "ShampooConfig", "SoapConfig", "state_bytes"]
