"""metrics.jsonl of many runs as one tidy frame.

A suite has half a million records. They are parsed a file at a time and become columns, one block for each set of keys:
keeping a dict for each record would take three times the time and memory.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.reading import LOG_BYTES, read_bytes
from moe_sweeps.records.problem import Problem
from moe_sweeps.records.rundir import MetricsLog, RunDir
from moe_sweeps.results.frame import Loaded

KEYS = ("run_id", "split", "step")
Column = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Block:
    """Records of one run with the same keys; `places` says where in the file they stood."""

    places: Column
    columns: dict[str, Column]


def load_curves(folders: Iterable[Path | str]) -> Loaded:
    """The metrics.jsonl of `folders`, one row a record in the order of the files.

    Columns: run_id, split, step, and one for each metric.

    A metric that a record lacks is NaN. A file with a damaged line is a problem instead. A last line that a crash
    truncated is left out, and a run that has not logged yet has no rows.
    """
    run_ids: list[str] = []
    blocks: list[tuple[int, Block]] = []
    problems: list[Problem] = []
    for folder in map(Path, folders):
        try:
            blocks += [(len(run_ids), block) for block in read_blocks(folder)]
            run_ids.append(RunDir(folder).run_id)
        except (OSError, ValueError, TypeError, RunFolderError) as error:
            problems.append(Problem(folder, " ".join(str(error).split())))
    return Loaded(_frame(run_ids, blocks), problems)


def read_blocks(folder: Path) -> tuple[Block, ...]:
    """metrics.jsonl of a run folder as columns, a block for each set of keys; nobody may change them.

    Raises:
        OSError, ValueError, TypeError, RunFolderError: it cannot be read, or has a damaged line.
    """
    file = folder / "metrics.jsonl"
    if not os.path.lexists(file):
        return ()
    found = file.lstat()
    return _blocks_of(file, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=2048)  # several charts and the page show the same run; 60 KB for 500 records
def _blocks_of(file: Path, changed: int, size: int) -> tuple[Block, ...]:
    return tuple(_blocks(read_records(file)))


def read_records(path: Path) -> list[dict[str, Any]]:
    """The complete records of a log, each with step and split; none where there is no file.

    Raises:
        OSError, ValueError, RunFolderError: it cannot be read, or has a damaged line.
    """
    if not os.path.lexists(path):
        return []
    complete = read_bytes(path, LOG_BYTES).rpartition(b"\n")[0]
    try:
        records = orjson.loads(b"[" + complete.replace(b"\n", b",") + b"]")
    except ValueError:
        records = MetricsLog(path).records()  # says which line is damaged
    if not all(isinstance(r, dict) and "step" in r and "split" in r for r in records):
        raise RunFolderError(f"{path.name} has a line without step or split")
    return list(records)


def _blocks(records: Sequence[dict[str, Any]]) -> list[Block]:
    """The records by their set of keys."""
    places: dict[tuple[str, ...], list[int]] = {}
    for place, record in enumerate(records):
        places.setdefault(tuple(record), []).append(place)
    return [
        Block(np.array(found), _columns(names, [records[place] for place in found])) for names, found in places.items()
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
    except (TypeError, ValueError, OverflowError):
        return found


def _frame(run_ids: Sequence[str], found: Sequence[tuple[int, Block]]) -> pd.DataFrame:
    if not found:
        return pd.DataFrame(columns=pd.Index(KEYS))
    blocks = [block for _, block in found]
    run = np.repeat([run for run, _ in found], [len(b.places) for b in blocks])
    order = np.lexsort((np.concatenate([b.places for b in blocks]), run))
    names = dict.fromkeys([*KEYS[1:], *(name for b in blocks for name in b.columns)])
    columns: dict[str, Any] = {"run_id": np.array(run_ids, dtype=object)[run[order]]}
    for name in names:
        columns[name] = np.concatenate([b.columns.get(name, np.full(len(b.places), np.nan)) for b in blocks])[order]
    return pd.DataFrame(columns)
