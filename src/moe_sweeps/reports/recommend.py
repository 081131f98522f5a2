"""The summary table: recommended settings, with the evidence for each."""

from __future__ import annotations

from collections.abc import Sequence

from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.records.words import BETTER, NO_RESULT, UNDECIDED, tone
from moe_sweeps.reports.layout import interval_text, p_text
from moe_sweeps.reports.notes import warning
from moe_sweeps.reports.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.tables import Arm, Table

TITLES = ("question", "recommended", "how sure", "evidence", "worse", "sweep", "scale")


def recommendations(tables: Sequence[Table]) -> Sheet | None:
    """One row a table that asks what to set, derived from its differences to the baseline; None without any."""
    rows = [_row(table) for table in tables if table.definition.recommends]
    if not rows:
        return None
    notes = (
        "The lowest validation loss among the arms that were found to be better than the baseline. Where none was, "
        "nothing is recommended: undecided is no finding for the baseline. The interval holds for whichever arm is "
        "picked. A row holds at its scale and length alone.",
    )
    return Sheet("recommended", "Recommended settings", TITLES, (False,) * len(TITLES), tuple(rows), notes)


def _row(table: Table) -> tuple[Cell, ...]:
    recommended, sure, evidence, arm = _finding(table)
    worse = [table.arm(i).label for i, found in table.differences.items() if found.decided and not found.better]
    runs = tuple(run.run_id for run in arm.runs) if arm else ()
    kind = tone(sure)
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
        return NOTHING, NO_RESULT, _why_nothing(table), None
    base = table.arm(table.baseline)
    found = {arm: c for arm, c in table.differences.items() if c.comparable}
    if not found:
        return NOTHING, NO_RESULT, "; ".join(dict.fromkeys(c.verdict for c in table.differences.values())), base
    better = [arm for arm, c in found.items() if c.decided and c.better]
    if better:
        best = min(better, key=lambda arm: found[arm].difference)
        c = found[best]
        text = f"{PRIMARY.header} {PRIMARY.spell_effect(c.difference)} ({interval_text(c)}) against {base.label}"
        n = " and ".join(map(str, c.n))
        return table.arm(best).label, c.verdict, f"{text}; n = {n}, {c.kind}, p {p_text(c.p_family)}", table.arm(best)
    lowest = min(found, key=lambda arm: found[arm].difference)
    seen = f"lowest: {table.arm(lowest).label}, {PRIMARY.spell_effect(found[lowest].difference)} to {base.label}"
    if found[lowest].low is not None:
        seen += f" ({interval_text(found[lowest])})"
    dead = [arm.label for arm in table.arms if _came_to_nothing(arm)]
    seen += f"; without a result to its end: {', '.join(dead)}" if dead else ""
    untold = [arm.label for arm in table.arms
              if arm is not base and not _came_to_nothing(arm) and arm.arm not in found]  # fmt: skip
    if not untold and all(c.decided for c in found.values()):
        return f"{base.label} (the baseline)", f"{BETTER} than every other arm", seen, base
    seen += f"; without a verdict: {', '.join(untold)}" if untold else ""
    return NOTHING, UNDECIDED, f"no arm was found to be better than {base.label}; {seen}", base


def _came_to_nothing(arm: Arm) -> bool:
    """Whether every run of an arm diverged or was stopped: an outcome, which no further seed is needed for."""
    return bool(arm.runs) and all(run.outcome in ("diverged", "stopped") for run in arm.runs)
