"""The summary table: what to set, as far as the results tell, with the evidence for each row."""

from __future__ import annotations

from collections.abc import Sequence

from moe_sweeps.results.columns import PRIMARY
from moe_sweeps.results.compare import SINGLE
from moe_sweeps.results.notes import warning
from moe_sweeps.results.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.tables import Arm, Table

TITLES = ("question", "recommended", "how sure", "evidence", "detectably worse", "sweep", "scale")


def recommendations(tables: Sequence[Table]) -> Sheet | None:
    """One row a table that asks what to set, derived from its differences to the baseline; None without any."""
    rows = [_row(table) for table in tables if table.definition.recommends]
    if not rows:
        return None
    notes = (
        "The lowest validation loss among the arms that are detectably better than the baseline, and the baseline "
        "where none is: then nothing speaks for a change. A row holds at its scale and length alone.",
    )
    return Sheet("recommended", "Recommended settings", TITLES, (False,) * len(TITLES), tuple(rows), notes)


def _row(table: Table) -> tuple[Cell, ...]:
    recommended, sure, evidence, arm = _finding(table)
    worse = [table.arm(i).label for i, found in table.differences.items() if found.verdict == "worse"]
    runs = tuple(run.run_id for run in arm.runs) if arm else ()
    kind = {"better": "better", "undecided": "grey", "no result": "mark"}.get(sure, "")
    return (
        text_cell(table.definition.recommends),
        Cell(recommended, recommended, runs, kind),
        Cell(sure, sure, (), kind),
        Cell(" ".join(filter(None, (evidence + ".", warning(table)))), evidence, runs),
        text_cell("; ".join(worse) or NOTHING),
        text_cell(table.title),
        text_cell(", ".join(table.scales) or NOTHING),
    )


def _why_nothing(table: Table) -> str:
    base = table.arm(table.baseline) if table.baseline else None
    if base and not base.done and any(arm.done for arm in table.arms):
        return f"the baseline, {base.label}, has no finished run"
    return "fewer than two arms have a finished run"


def _finding(table: Table) -> tuple[str, str, str, Arm | None]:
    """Recommended setting, how sure, the evidence, and the arm."""
    if table.baseline is None or not table.differences:
        return NOTHING, "no result", _why_nothing(table), None
    base = table.arm(table.baseline)
    found = {arm: c for arm, c in table.differences.items() if not (c.lost or c.mixed)}
    if not found:
        return NOTHING, "no result", "; ".join(dict.fromkeys(c.verdict for c in table.differences.values())), base
    better = [arm for arm, c in found.items() if c.verdict == "better"]
    if better:
        best = min(better, key=lambda arm: found[arm].difference)
        c = found[best]
        interval = f"{PRIMARY.spell(c.low or 0.0, sign=True)} to {PRIMARY.spell(c.high or 0.0, sign=True)}"
        text = f"{PRIMARY.header} {PRIMARY.spell(c.difference, sign=True)} ({interval}) against {base.label}"
        n = " and ".join(map(str, c.n))
        return table.arm(best).label, "better", f"{text}; n = {n}, {c.kind}, p (Holm) {c.p_holm:.2g}", table.arm(best)
    lowest = min(found, key=lambda arm: found[arm].difference)
    seen = f"lowest besides: {table.arm(lowest).label}, {PRIMARY.spell(found[lowest].difference, sign=True)}"
    if all(c.kind == SINGLE for c in found.values()):
        return f"{base.label} (the baseline)", "undecided", f"one seed an arm; {seen}", base
    sizes = [c.detectable for c in found.values() if c.detectable is not None]
    limit = f"; differences below {PRIMARY.spell(max(sizes))} could not be seen" if sizes else ""
    return f"{base.label} (the baseline)", "nothing better seen", f"no arm is detectably better ({seen}){limit}", base
