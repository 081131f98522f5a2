"""Single runs side by side: the settings in which they differ, and their final numbers.

One run each has no spread. Nothing here says that a difference is more than what a seed does; judging.py does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.records.code_record import differing_files, disagree, name_files
from moe_sweeps.records.genuine import REPLICATE_KEYS, flatten
from moe_sweeps.records.numbers import CATALOGUE, Metric
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.records.settings import active, same_value, value_text
from moe_sweeps.results.noise import code_of, versions_of
from moe_sweeps.results.runs import EDITED, Row, flat_config, read_run

# What a machine and its load decide as much as the settings do: shown, and never subtracted.
TIMES = frozenset({"tokens_per_second", "share_of_peak", "share_of_gemm_peak", "train_seconds", "wall_seconds"})


@dataclass(frozen=True, slots=True)
class Side:
    """One run: what it is called, and what it was frozen with, by dotted names."""

    label: str
    folder: RunDir
    row: Row
    config: Mapping[str, Any]
    canonical: Mapping[str, Any]

    @property
    def state(self) -> str:
        """What its folder says."""
        return str(self.row["state"])

    def number(self, metric: Metric) -> float | None:
        """A final number; None before the run is done, where it is not finite, and where the run has no such number."""
        value = self.row.get(metric.column) if self.row["state"] == State.done else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if is_number and value is not None else None


@dataclass(frozen=True, slots=True)
class Setting:
    """One key in which the runs differ: its values as text, None where a run does not read it or has no such key.

    `counts`: whether it can change a result.
    """

    key: str
    values: tuple[str | None, ...]
    counts: bool


@dataclass(frozen=True, slots=True)
class Number:
    """One final number of every run, and what it is minus that of the first run; None where either is missing."""

    metric: Metric
    values: tuple[float | None, ...]
    differences: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Runs side by side; the first is what the others are held against. `remarks`: what speaks against comparing."""

    sides: tuple[Side, ...]
    settings: tuple[Setting, ...]
    numbers: tuple[Number, ...]
    remarks: tuple[str, ...] = field(default=())


def side_by_side(runs: Sequence[tuple[str, RunDir]]) -> SideBySide:
    """Compare (label, run) of two or more runs.

    Raises:
        MoeSweepsError: they are fewer than two.
        RunFolderError: a folder cannot be read.
    """
    if len(runs) < 2:
        raise MoeSweepsError("give two runs or more to compare: ids, their beginnings, folders, or lines in quotes")
    sides = tuple(_side(label, folder) for label, folder in runs)
    return SideBySide(sides, tuple(_settings(sides)), tuple(_numbers(sides)), tuple(_remarks(sides)))


def _side(label: str, folder: RunDir) -> Side:
    row = read_run(folder)
    return Side(label, folder, row, flat_config(folder), flatten(folder.identity().get("canonical") or {}))


def _settings(sides: Sequence[Side]) -> list[Setting]:
    counted = dict.fromkeys(key for side in sides for key in side.canonical)
    # What only one kind has is explained by the kinds. What all have and no canonical form holds, nothing reads.
    others = [key for key in sides[0].config if key not in counted and all(key in side.config for side in sides)]
    found = [Setting(key, tuple(_value(side, key, sides) for side in sides), True) for key in counted]
    found += [Setting(key, tuple(_plain(side.config, key) for side in sides), False) for key in others]
    return [each for each in found if _differ(each.values)]


def _value(side: Side, key: str, sides: Sequence[Side]) -> str | None:
    if key in side.canonical:
        return value_text(side.canonical[key])
    elsewhere = {value_text(other.canonical[key]) for other in sides if key in other.canonical}
    return active(side.config, side.canonical, key, elsewhere)


def _plain(config: Mapping[str, Any], key: str) -> str | None:
    return value_text(config[key]) if key in config else None


def _differ(values: Sequence[str | None]) -> bool:
    first = values[0]
    return any((value is None) != (first is None) or (value is not None and first is not None
               and not same_value(value, first)) for value in values[1:])  # fmt: skip


def _numbers(sides: Sequence[Side]) -> list[Number]:
    found = []
    for metric in CATALOGUE:
        values = tuple(side.number(metric) for side in sides)
        if any(value is not None for value in values):
            found.append(Number(metric, values, tuple(_difference(metric, values[0], value) for value in values)))
    return found


def _difference(metric: Metric, first: float | None, value: float | None) -> float | None:
    if first is None or value is None or metric.column in TIMES:
        return None
    return value - first


def _remarks(sides: Sequence[Side]) -> list[str]:
    rows = [side.row for side in sides]
    remarks = [f"{side.folder.path.name} is {side.state}: {side.row.get('failure') or 'it has no final numbers'}"
               for side in sides if side.state != State.done or side.state == EDITED]  # fmt: skip
    code = [record for row in rows for record in code_of(row)]
    if disagree(code):
        files = name_files(differing_files(code))
        remarks.append(f"the runs were trained by versions of the code that differ{f' ({files})' if files else ''}")
    if len({tuple(versions_of(row, "data_fingerprint")) for row in rows}) > 1:
        remarks.append("the runs saw different data")
    if len({tuple(str(side.config.get(key)) for key in REPLICATE_KEYS) for side in sides}) > 1:
        remarks.append("the seeds differ, so a part of every difference is theirs")
    hosts = {str(row.get("host")) for row in rows}
    why = f"on {len(hosts)} machines" if len(hosts) > 1 else "and nothing tells how busy the machine was"
    remarks.append(f"times are of one run each, {why}: they are shown and not subtracted")
    return remarks
