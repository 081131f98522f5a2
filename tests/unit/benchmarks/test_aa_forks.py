"""The tables of the real A/A experiment on forks: cut from one sweep, and no run in two of them."""

from __future__ import annotations

from pathlib import Path

from aa_experiment import COEFS
from aa_forks import REPLICATES, TRUNKS_A_TABLE, findings, line, sliced

from moe_sweeps.sweep.manifest import write_manifest
from moe_sweeps.sweep.plan import make_plan


def test_each_table_has_trunks_of_its_own(folders: Path) -> None:
    plan = make_plan(line(2)[1:])
    assert len(plan.trunks) == 2 * TRUNKS_A_TABLE
    write_manifest(plan, "a test")
    tables = list(sliced(folders, 2))
    runs = [set(table.manifest.runs) for table in tables]
    assert [len(found) for found in runs] == [len(COEFS) * TRUNKS_A_TABLE * REPLICATES] * 2
    assert not runs[0] & runs[1]
    assert findings(tables).total() == 0  # nothing is trained yet
