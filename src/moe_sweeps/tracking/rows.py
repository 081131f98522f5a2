"""metrics.jsonl and routing.jsonl as rows: all numbers of one step under one name each, read while they are written.

A row is returned once it is complete: when a later step has been logged, or the run is over. Rows are returned in the
order of their steps, each once. A run that resumes from a checkpoint repeats some steps and writes their lines again;
those rows are not returned a second time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from moe_sweeps.host.reading import LOG_BYTES, opened

# What a tracker shows layer by layer; the rest are means over layers there, and by layer in the pictures.
BY_LAYER = ("maxvio_batch_L", "token_entropy_L", "dead_L", "bias_range_L", "maxvio_L")
BY_ROLE = ("lr", "grad_norm", "param_norm")
SPLITS = ("train", "val")  # not `saturation`: it is written at the end, for earlier steps


class Row(NamedTuple):
    """The numbers of one step, by name: train/loss, val/maxvio_global, router/maxvio_batch/layer_0, lr/expert."""

    step: int
    values: dict[str, Any]


class Rows:
    """The complete rows of a run after step `after`."""

    def __init__(self, folder: Path, after: int = 0) -> None:
        self.after = after
        self._metrics, self._routing = Lines(folder / "metrics.jsonl"), Lines(folder / "routing.jsonl")
        self._open: dict[int, dict[str, float]] = {}
        self._newest = 0

    def read(self) -> Iterator[Row]:
        """The rows that became complete since the last call."""
        self._read_files()
        for step in sorted(s for s in self._open if s < self._newest):
            yield self._pop(step)

    def last(self) -> Row | None:
        """The row of the last step of a finished run that was read to its end; None if it was returned before."""
        return self._pop(max(self._open)) if self._open else None

    def _pop(self, step: int) -> Row:
        self.after = step
        return Row(step, self._open.pop(step))

    def _read_files(self) -> None:
        metrics = self._metrics.read()
        if metrics is None:  # cut back to a checkpoint: open steps will be written again
            self._open.clear()
            self._newest = 0
            self._metrics, self._routing = Lines(self._metrics.path), Lines(self._routing.path)
            metrics = self._metrics.read() or []
        # In this order: when a later step stands in metrics.jsonl, all lines of earlier ones stand in both files.
        for record in metrics:
            self._add(record, _scalars(record))
            self._newest = max(self._newest, int(record["step"]))
        routing = self._routing.read()
        for record in (self._routing.read() or []) if routing is None else routing:
            self._add(record, _of_layers_and_roles(record))

    def _add(self, record: dict[str, Any], values: dict[str, float]) -> None:
        step = int(record["step"])
        if step > self.after and record["split"] in SPLITS and values:
            self._open.setdefault(step, {}).update(values)


class Lines:
    """The complete lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0
        self._last = b""  # the line that ends there
        self._inode = 0

    def read(self) -> list[dict[str, Any]] | None:
        """Records since the last call. None when the file was replaced: the next call reads it from its start."""
        try:
            with opened(self.path, LOG_BYTES) as file:
                found = os.fstat(file.fileno())
                file.seek(self._end - len(self._last))
                if self._end and (found.st_ino != self._inode or file.read(len(self._last)) != self._last):
                    self._end, self._last = 0, b""
                    return None
                self._inode = found.st_ino
                return self._records(file.read())
        except FileNotFoundError:
            return []

    def _records(self, content: bytes) -> list[dict[str, Any]]:
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        self._end += sum(map(len, lines))
        self._last = lines[-1] if lines else self._last
        return [orjson.loads(line) for line in lines]


def _scalars(record: dict[str, Any]) -> dict[str, float]:
    split = record["split"]
    numbers = {k: v for k, v in record.items() if k not in ("step", "split") and isinstance(v, int | float)}
    return {f"{split}/{name}": float(value) for name, value in numbers.items()}


def _of_layers_and_roles(record: dict[str, Any]) -> dict[str, float]:
    found = {}
    for name in BY_LAYER:
        group = "router" if record["split"] == "train" else "val"
        for layer, value in enumerate(record.get(name) or []):
            found[f"{group}/{name.removesuffix('_L')}/layer_{layer}"] = value
    for name in BY_ROLE:
        for role, value in (record.get(name) or {}).items():
            found[f"{name}/{role}"] = value
    return {name: float(value) for name, value in found.items() if value is not None}
