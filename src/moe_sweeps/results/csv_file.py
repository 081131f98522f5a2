"""A table as CSV, with every digit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from moe_sweeps.results.columns import PRIMARY
from moe_sweeps.results.outcomes import OUTCOMES
from moe_sweeps.results.sheets import Sheet
from moe_sweeps.results.tables import Arm, Table, marks


def csv_text(table: Table) -> str:
    """One line per arm with every digit: mean, standard deviation, interval and n of each metric, runs by outcome."""
    records = [_record(table, arm) for arm in table.arms]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def _record(table: Table, arm: Arm) -> dict[str, Any]:
    record: dict[str, Any] = {"arm": arm.arm, "label": arm.label}
    record |= {axis: arm.settings.get(axis) for axis in table.axes} | {"N": len(arm.runs), "n": arm.done}
    for metric in table.metrics:
        found = arm.cells[metric.column]
        values = {"mean": found.mean, "sd": found.sd, "ci95_half_width": found.half_width, "n": found.n}
        record |= {f"{metric.column}_{k}": v for k, v in values.items()}
    record |= _difference(table, arm)
    record |= {f"runs_{outcome}": arm.counts[outcome] for outcome in OUTCOMES}
    record["runs_collapsed"] = arm.router_collapsed
    record |= {"seeds": _joined(r.seed for r in arm.runs), "run_ids": _joined(r.run_id for r in arm.runs)}
    record |= {"source_hashes": _joined(arm.code), "data_fingerprints": _joined(arm.data)}
    return record | {"notes": ", ".join(marks(table, arm))}


def _difference(table: Table, arm: Arm) -> dict[str, Any]:
    """Difference to the baseline in the primary metric, with its test."""
    found = table.differences.get(arm.arm)
    names = ("difference", "low", "high", "p", "p_holm", "detectable", "kind", "verdict")
    values = {f"{PRIMARY.column}_{name}": getattr(found, name, None) for name in names}
    return {"baseline": table.baseline} | {k.replace("_kind", "_test"): v for k, v in values.items()}


def _joined(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def sheet_csv(sheet: Sheet) -> str:
    """A sheet as it is shown, with the ids of the runs behind each row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*sheet.columns, "run_ids"])
    for cells in sheet.rows:
        runs = dict.fromkeys(run for cell in cells for run in cell.runs)
        writer.writerow([*(cell.text for cell in cells), _joined(runs)])
    return out.getvalue()
