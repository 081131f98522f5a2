"""Folders that commands read without a config."""

from __future__ import annotations

import os
from pathlib import Path

from moe_sweeps.paths import resolve


def runs_root() -> Path:
    """$MOE_SWEEPS_RUNS, or runs/ in the repository; without one in the working directory."""
    return resolve(os.environ.get("MOE_SWEEPS_RUNS") or "runs")
