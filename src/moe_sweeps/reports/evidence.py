"""The results of one sweep, computed once for all outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.problem import Problem
from moe_sweeps.reports.cards import next_runs
from moe_sweeps.reports.charts import CHARTS, OF_SEARCHES, OVER_TRAINING, unreadable_curves
from moe_sweeps.reports.charts.statements import statements
from moe_sweeps.reports.drawing.files import Drawn, draw_files
from moe_sweeps.reports.layout import sheets
from moe_sweeps.reports.render_costs import cost_sheet
from moe_sweeps.reports.rows import arm_sheet
from moe_sweeps.reports.scorecard import claim_sheet
from moe_sweeps.reports.sheets import Sheet
from moe_sweeps.reports.trial_sheet import trial_sheet
from moe_sweeps.results.costs import CostTable, cost_table
from moe_sweeps.results.findings import Verdict
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import Runs
from moe_sweeps.results.standing import is_replaced, standing_verdicts
from moe_sweeps.results.tables import Table, ablation_table


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sweep's table, costs (None: none were recorded), verdicts on its claims, and figures by name and suffix."""

    table: Table
    costs: CostTable | None
    verdicts: list[Verdict]
    figures: dict[str, dict[str, bytes]]
    not_drawn: dict[str, str]
    next_runs: str = ""  # what the next core-hours buy
    damaged: tuple[Problem, ...] = ()  # runs that figures leave out as unreadable, and faults of figures

    @property
    def problems(self) -> list[Problem]:
        """What could not be read, or not be drawn as it should be: the layout of the table, curves, figures."""
        return [*self.table.problems, *self.damaged]

    @property
    def sheets(self) -> list[Sheet]:
        """Every sheet, the list of arms first."""
        more = (cost_sheet(self.costs) if self.costs else None, claim_sheet(self.table, self.verdicts))
        trials = trial_sheet(self.table)
        first = [arm_sheet(self.table), *([] if trials is None else [trials])]
        return [*first, *sheets(self.table), *(s for s in more if s is not None)]


def gather(manifest: Manifest, runs: Runs, noise: Noise | None, *, now: float | None = None) -> Evidence:
    """The evidence of the sweep `manifest` in what `read_runs` read."""
    table = ablation_table(manifest, runs, noise=noise, now=now)
    names = (*table.definition.figures, *(OF_SEARCHES if manifest.search else ()))
    drawn = draw(table, names)
    costs = cost_table(table, runs)
    damaged = unreadable_curves(table) if OVER_TRAINING.intersection(names) else []
    damaged += [problem for problem in (costs.damaged if costs else ()) if problem not in damaged]
    faults = [Problem(Path(manifest.slug) / f"{name}.png", f"figure: {why}") for name, why in drawn.faults.items()]
    return Evidence(
        table, costs, standing_verdicts(table, runs, noise), drawn.files, drawn.left_out, next_runs(table, noise),
        (*damaged, *faults),
    )  # fmt: skip


def newest(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Without looks of `decide` that a later one replaces: each question is counted once."""
    manifests = [found.table.manifest for found in evidence]
    return [found for found in evidence if not is_replaced(found.table.manifest, manifests)]


def draw(table: Table, names: Sequence[str]) -> Drawn:
    """PNG and SVG of each figure, the reasons for those that cannot be drawn, and the faults of others."""
    return draw_files({name: partial(CHARTS[name].draw, table) for name in names})


def draw_statements(evidence: Sequence[Evidence]) -> Drawn:
    """The figure `claims` of all statements of `evidence` together, or the reason why there is none."""
    return draw_files({"claims": partial(statements, [(found.table, found.verdicts) for found in evidence])})
