"""A table as CSV, with every digit."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from moe_sweeps.host.plain import csv_cell
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.reports.sheets import Sheet
from moe_sweeps.results.compare import Comparison
from moe_sweeps.results.outcomes import OUTCOMES
from moe_sweeps.results.tables import Arm, Table, marks


def csv_text(table: Table) -> str:
    """One line per arm with every digit: mean, standard deviation, interval and n of each metric, runs by outcome."""
    records = [_record(table, arm) for arm in table.arms]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_cell, records[0]))
    writer.writerows(map(csv_cell, record.values()) for record in records)
    return out.getvalue()


def _record(table: Table, arm: Arm) -> dict[str, Any]:
    record: dict[str, Any] = {"arm": arm.arm, "label": arm.label}
    record |= {axis: arm.settings.get(axis) for axis in table.axes} | {"N": arm.seeds_planned, "n": arm.seeds_done}
    for metric in table.metrics:
        found = arm.cells[metric.column]
        values = {"mean": found.mean, "sd": found.sd, "ci95_half_width": found.half_width, "n": found.n}
        record |= {f"{metric.column}_{k}": v for k, v in values.items()}
    record |= {"baseline": table.baseline, "look": table.looks, **_difference(PRIMARY.column, table.differences, arm)}
    for column, compared in table.others.items():
        record |= _difference(column, compared, arm)
    record |= {f"runs_{outcome}": arm.counts[outcome] for outcome in OUTCOMES}
    record["runs_collapsed"] = arm.router_collapsed
    record |= {"seeds": _joined(r.seed for r in arm.runs), "run_ids": _joined(r.run_id for r in arm.runs)}
    record |= {"source_hashes": _joined(r.version for r in arm.records), "data_fingerprints": _joined(arm.data)}
    return record | {"notes": ", ".join(marks(table, arm))}


def _difference(column: str, compared: Mapping[str, Comparison], arm: Arm) -> dict[str, Any]:
    """Difference to the baseline on the metric's scale, with its test."""
    found = compared.get(arm.arm)
    names = ("difference", "low", "high", "p", "p_family", "probability_better", "detectable", "kind", "verdict")
    values = {f"{column}_{name}": getattr(found, name, None) for name in names}
    scale = {f"{column}_scale": found.metric.scale if found else None}
    return {k.replace("_kind", "_seeds"): v for k, v in values.items()} | scale


def _joined(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def sheet_csv(sheet: Sheet) -> str:
    """A sheet as it is shown, with the ids of the runs behind each row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*map(csv_cell, sheet.columns), "run_ids"])
    for cells in sheet.rows:
        runs = dict.fromkeys(run for cell in cells for run in cell.runs)
        writer.writerow([*(csv_cell(cell.text) for cell in cells), csv_cell(_joined(runs))])
    return out.getvalue()


def frame_csv(frame: pd.DataFrame, beside: Path) -> str:
    """The frame of all runs, for a file in the folder `beside`, from which the folders of runs are named."""
    folders = [os.path.relpath(folder, beside) for folder in frame["folder"]] if "folder" in frame else []
    safe = (frame.assign(folder=folders) if folders else frame).rename(columns=csv_cell)
    texts = [str(name) for name in safe if safe[name].dtype.kind not in "biuf"]
    safe = safe.assign(**{name: safe[name].map(csv_cell) for name in texts})
    return str(safe.to_csv(index=False, lineterminator="\n"))
