"""From run folders to evidence: the frame, statistics, tables, figures and claims.

For notebooks:

    from moe_sweeps.results import load_curves, load_runs

    runs, problems = load_runs(Path("runs"))
    curves, damaged = load_curves(runs.query("state == 'done'")["folder"])
"""

from moe_sweeps.results.curves import load_curves
from moe_sweeps.results.frame import Loaded, Problem, load_runs

__all__ = ["Loaded", "Problem", "load_curves", "load_runs"]
