"""metrics.jsonl of many runs as one tidy frame.

Half a million records pass through here, so they are parsed a file at a time and turned into columns by the set of
their keys: a dict a record all the way would take three times the time and the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from moe_sweeps.errors import RunFolderError
from moe_sweeps.results.frame import Loaded
from moe_sweeps.results.problem import Problem
from moe_sweeps.rundir import MetricsLog, RunDir

KEYS = ("run_id", "split", "step")
Column = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Block:
    """Records of one run with the same keys; `places` says where in the file they stood."""

    run: int
    places: Column
    columns: dict[str, Column]


def load_curves(folders: Iterable[Path | str]) -> Loaded:
    """The metrics.jsonl of `folders`, one row a record in the order of the files.

    Columns: run_id, split, step, and one for each metric.

    A metric that a record does not have is NaN. A file with a damaged line is a problem instead; a last line that a
    crash cut short is left out, and a run that has not logged yet has no rows.
    """
    run_ids: list[str] = []
    blocks: list[_Block] = []
    problems: list[Problem] = []
    for folder in map(Path, folders):
        try:
            blocks += _blocks(len(run_ids), _records(folder / "metrics.jsonl"))
            run_ids.append(RunDir(folder).run_id)
        except (OSError, ValueError, TypeError, RunFolderError) as error:
            problems.append(Problem(folder, " ".join(str(error).split())))
    return Loaded(_frame(run_ids, blocks), problems)


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    complete = path.read_bytes().rpartition(b"\n")[0]
    try:
        records = orjson.loads(b"[" + complete.replace(b"\n", b",") + b"]")
    except ValueError:
        records = MetricsLog(path).records()  # says which line is damaged
    if not all(isinstance(r, dict) and "step" in r and "split" in r for r in records):
        raise RunFolderError("metrics.jsonl has a line without step or split")
    return list(records)


def _blocks(run: int, records: Sequence[dict[str, Any]]) -> list[_Block]:
    """The records by their set of keys."""
    places: dict[tuple[str, ...], list[int]] = {}
    for place, record in enumerate(records):
        places.setdefault(tuple(record), []).append(place)
    return [
        _Block(run, np.array(found), _columns(names, [records[place] for place in found]))
        for names, found in places.items()
    ]


def _columns(names: tuple[str, ...], records: Sequence[dict[str, Any]]) -> dict[str, Column]:
    return dict(zip(names, map(_column, zip(*(r.values() for r in records), strict=True)), strict=True))


def _column(values: tuple[Any, ...]) -> Column:
    """Numbers as numbers, None among them as NaN; anything else as it is."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    if isinstance(values[0], str):
        return found
    try:
        return np.array(values, dtype=np.int64 if all(type(v) is int for v in values) else np.float64)
    except (TypeError, ValueError):
        return found


def _frame(run_ids: Sequence[str], blocks: Sequence[_Block]) -> pd.DataFrame:
    if not blocks:
        return pd.DataFrame(columns=pd.Index(KEYS))
    run = np.repeat([b.run for b in blocks], [len(b.places) for b in blocks])
    order = np.lexsort((np.concatenate([b.places for b in blocks]), run))
    names = dict.fromkeys([*KEYS[1:], *(name for b in blocks for name in b.columns)])
    columns: dict[str, Any] = {"run_id": np.array(run_ids, dtype=object)[run[order]]}
    for name in names:
        columns[name] = np.concatenate([b.columns.get(name, np.full(len(b.places), np.nan)) for b in blocks])[order]
    return pd.DataFrame(columns)
