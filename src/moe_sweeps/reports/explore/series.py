"""metrics.jsonl and routing.jsonl of one run as series: every number that was logged, by name, over steps.

A field that holds several numbers (a layer each, an expert each, a role each) is one series for each of its parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_sweeps.errors import RunFolderError
from moe_sweeps.results.curves import Block, read_blocks, read_records
from moe_sweeps.results.evaluations import usual_size
from moe_sweeps.results.history import METRICS, ROUTING, Floats

MOST_PARTS = 1024  # of one field: 16 layers of 64 experts
MOST_ROUTING_BYTES = 64 << 20  # of one run; what is longer is left out
FINAL = "final evaluation"  # the part of a final evaluation on other windows: a point, and no part of the line
SECONDS = ("val", "train_seconds")  # what the axis of seconds is made of
# What a reader asks for first; then the rest of metrics.jsonl, then routing.jsonl.
FIRST = (
    SECONDS, ("val", "loss"), ("train", "loss"), ("train", "maxvio_batch"), ("val", "maxvio_global"),
    ("val", "accuracy"), ("train", "lr"), ("train", "grad_norm"),
)  # fmt: skip
_LAYER, _EXPERT = "layer", "expert"


@dataclass(frozen=True, slots=True)
class Series:
    """One number over steps: float64 `steps` (N), ascending, and `values` (N); NaN where it was not finite."""

    file: str
    split: str
    name: str
    part: str  # "" for a plain number
    steps: Floats
    values: Floats


@dataclass(frozen=True, slots=True)
class Piece:
    """The records of a field that have the same keys: steps (N), what each held, and the tokens of evaluations (N)."""

    steps: Floats
    values: Any  # an array, or a list of what JSON holds
    tokens: Floats | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a log: a series, or one for each of its parts."""

    file: str
    split: str
    name: str
    pieces: list[Piece]

    def series(self) -> Iterator[Series]:
        """Its numbers; none where it holds texts or changes its shape."""
        found: dict[str, list[tuple[Floats, Floats]]] = {}
        for piece in self.pieces:
            for part, values in _parts(piece.values):
                found.setdefault(part, []).append((piece.steps, values))
        ends = self._ends()
        for part, pieces in found.items():
            steps, values = (np.concatenate(both) for both in zip(*pieces, strict=True))
            if ends is not None and len(ends) == len(steps) and ends.any():
                yield from self._made(FINAL, steps[ends], values[ends])
                steps, values = steps[~ends], values[~ends]
            yield from self._made(part, steps, values)

    def _ends(self) -> NDArray[np.bool_] | None:
        """Which evaluations took another number of tokens than most: that at the end, whose loss is the table's."""
        sizes = [piece.tokens for piece in self.pieces if piece.tokens is not None]
        if len(sizes) < len(self.pieces):
            return None
        every = np.concatenate(sizes)
        ends: NDArray[np.bool_] = np.isfinite(every) & (every != usual_size(every))
        return ends

    def _made(self, part: str, steps: Floats, values: Floats) -> Iterator[Series]:
        steps, values = _ascending(steps, values)
        if not np.isnan(values).all():
            yield Series(self.file, self.split, self.name, part, steps, values)

    @property
    def points(self) -> int:
        """Of one of its series, about."""
        return sum(len(piece.steps) for piece in self.pieces)

    @property
    def rank(self) -> tuple[int, int]:
        """Metrics before routing; there plain numbers and roles before layers, and layers before experts."""
        key = (self.split, self.name)
        nested = 0 if self.file == METRICS else 1 + _depth(self.pieces[0].values[0])
        return nested, FIRST.index(key) if key in FIRST else len(FIRST)


@dataclass(frozen=True, slots=True)
class Log:
    """The fields of one run, those first that a reader asks for first, and what was not read of it."""

    fields: list[Field]
    problem: str = ""  # metrics.jsonl or routing.jsonl is damaged
    too_long: bool = False  # routing.jsonl is


def read_log(folder: Path) -> Log:
    """The logs of a run folder; a damaged file has no fields."""
    found: list[Field] = []
    problem, too_long = "", False
    try:
        found += _of_metrics(read_blocks(folder))
        too_long = _size(folder / ROUTING) > MOST_ROUTING_BYTES
        found += [] if too_long else _of_routing(read_records(folder / ROUTING))
    except (OSError, ValueError, TypeError, RunFolderError) as error:
        problem = " ".join(str(error).split())
    return Log(sorted(found, key=lambda field: field.rank), problem, too_long)


