"""From run folders to evidence: the frame, statistics, comparisons and claims.

For notebooks:

    from moe_sweeps.results import load_curves, load_runs

    runs, problems = load_runs(Path("runs"))
    curves, damaged = load_curves(runs.query("state == 'done'")["folder"])

They are loaded when they are first used, because light commands read manifests and need no pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_sweeps.records.problem import Problem
    from moe_sweeps.results.curves import load_curves
    from moe_sweeps.results.frame import Loaded, load_runs

_HOMES = {
    "Loaded": "moe_sweeps.results.frame",
    "Problem": "moe_sweeps.records.problem",
    "load_curves": "moe_sweeps.results.curves",
    "load_runs": "moe_sweeps.results.frame",
}

__all__ = ["Loaded", "Problem", "load_curves", "load_runs"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_HOMES[name]), name)
