"""From a cell of a table to the runs behind it: `aux_coef:balancer=lossfree,val_loss`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.errors import MoeSweepsError, nearest
from moe_sweeps.host.reading import read_yaml
from moe_sweeps.host.shell import train_command
from moe_sweeps.records.find import find_sweep
from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.numbers import PRIMARY, Metric
from moe_sweeps.reports.layout import axis_values, grid_arms, spell_estimate
from moe_sweeps.results.nested import is_forked
from moe_sweeps.results.outcomes import ArmRun
from moe_sweeps.results.outside import outside_manifest
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Arm, Table, ablation_table

Today = Callable[[Path, str], str | None]


@dataclass(frozen=True, slots=True)
class CellReference:
    """One cell of a table: an arm and a metric."""

    table: Table
    arm: Arm
    metric: Metric


def is_cell(word: str) -> bool:
    """Whether `word` has the form TABLE:ROW,COLUMN."""
    table, colon, place = word.partition(":")
    return bool(table and colon and "," in place) and "=" not in table


def find_cell(word: str, runs_root: Path) -> CellReference:
    """The cell that `TABLE:ROW,COLUMN` means.

    TABLE is the name or id of a sweep. ROW is the number of an arm from 1, its label, or its
    settings without their keys; COLUMN a metric by its key or its header. In a grid ROW and COLUMN may be the values of
    its two settings.

    Raises:
        MoeSweepsError: there is no such table, row or column; the message lists those that there are.
    """
    name, _, place = word.partition(":")
    row, _, column = (part.strip() for part in place.rpartition(","))
    table = _table(name, runs_root)
    grid = table.definition.grid
    if grid and row in axis_values(table, grid.rows) and column in axis_values(table, grid.columns):
        arms = grid_arms(table, grid.rows, grid.columns, row, column)
        if len(arms) == 1:
            return CellReference(table, arms[0], PRIMARY)
    return CellReference(table, _arm(table, row), _metric(table, column))


def lineage(cell: CellReference, today: Today = lambda folder, run_id: None) -> Iterator[str]:
    """The runs behind a number, line by line, each with hashes, code, data, attempts and the line that it was typed as.

    `today`: from a run's folder and id, what else that line means today.
    """
    found = cell.arm.cells[cell.metric.column]
    yield f"{cell.table.title}: {cell.arm.label}, {cell.metric.header}"
    value = spell_estimate(found, cell.metric)
    yield f"  {value}  from {found.n} of {len(cell.arm.runs)} planned runs, arm {cell.arm.arm}"
    for run in cell.arm.runs:
        yield from _run(run, cell.metric, today)
    if len(cell.arm.code) > 1 or len(cell.arm.data) > 1:
        yield f"  MIXED: {len(cell.arm.code)} versions of the code, {len(cell.arm.data)} of the data"


def _run(run: ArmRun, metric: Metric, today: Today) -> Iterator[str]:
    row = run.row
    value = row.get(metric.column) if row and run.outcome == "done" else None
    number = "not in the mean" if value is None else metric.spell(float(value))
    yield f"\n  run {run.run_id}, seed {run.seed}: {run.outcome}{f' ({run.detail})' if run.detail else ''}, {number}"
    if row is None:
        return
    dirty = ", with uncommitted changes" if row.get("git.dirty") else ""
    facts = {
        "folder": row["folder"],
        "code": f"{row.get('source_hash')} (commit {row.get('git.commit')}{dirty})",
        "data": row.get("data_fingerprint"),
        "trunk": _trunk(row),
        "weights": row.get("pairing.initial_weights"),
        "batches": row.get("pairing.batches"),
        "attempts": row.get("attempt"),
        "host": row.get("host"),
        "again": reproduce(row),
        "today": today(Path(str(row["folder"])), run.run_id),
    }
    yield from (f"    {name:<9}{value}" for name, value in facts.items() if value is not None)


def _trunk(row: Mapping[str, Any]) -> str | None:
    """What a forked run continues from; None for others."""
    if not is_forked(row):
        return None
    return f"{row.get('fork.run')} after step {row.get('fork.step')}, replicate {row.get('fork.replicate')}"


def reproduce(row: Mapping[str, Any]) -> str:
    """The command that retrains this run, from its overrides; with the same defaults it gives the same run id."""
    try:
        overrides = read_yaml(Path(str(row["folder"])) / "overrides.yaml") or []
    except (OSError, ValueError, yaml.YAMLError):
        return str(row.get("command") or "")
    return train_command(overrides) if isinstance(overrides, list) else str(row.get("command") or "")


def _table(name: str, runs_root: Path) -> Table:
    runs = read_runs(runs_root)
    manifests, _ = load_manifests(runs_root)
    outside = outside_manifest(runs, manifests)
    every = [*manifests, *([outside] if outside else [])]
    found = find_sweep(name, every)
    if found is None:
        raise MoeSweepsError(
            _none_called("table", name, dict.fromkeys(n for m in every for n in (m.name, m.sweep_id) if n))
        )
    return ablation_table(found, runs)


def _arm(table: Table, word: str) -> Arm:
    if word.isdecimal() and 1 <= int(word) <= len(table.arms):
        return table.arms[int(word) - 1]
    names: dict[str, list[Arm]] = {}
    for arm in table.arms:
        for name in {arm.label, arm.arm, " ".join(arm.settings.values()), *arm.settings.values()}:
            names.setdefault(name, []).append(arm)
    found = names.get(word, [])
    if len(found) == 1:
        return found[0]
    labels = [arm.label for arm in table.arms]
    if found:
        raise MoeSweepsError(f"{word} means {len(found)} rows of {table.title}: {', '.join(a.label for a in found)}")
    raise MoeSweepsError(_none_called("row", word, labels))


def _metric(table: Table, word: str) -> Metric:
    names = {name: m for m in table.metrics for name in (m.column, m.header)}
    if word not in names:
        raise MoeSweepsError(_none_called("column", word, list(names)))
    return names[word]


def _none_called(what: str, word: str, valid: Sequence[str] | Mapping[str, Any]) -> str:
    close = nearest(word, valid)
    return f"no {what} is called {word!r}. " + (
        f"Did you mean {close}?" if close else f"There are: {', '.join(valid) or 'none'}."
    )
