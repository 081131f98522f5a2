"""Write the tables of all sweeps, and the frame they rest on, under the reports folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.errors import MoeSweepsError, nearest
from moe_sweeps.files import write_atomic
from moe_sweeps.results import render_costs
from moe_sweeps.results.costs import CostTable, cost_table
from moe_sweeps.results.csv_file import csv_text
from moe_sweeps.results.frame import Problem, load_runs
from moe_sweeps.results.manifest import Manifest, load_manifests
from moe_sweeps.results.markdown import markdown
from moe_sweeps.results.outside import outside_manifest
from moe_sweeps.results.tables import Table, ablation_table
from moe_sweeps.rundir import RunDir

EXAMPLE = "python train.py -m balancer=aux,lossfree aux.coef=0.1,0.2,0.6 scale=smoke"


class NothingToRead(MoeSweepsError):
    """There are no runs to make a table of."""


@dataclass(frozen=True, slots=True)
class Written:
    """Tables that were written, what their runs cost, the files, and what could not be read."""

    tables: list[Table]
    costs: list[CostTable | None]  # one a table; None: no run has recorded any
    paths: list[Path]
    problems: list[Problem]

    @property
    def clean(self) -> bool:
        return not self.problems and all(table.clean for table in self.tables)


def write_tables(runs_root: Path, reports_root: Path, *, only: str | None = None, latest: bool = False) -> Written:
    """Write table.md and table.csv of every sweep (or those called `only`, or the latest), and runs.csv of all runs.

    costs.md and costs.csv stand beside them where runs have recorded what they cost.
    Runs that belong to no sweep get a table of their own unless one sweep was asked for; then problems of folders that
    are not part of it are left out, too.

    Raises:
        NothingToRead: there is no run and no sweep, or none of that name.
    """
    runs = load_runs(runs_root)
    manifests, damaged = load_manifests(runs_root)
    if runs.frame.empty and not manifests and not runs.problems and not damaged:
        raise NothingToRead(f"there are no runs in {runs_root}. Train some first: {EXAMPLE}")
    chosen = _choose(manifests, only, latest, runs_root)
    restricted = latest or only is not None
    if not restricted and (outside := outside_manifest(runs.frame, manifests)) is not None:
        chosen.append(outside)
    members = {run_id for manifest in chosen for run_id in manifest.runs}
    problems = damaged + [p for p in runs.problems if not restricted or RunDir(p.path).run_id in members]
    reports_root.mkdir(parents=True, exist_ok=True)
    tables = [ablation_table(manifest, runs) for manifest in chosen]
    costs = [cost_table(table, runs) for table in tables]
    paths = [path for table, cost in zip(tables, costs, strict=True) for path in _write(table, cost, reports_root)]
    write_atomic(reports_root / "runs.csv", runs.frame.to_csv(index=False, lineterminator="\n"))
    return Written(tables, costs, [*paths, reports_root / "runs.csv"], problems)


def _choose(manifests: list[Manifest], only: str | None, latest: bool, runs_root: Path) -> list[Manifest]:
    """The newest first, as `manifests` are."""
    chosen = [m for m in manifests if only is None or only in (m.name, m.sweep_id)]
    if only is not None and not chosen:
        names = {name for m in manifests for name in (m.name, m.sweep_id)}
        guess = nearest(only, names)
        every = ", ".join(sorted({m.name for m in manifests})) or "none"
        hint = f"Did you mean {guess}?" if guess else f"There are: {every}."
        raise NothingToRead(f"no sweep in {runs_root} is called {only}. {hint}")
    if latest and not chosen:
        raise NothingToRead(f"no sweep has been started in {runs_root}. Start one: {EXAMPLE}")
    return chosen[:1] if latest else chosen


def _write(table: Table, costs: CostTable | None, reports_root: Path) -> list[Path]:
    folder = reports_root / table.manifest.slug
    folder.mkdir(parents=True, exist_ok=True)
    texts = {folder / "table.md": markdown(table), folder / "table.csv": csv_text(table)}
    if costs is not None:
        texts |= {folder / "costs.md": render_costs.markdown(costs), folder / "costs.csv": render_costs.csv_text(costs)}
    for path, text in texts.items():
        write_atomic(path, text)
    return list(texts)
