"""From run folders to evidence: the frame, statistics, tables, figures and claims.

For notebooks:

    from moe_sweeps.results import load_curves, load_runs, open_suite

    suite = open_suite()  # tables, figures, claims: analysis/ shows how
    runs, problems = load_runs(Path("runs"))
    curves, damaged = load_curves(runs.query("state == 'done'")["folder"])

They are loaded when they are first used, because light commands read manifests and need no pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_sweeps.results.curves import load_curves
    from moe_sweeps.results.frame import Loaded, load_runs
    from moe_sweeps.results.problem import Problem
    from moe_sweeps.results.suite import Suite, open_suite

_HOMES = {"load_curves": "curves", "load_runs": "frame", "Loaded": "frame", "Problem": "problem"}
_HOMES |= {"open_suite": "suite", "Suite": "suite"}

__all__ = ["Loaded", "Problem", "Suite", "load_curves", "load_runs", "open_suite"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