def _size(path: Path) -> int:
    return path.lstat().st_size if path.exists() else 0


def _of_metrics(blocks: Sequence[Block]) -> list[Field]:
    """The fields of metrics.jsonl, from columns that charts have read already."""
    found: dict[tuple[str, str], list[Piece]] = {}
    for block in blocks:
        splits = block.columns["split"]
        for split in dict.fromkeys(splits.tolist()):
            here = splits == split
            columns = block.columns if here.all() else {name: v[here] for name, v in block.columns.items()}
            steps, tokens = _numbers(columns["step"]), _numbers(columns.get("tokens")) if split == "val" else None
            if steps is None:
                continue
            for name in (n for n in columns if n not in ("step", "split")):
                found.setdefault((str(split), name), []).append(Piece(steps, columns[name], tokens))
    return [Field(METRICS, split, name, pieces) for (split, name), pieces in found.items()]


def _numbers(column: NDArray[Any] | None) -> Floats | None:
    return column.astype(float) if column is not None and column.dtype.kind in "if" and column.ndim == 1 else None


def _of_routing(records: Sequence[dict[str, Any]]) -> list[Field]:
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        if type(record["step"]) in (int, float) and type(record["split"]) is str:
            alike.setdefault((record["split"], *record), []).append(record)
    found: dict[tuple[str, str], list[Piece]] = {}
    for (split, *names), same in alike.items():
        for name in (n for n in names if n not in ("step", "split")):
            held = [r for r in same if r[name] is not None]
            if held:
                piece = Piece(np.array([r["step"] for r in held], dtype=float), [r[name] for r in held])
                found.setdefault((split, name), []).append(piece)
    return [Field(ROUTING, split, name, pieces) for (split, name), pieces in found.items()]


def _depth(value: Any) -> int:
    """How many axes it has besides roles; more than any field has is all the same."""
    inner, depth = value, 0
    for _ in range(4):
        if not isinstance(inner, dict | list) or not inner:
            break
        depth += isinstance(inner, list)
        inner = inner[0] if isinstance(inner, list) else next(iter(inner.values()))
    return depth


def _parts(values: Any) -> Iterator[tuple[str, Floats]]:
    """The plain series in a field of these values; none in one that holds texts or changes its shape."""
    if isinstance(values[0], dict):
        if not all(isinstance(value, dict) for value in values):
            return
        for role in itertools.islice(dict.fromkeys(itertools.chain.from_iterable(values)), MOST_PARTS):
            yield from _arrays([v.get(role) for v in values], role)
    else:
        yield from _arrays(values)


def _arrays(values: Any, role: str = "") -> Iterator[tuple[str, Floats]]:
    """Plain numbers (N), by layer (N, L), or by layer and expert (N, L, E)."""
    try:
        array = np.array(values)
        if array.dtype.kind in "USO":  # texts, or numbers and nulls
            array = np.array([_number(v) for v in values])
        array = array.astype(float)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return
    if array.ndim not in (1, 2, 3) or array[0].size > MOST_PARTS:
        return
    for place in np.ndindex(array.shape[1:]):
        words = (f"{word} {number}" for word, number in zip((_LAYER, _EXPERT), place, strict=False))
        yield ", ".join(filter(None, (role, *words))), _finite(array[(slice(None), *place)])


def _number(value: Any) -> Any:
    """A number, or numbers in lists; NaN for null. A text has no place among them.

    Raises:
        TypeError: it is one.
    """
    if isinstance(value, list):
        return [_number(v) for v in value]
    if value is not None and not isinstance(value, int | float):
        raise TypeError("no number")
    return float("nan") if value is None else float(value)


def _finite(values: Floats) -> Floats:
    found = np.isfinite(values)
    return values if found.all() else np.where(found, values, np.nan)


def _ascending(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """By step; of a step that was written twice, the later record."""
    if (np.diff(steps) > 0).all():
        return steps, values
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(np.diff(steps) > 0, True)
    return steps[last], values[last]
