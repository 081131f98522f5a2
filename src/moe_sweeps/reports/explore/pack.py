"""Runs and curves as one text for the page: JSON and 16-bit numbers, compressed, in base64.

Base64 holds nothing that ends a script element, so that no name in it needs an escape. A curve is stored once, whatever
number of sweeps it belongs to. Its values are rounded to a 65,534th of its own range, and its steps are shared with all
curves that were logged at the same ones.

Layout after gunzip: uint32 (little-endian), how many bytes of JSON follow; the JSON; the high bytes of all numbers;
their low bytes. A number is the difference to the one before it in its curve, modulo 2^16; 65,535 stands for NaN.
"""

from __future__ import annotations

import base64
import gzip
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from moe_sweeps.records.numbers import BY_COLUMN, IN_EVALUATIONS
from moe_sweeps.reports.explore.runs import Member, described, members, shortened
from moe_sweeps.reports.explore.series import Series, read_log
from moe_sweeps.results.history import METRICS, Floats
from moe_sweeps.results.tables import Table

MOST_POINTS = 1_500_000  # of all curves: about 3 MB of the page
LONGEST = 2000  # points of a curve; a screen has no more columns
SHORTEST = 50  # points that a curve is never thinned below
LEVELS = 65_534
UNKNOWN = 65_535
WIDE = 1000.0  # of a positive curve with a wider range the logarithms are rounded
COMPRESSION = 6


@dataclass(slots=True)
class Curves:
    """What has been packed so far: a column for each property of a curve, and its numbers."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {key: [] for key in ("metric", "part", "run", "steps", "low", "high", "log")}
    )
    numbers: list[NDArray[np.uint16]] = field(default_factory=list)
    metrics: dict[tuple[str, str, str], int] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    steps: dict[bytes, int] = field(default_factory=dict)
    every: list[list[float]] = field(default_factory=list)
    thinned: int = 0
    left_out: dict[str, int] = field(default_factory=dict)  # field -> runs that have it in their log alone
    unread: list[str] = field(default_factory=list)

    def add(self, run: int, found: Series, most: int) -> int:
        """Store a curve with at most `most` points; how many it has then."""
        steps, values = _thinned(found, most)
        self.thinned += len(steps) < len(found.steps)
        low, high, log, numbers = quantised(values)
        place = self.steps.setdefault(steps.tobytes(), len(self.steps))
        if place == len(self.every):
            self.every.append([int(s) if s.is_integer() and abs(s) < 2**53 else s for s in steps.tolist()])
        row = (
            self.metrics.setdefault((found.file, found.split, found.name), len(self.metrics)),
            self.parts.setdefault(found.part, len(self.parts)), run, place, low, high, log,
        )  # fmt: skip
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        self.numbers.append(np.diff(numbers, prepend=np.uint16(0)))  # modulo 2^16
        return len(steps)


def explorer(tables: Sequence[Table], anchors: Mapping[str, str], reports: Path, first: int = 0) -> str:
    """The text that templates/explore/ reads, of all runs of these tables; it opens with table number `first`."""
    found = members(tables, anchors)
    curves = gather(found)
    head = described(found, reports) | {
        "sweeps": [shortened(table.title) for table in tables],
        "grids": [[g.rows, g.columns] if (g := table.definition.grid) else None for table in tables],
        "metrics": [[shortened(text) for text in metric] for metric in curves.metrics],
        "axes": [axis_of(*metric) for metric in curves.metrics],
        "parts": [shortened(part) for part in curves.parts], "steps": curves.every, "series": curves.columns,
        "notes": notes(curves, len(found)), "first": first,
    }  # fmt: skip
    return packed(head, curves.numbers)


def axis_of(file: str, split: str, name: str) -> tuple[str, float] | None:
    """What the axis of a logged number says, and the factor to its unit; None where the catalogue has no such number.

    Numbers of training have the unit of their final ones, and a name of their own.
    """
    metrics = (BY_COLUMN.get(column) for column in (f"{IN_EVALUATIONS}{name}", f"train_{name}", name))
    found = next((metric for metric in metrics if metric is not None), None) if file == METRICS else None
    if found is None:
        return None
    if found.column == name or (split == "val" and found.column == IN_EVALUATIONS + name):
        return found.axis, found.factor
    unit = found.axis[found.axis.find(" (") :] if " (" in found.axis else ""
    return shortened(f"{split} {name}{unit}"), found.factor


def packed(head: dict[str, Any], numbers: Sequence[NDArray[np.uint16]]) -> str:
    """The layout of this module's docstring, in base64."""
    text = orjson.dumps(head)
    every = np.concatenate(numbers) if numbers else np.empty(0, np.uint16)
    planes = (every >> 8).astype(np.uint8).tobytes() + (every & 255).astype(np.uint8).tobytes()
    content = struct.pack("<I", len(text)) + text + planes
    return base64.b64encode(gzip.compress(content, COMPRESSION, mtime=0)).decode()


