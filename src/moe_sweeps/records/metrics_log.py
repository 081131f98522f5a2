"""The logs of a run, one JSON object a line: metrics.jsonl and routing.jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.files import disk_full_is_said, write_atomic
from moe_sweeps.host.reading import LOG_BYTES, Refused, appending, opened, parse_json
from moe_sweeps.records.small_files import MOVE_AWAY

LINE_BYTES = 64 << 20  # what is longer is no record


class MetricsLog:
    """metrics.jsonl or routing.jsonl: appended line by line, cut back when a run resumes from a checkpoint.

    Where several processes train one run, only one of them `writes`; the logs of the others change no file.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; it has at least "step" and "split"."""
        if not self.writes:
            return
        line = json.dumps(record, allow_nan=False) + "\n"
        with disk_full_is_said(self.path, len(line)), self._open_at_end() as file:
            file.write(line.encode())

    @contextmanager
    def _open_at_end(self) -> Iterator[IO[bytes]]:
        try:
            with appending(self.path) as file:
                yield file
        except Refused as error:
            raise RunFolderError(f"{self.path}: {error}. {MOVE_AWAY}") from error

    def sync(self) -> None:
        """Wait until what was appended is on disk."""
        if self.writes and self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def truncate_after(self, step: int) -> None:
        """Drop records of later steps, and a line that a crash cut short."""
        self._keep(self._lines_up_to(step))

    def drop(self, step: int | None, split: str) -> None:
        """Drop the records of one step (None: of all) and split, which are about to be written again."""
        self._keep([line for line, r in self._lines() if r["split"] != split or step not in (None, r["step"])])

    def records(self) -> list[dict[str, Any]]:
        """All complete records in order."""
        return [record for _, record in self._lines()]

    def _lines_up_to(self, step: int) -> list[bytes]:
        """Lines of steps up to `step`. Damage after them is dropped together with the lines that follow it.

        Those lines were not on disk yet when the checkpoint of `step` was written, or they would stand before it.

        Raises:
            RunFolderError: a damaged line stands between lines that are kept.
        """
        kept: list[bytes] = []
        damaged: bytes | None = None
        for line, record in self._parsed():
            if record is None:
                damaged = damaged or line
            elif record["step"] <= step:
                if damaged is not None:
                    raise self._not_json(damaged)
                kept.append(line)
        return kept

    def _keep(self, lines: list[bytes]) -> None:
        if self.writes:
            content = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines)
            write_atomic(self.path, content, durable=True)

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        for line, record in self._parsed():
            if record is not None:
                yield line, record
            elif line.endswith(b"\n"):
                raise self._not_json(line)

    def _parsed(self) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
        """Every line and its record; None for one that is none."""
        if not os.path.lexists(self.path):
            return
        try:
            with opened(self.path, LOG_BYTES) as file:
                while line := file.readline(LINE_BYTES):
                    yield line, _record(line)
        except Refused as error:
            raise RunFolderError(f"{self.path}: {error}. {MOVE_AWAY}") from error

    def _not_json(self, line: bytes) -> RunFolderError:
        return RunFolderError(f"{self.path} has a line that is not JSON: {line[:80].decode(errors='replace')!r}")


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = parse_json(line)
    except ValueError:
        return None
    is_record = isinstance(found, dict) and isinstance(found.get("step"), int) and isinstance(found.get("split"), str)
    return found if is_record else None
