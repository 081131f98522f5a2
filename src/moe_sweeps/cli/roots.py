"""Folders that commands read without a config."""

from __future__ import annotations

import os
from pathlib import Path

from moe_sweeps.host.shell import PROGRAM, command
from moe_sweeps.paths import resolve


def runs_root() -> Path:
    """$MOE_SWEEPS_RUNS, or runs/ in the repository; without one in the working directory."""
    return resolve(os.environ.get("MOE_SWEEPS_RUNS") or "runs")


def command_at(root: Path, *words: object) -> str:
    """A line of `moe-sweeps` about the runs below `root`, which may have been typed as `paths.runs`."""
    return command(*_elsewhere(root), PROGRAM, *words)


def make_at(root: Path, target: str) -> str:
    """The same of `make`."""
    return command(*_elsewhere(root), "make", target)


def _elsewhere(root: Path) -> tuple[str, ...]:
    return () if root == runs_root() else ("env", f"MOE_SWEEPS_RUNS={root}")