def gather(found: Sequence[Member]) -> Curves:
    """The curves of these runs; each run has the same share of MOST_POINTS."""
    curves = Curves()
    folders = [(place, str(member.row["folder"])) for place, member in enumerate(found) if member.row]
    share = MOST_POINTS // max(1, len(folders))
    for place, folder in folders:
        _gather_run(curves, place, Path(folder), share)
    return curves


def _gather_run(curves: Curves, place: int, folder: Path, share: int) -> None:
    log, left = read_log(folder), share
    most = min(LONGEST, max(SHORTEST, share // 3))
    if log.problem:
        curves.unread.append(folder.name)
    if log.too_long:
        curves.left_out["routing.jsonl"] = curves.left_out.get("routing.jsonl", 0) + 1
    for each in log.fields:
        # The first fields are always there: a page without a loss would be none.
        fits = left > 0 and (left >= min(most, each.points) or left == share)
        series = list(each.series()) if fits else []
        if series and sum(min(most, len(s.steps)) for s in series) <= max(left, most):
            left -= sum(curves.add(place, s, most) for s in series)
        elif series or not fits:
            name = f"{each.split} {each.name}"
            curves.left_out[name] = curves.left_out.get(name, 0) + 1


def _thinned(found: Series, most: int) -> tuple[Floats, Floats]:
    """Evenly chosen records, the first and the last among them."""
    count = len(found.steps)
    if count <= most:
        return found.steps, found.values
    kept = np.unique(np.linspace(0, count - 1, most).round().astype(int))
    return found.steps[kept], found.values[kept]


def quantised(values: Floats) -> tuple[float, float, int, NDArray[np.uint16]]:
    """From which to which value (N) reaches, whether these are logarithms (1), and its levels, uint16 (N)."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    log = low > 0 and high / low > WIDE
    shown = np.log(values) if log else values
    if log:
        low, high = float(np.log(low)), float(np.log(high))
    low, high = float(f"{low:.9g}"), float(f"{high:.9g}")
    with np.errstate(over="ignore", invalid="ignore"):
        share = (
            (np.clip(shown, low, high) - low) / (high - low) if high > low else np.where(np.isnan(shown), np.nan, 0.0)
        )
        levels = np.where(np.isfinite(share), np.clip(share, 0.0, 1.0) * LEVELS, UNKNOWN)
    return low, high, int(log), levels.round().astype(np.uint16)


def notes(curves: Curves, runs: int) -> list[str]:
    """What is not on the page, and how exact the rest is."""
    found = ["Values of curves are rounded to a 65,534th of the range of their curve; tables have every digit."]
    if curves.thinned:
        found.append(f"{curves.thinned:,} long curves are thinned to evenly chosen records.")
    if curves.left_out:
        names = sorted(curves.left_out, key=lambda name: -curves.left_out[name])
        listed = ", ".join(map(shortened, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        found.append(
            f"To keep the page small, {runs:,} runs have the first numbers of their logs alone. Not on the page for "
            f"some or all of them, and all in their folders: {listed}."
        )
    if curves.unread:
        listed = ", ".join(map(shortened, curves.unread[:5])) + (" and others" if len(curves.unread) > 5 else "")
        found.append(f"{len(curves.unread):,} runs have a log that cannot be read, and lack its curves: {listed}.")
    return found
