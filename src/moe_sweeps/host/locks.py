"""Locks that end with the process that holds them, and a substitute for file systems without locks.

Normally a lock is the kernel's: `flock` on a file that is never removed. Where the file system refuses it (ENOLCK,
EOPNOTSUPP, ...) there is an error. The owner of a root can then allow soft locks for everything in it by a file called
`.soft-locks`. A soft lock is a marker file that exists while the lock is held, with the host and process of its holder.
All processes of a root use the same kind, because two that lock in two ways would both get the lock.

A soft lock does not end with its process. The marker of a dead process of this host is removed. That of another host
never is: if its process were only slow, two workers would train one run. There a person must delete the marker.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moe_sweeps.errors import LockRefused, NotWritable
from moe_sweeps.host.files import NOT_ALLOWED, exists, owner, share
from moe_sweeps.host.reading import read_json

SOFT_LOCKS = ".soft-locks"  # a file in a root that switches its locks to soft ones
LEVELS = 3  # a lock file is at most this far below its root: ROOT/sweeps/ID/.lock
POLL_SECONDS = 0.05
HELD = (errno.EAGAIN, errno.EWOULDBLOCK)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESTALE)
_held: set[int] = set()


class Busy(Exception):
    """Another process holds the lock. `holder`: which one, if that is known."""

    def __init__(self, holder: str = "") -> None:
        super().__init__(holder)
        self.holder = holder


@contextmanager
def locked(path: Path, wait: float | None = 0.0) -> Iterator[None]:
    """Hold the lock of the file `path`, which is created if missing. Waits up to `wait` seconds; None: without limit.

    Raises:
        Busy: another process still holds it.
        LockRefused: the file system has no locks.
        NotWritable: this user cannot create or open the file.
    """
    hold = _soft if uses_soft_locks(path) else _hard
    deadline = None if wait is None else time.monotonic() + wait
    while True:
        try:
            with hold(path):
                yield
                return
        except _NotYet as held:
            if deadline is not None and time.monotonic() >= deadline:
                raise Busy(held.holder) from None
        time.sleep(POLL_SECONDS)


def uses_soft_locks(path: Path) -> bool:
    """Whether the root of `path` has soft locks."""
    return any((folder / SOFT_LOCKS).exists() for folder in list(path.parents)[:LEVELS])


class _NotYet(Exception):
    """Another process holds the lock at this moment; `locked` may try again."""

    def __init__(self, holder: str = "") -> None:
        self.holder = holder


@contextmanager
def _hard(path: Path) -> Iterator[None]:
    handle, process = _opened(path), os.getpid()
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                raise _NotYet from None
            raise LockRefused(_refusal(path, error)) from error
        _held.add(handle)
        yield
    finally:
        if process == os.getpid():  # a forked child has closed it already
            _held.discard(handle)
            with suppress(OSError):  # unlock, since a forked child may still have the file open
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def _opened(path: Path) -> int:
    """The lock file, opened. On most file systems it can be locked even if it is opened only for reading."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        new = not path.exists()
        handle = os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o644)
        if new:
            share(path)
        return handle
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise LockRefused(_refusal(path, error)) from error
        if error.errno not in NOT_ALLOWED:
            raise
        with suppress(OSError):
            return os.open(path, flags | os.O_RDONLY)
        raise not_writable(error, path) from error


def not_writable(error: OSError, path: Path | None = None) -> NotWritable:
    """The system's error about a file as an error that says who owns the folder and what to do."""
    at = Path(os.fsdecode(error.filename)) if error.filename else path or Path()
    there = next((p for p in (at, *at.parents) if exists(p)), at)
    fix = "Set MOE_SWEEPS_RUNS, MOE_SWEEPS_DATA and MOE_SWEEPS_REPORTS to your own folders, or ask the owner to share"
    return NotWritable(
        there, owner(there), error.strerror or str(error), f"{fix} it (docs/running.md, A shared folder)."
    )


def _refusal(path: Path, error: OSError) -> str:
    return (
        f"{path} cannot be locked: the file system says {error.strerror!r}. Without locks two processes could train "
        f"one run at once. Mount it with locks, or use another folder; docs/running.md (Locks) says when "
        f"`touch ROOT/{SOFT_LOCKS}` is safe."
    )


# --- soft locks: a file that exists -----------------------------------------------------------------------------------


@contextmanager
def _soft(path: Path) -> Iterator[None]:
    marker = path.with_name(f"{path.name}.held")
    own = _make_marker(marker)
    try:
        yield
    finally:
        if _holder(marker) == own:
            marker.unlink(missing_ok=True)


def _make_marker(marker: Path) -> dict[str, Any]:
    own = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "begun": _begun(os.getpid())}
    own["time"] = time.time()
    try:
        handle = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        if _take_away(marker):
            return _make_marker(marker)
        raise _NotYet(_name_of(marker)) from None
    except OSError as error:
        if error.errno in NOT_ALLOWED:
            raise not_writable(error, marker) from error
        raise
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps(own))
        file.flush()
        os.fsync(file.fileno())  # on a network file system others see it only then
    return own


def _take_away(marker: Path) -> bool:
    """Remove the marker of a dead process of this host. A second marker lets one process at a time do so, so that none
    removes a marker that another has just made."""
    if not _is_dead(_holder(marker)):
        return False
    judging = marker.with_name(f"{marker.name}.judging")
    try:
        os.close(os.open(judging, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except OSError:
        return False
    try:
        if not _is_dead(_holder(marker)):
            return False
        marker.unlink(missing_ok=True)
        return True
    finally:
        judging.unlink(missing_ok=True)


def _holder(marker: Path) -> dict[str, Any] | None:
    try:
        found = read_json(marker)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _is_dead(holder: dict[str, Any] | None) -> bool:
    """Whether the holder was a process of this host, boot and process namespace, and has ended."""
    if holder is None or holder.get("host") != socket.gethostname() or holder.get("boot") != _boot():
        return False
    pid = holder.get("pid")
    return isinstance(pid, int) and holder.get("begun") != _begun(pid)


def _name_of(marker: Path) -> str:
    found = _holder(marker)
    who = f"process {found.get('pid')} on {found.get('host')}" if found else "a process"
    return f"{who} (a soft lock: if that process is gone, delete {marker})"


def _boot() -> str:
    """An id of this boot of the machine and of its process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _begun(pid: int) -> str | None:
    """When a process of this host started, in ticks since the boot; None if it has ended or is a zombie."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else rest[18]
    except (OSError, ValueError, IndexError):
        return None


def _forget_in_child() -> None:
    """Close inherited lock files in a forked child, so that it does not keep its parent's locks."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
