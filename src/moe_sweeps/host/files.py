"""Files that are never seen half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from moe_sweeps.errors import DiskFull
from moe_sweeps.host.reading import (
    read_json as read_json,  # reading.py owns reading; offered here beside writing
)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # of file systems that cannot sync a folder
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
GROUP_WRITES = stat.S_IWGRP


def write_atomic(path: Path, content: bytes | memoryview | str, *, durable: bool = False, whole: bool = False) -> None:
    """Replace `path` by `content` in one step: whatever is killed, a reader sees the old file or the new one.

    `whole=True` syncs the content to disk before the rename, so that a power cut leaves the old file or the new one,
    never an empty one. `durable=True` also syncs the rename: after this call a power cut leaves the new file.

    Raises:
        DiskFull: there is no space for it; `path` is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    with written_atomically(path, len(data), durable=durable, whole=whole) as file:
        file.write(data)


@contextmanager
def written_atomically(path: Path, needed: int, *, durable: bool = False, whole: bool = False) -> Iterator[BinaryIO]:
    """A file for about `needed` bytes, which replaces `path` in one step when the block ends without an error.

    For content too large for memory; otherwise as `write_atomic`.

    Raises:
        DiskFull: there is no space for it; `path` is as it was.
    """
    temporary = temporary_beside(path)
    with disk_full_is_said(path, needed):
        try:
            with temporary.open("wb") as file:
                yield file
                if durable or whole:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
            if durable:
                sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk: files created, renamed or removed there survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until everything in `folder` is on disk. Needed before a rename: the new name must not appear without it."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def make_folder(folder: Path) -> None:
    """Create `folder` and its missing parents, writable for the group where the folder around them is shared.

    So a shared root stays shared below, even with a umask of 022 (docs/running.md).
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        share(new)


def share(path: Path) -> None:
    """Let the group write to a path just created, if the folder around it has the same group and is shared on purpose.

    Setgid is the sign of purpose: with one group per user, or in /tmp, a folder is group-writable by chance. A group
    that the umask does not let read gets no right to write.
    """
    own, around = path.stat(), path.parent.stat()
    is_meant = around.st_mode & stat.S_ISGID and own.st_mode & stat.S_IRGRP
    lacking = around.st_mode & ~own.st_mode & GROUP_WRITES
    if is_meant and lacking and own.st_gid == around.st_gid and own.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(own.st_mode) | lacking)


def exists(path: Path) -> bool:
    """Whether `path` exists, as far as this user can see."""
    try:
        return path.exists()
    except OSError:
        return False


def owner(path: Path) -> str:
    """Who owns `path`, or the nearest folder above it that exists; "?" where that cannot be seen."""
    for there in (path, *path.parents):
        try:
            return there.owner()
        except KeyError:
            return f"user {there.stat().st_uid}"
        except OSError:
            continue
    return "?"


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of `path`, for a file that `remove_leftovers` removes if its process is killed."""
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")


@contextmanager
def disk_full_is_said(path: Path, needed: int) -> Iterator[None]:
    """Turn the system's error about a full disk or quota into DiskFull, with the folder and the sizes in bytes."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFull(path.parent, needed, shutil.disk_usage(path.parent).free) from error


def require_space(folder: Path, needed: int) -> None:
    """Check that `needed` bytes are free in `folder`.

    Raises:
        DiskFull: they are not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(folder, needed, free)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while writing. No other process may be writing."""
    for left_over in folder.glob(".*.tmp"):
        left_over.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, durable: bool = False, whole: bool = False) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n", durable=durable, whole=whole)
