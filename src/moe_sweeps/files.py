"""Files that are never seen half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moe_sweeps.errors import DiskFull

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def write_atomic(path: Path, content: bytes | memoryview | str, *, durable: bool = False) -> None:
    """Replace `path` by `content` in one step: a reader sees the old file or the new one, whatever is killed when.

    `durable=True` also waits until the content is on disk, so that it survives a power cut.

    Raises:
        DiskFull: there is no space for it; `path` is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_full_is_said(path, len(data)):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_full_is_said(path: Path, needed: int) -> Iterator[None]:
    """Turn the system's error about a full disk or quota into one that names the folder and the sizes in bytes."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFull(path.parent, needed, shutil.disk_usage(path.parent).free) from error


def require_space(folder: Path, needed: int) -> None:
    """Raise DiskFull unless `needed` bytes are free in `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(folder, needed, free)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote. Nobody else may be writing."""
    for left_over in folder.glob(".*.tmp"):
        left_over.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n", durable=durable)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON.
    """
    return json.loads(path.read_text())
