"""TensorBoard: event files in the run folder, read back with TensorBoard's own reader. It needs no TensorFlow."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path
from typing import Any

import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from moe_sweeps.host.plain import markdown_entities
from moe_sweeps.records.rundir import State
from moe_sweeps.tracking.rows import Row
from moe_sweeps.tracking.tracker import Facts, Results, Table

SUBFOLDER = "tensorboard"
FLUSH_SECONDS = 5


class TensorBoardTracker:
    """One event file an attempt; together they hold each step once."""

    def __init__(self) -> None:
        self._writer: Any = None

    def begin(self, facts: Facts) -> int:
        folder = facts.folder / SUBFOLDER
        held = max(map(last_step, folder.glob("*tfevents*")), default=0)
        self._writer = EventFileWriter(str(folder), flush_secs=FLUSH_SECONDS)
        if not held:
            self._add(0, _text("config", _code(yaml.safe_dump(facts.config, sort_keys=False))))
        return held

    def log(self, row: Row) -> None:
        # One event a step, so that a step stands in a file as a whole or not at all.
        self._add(row.step, *(Summary.Value(tag=name, simple_value=value) for name, value in row.values.items()))

    def add_results(self, last: Row | None, results: Results) -> None:
        if last is None:
            return
        values = [Summary.Value(tag=name, simple_value=value) for name, value in last.values.items()]
        values += [_text(name, _markdown(table)) for name, table in results.tables.items()]
        values += [_image(name, path) for name, path in results.pictures.items()]
        self._add(last.step, *values)

    def end(self, state: State | None) -> None:
        self._writer.close()

    def _add(self, step: int, *values: Any) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))


def last_step(path: Path) -> int:
    """The newest step of an event file, which may have been cut short."""
    return max((event.step for event in EventFileLoader(str(path)).Load()), default=0)


def _text(name: str, markdown: str) -> Any:
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()])
    return Summary.Value(tag=name, tensor=tensor, metadata=create_summary_metadata(name, ""))


def _image(name: str, path: Path) -> Any:
    png = path.read_bytes()
    width, height = struct.unpack(">II", png[16:24])  # where every PNG file has them
    return Summary.Value(
        tag=f"pictures/{name}", image=Summary.Image(width=width, height=height, encoded_image_string=png)
    )


def _code(text: str) -> str:
    """A block of code whose fence is longer than any in `text`."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}{fence}"


def _markdown(table: Table) -> str:
    columns, rows = table
    lines = [[markdown_entities(str(cell)) for cell in line] for line in (columns, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["---"] * len(columns), *lines[1:]))
