"""Everything that is known about one sweep, put together once for all outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from moe_sweeps.results.charts import CHARTS
from moe_sweeps.results.claims import Verdict, judge
from moe_sweeps.results.costs import CostTable, cost_table
from moe_sweeps.results.drawing.files import Files, draw_files
from moe_sweeps.results.frame import Loaded
from moe_sweeps.results.layout import sheets
from moe_sweeps.results.manifest import Manifest
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.render_costs import cost_sheet
from moe_sweeps.results.rows import arm_sheet
from moe_sweeps.results.scorecard import claim_sheet
from moe_sweeps.results.sheets import Sheet
from moe_sweeps.results.tables import Table, ablation_table


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sweep's table, costs (None: none were recorded), verdicts on its claims, and figures by name and suffix."""

    table: Table
    costs: CostTable | None
    verdicts: list[Verdict]
    figures: dict[str, dict[str, bytes]]
    not_drawn: dict[str, str]

    @property
    def sheets(self) -> list[Sheet]:
        """Every sheet, the list of arms first."""
        more = (cost_sheet(self.costs) if self.costs else None, claim_sheet(self.table, self.verdicts))
        return [arm_sheet(self.table), *sheets(self.table), *(s for s in more if s is not None)]


def gather(manifest: Manifest, runs: Loaded, noise: Noise | None, *, now: float | None = None) -> Evidence:
    """The evidence of the sweep `manifest` in what `load_runs` read."""
    table = ablation_table(manifest, runs, noise=noise, now=now)
    figures, not_drawn = draw(table, table.definition.figures)
    return Evidence(table, cost_table(table, runs), judge(table, noise), figures, not_drawn)


def draw(table: Table, names: Sequence[str]) -> tuple[Files, dict[str, str]]:
    """PNG and SVG of each figure, and the reasons for those that cannot be drawn."""
    return draw_files({name: partial(CHARTS[name].draw, table) for name in names})
