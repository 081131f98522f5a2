"""One number in two families: a statement of a sweep, and the row of its table that compares the same two arms.

Statements are corrected over the statements of their sweep, differences over the arms of their table. Either family
errs in at most 5% of sweeps; to take whichever says more would err in both. So a number can be decided in one and open
in the other, and where that happens it is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moe_sweeps.records.claims import Statement
from moe_sweeps.records.numbers import PRIMARY, metric_of
from moe_sweeps.records.words import CONTRADICTED, REPRODUCED
from moe_sweeps.results.compare import Comparison
from moe_sweeps.results.findings import Verdict
from moe_sweeps.results.tables import Table


def read_differently(table: Table, verdicts: Sequence[Verdict]) -> list[str]:
    """A sentence for each number that is decided as a statement and open in the table, or the other way round."""
    return list(_sentences(table, verdicts))


def _sentences(table: Table, verdicts: Sequence[Verdict]) -> Iterator[str]:
    for statement, found in zip(table.manifest.expect, verdicts, strict=True):
        row = _row(table, statement)
        if row is None or found.p is None:
            continue
        arm, c = row
        decided = found.verdict in (REPRODUCED, CONTRADICTED)
        if decided != c.decided and c.p_family is not None:
            metric, tested = metric_of(statement.metric), sum(v.p is not None for v in verdicts)
            arms = sum(other.p_family is not None for other in _compared(table, statement.metric).values())
            yield (
                f"{table.arm(arm).label} in {metric.header} reads differently by family: {found.verdict} as a "
                f"statement (p {found.p:.2g} over {tested}), {c.verdict} in the table (p {c.p_family:.2g} over {arms})."
            )


def _compared(table: Table, metric: str) -> dict[str, Comparison]:
    return table.differences if metric == PRIMARY.column else table.others.get(metric, {})


def _row(table: Table, statement: Statement) -> tuple[str, Comparison] | None:
    """The arm and its difference to the baseline that a statement is about, too; None where no row asks the same."""
    if statement.kind not in ("better", "worse") or statement.by:
        return None
    sides = {statement.arm, statement.than} - {table.baseline}
    arm = sides.pop() if len(sides) == 1 else None
    found = None if arm is None else _compared(table, statement.metric).get(arm)
    return None if arm is None or found is None else (arm, found)
