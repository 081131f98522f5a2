"""Where compiled libraries are kept, and which of them are loaded: whole ones that nobody else could have changed.

A library is code that runs in this process. So its folder and the file belong to this user (or to root) and nobody else
may write to them, and its SHA-256 stands beside it: a file that was cut short kills a process that maps it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from moe_sweeps.host.files import sync_folder, write_atomic

OTHERS_WRITE = 0o022
MOST_BYTES = 256  # of a checksum file


def folders() -> Iterator[Path]:
    """Folders for libraries, the best first: the user's cache, one in /tmp for all workers, a fresh one."""
    own = (cache_folder, lambda: Path(tempfile.gettempdir()) / f"moe_sweeps-{os.getuid()}")
    for place in own:
        try:
            folder = place()
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            _close_to_others(folder)
            if problem_with_folder(folder) is None:
                yield folder
        except (OSError, RuntimeError):  # a home that cannot be read or written, or none; a file in its place
            continue
    with suppress(OSError):  # no folder for temporary files can be written to
        yield Path(tempfile.mkdtemp(prefix="moe_sweeps-"))


def cache_folder() -> Path:
    """The folder in the user's cache.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moe_sweeps"


def problem_with_folder(folder: Path) -> str | None:
    """Why nothing in `folder` is loaded, or None."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is no folder"
    if found.st_uid not in (os.getuid(), 0):
        return f"{folder} belongs to user {found.st_uid}"
    return f"others may write to {folder}" if found.st_mode & OTHERS_WRITE else None


def _close_to_others(folder: Path) -> None:
    """A folder of our own that others may write to, as some umasks make them, is closed. What they left is theirs."""
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and found.st_mode & OTHERS_WRITE:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS_WRITE)


def problem_with(library: Path) -> str | None:
    """Why `library` is not loaded, or None. It is then compiled again.

    Raises:
        FileNotFoundError: there is none.
    """
    found = library.lstat()
    if not stat.S_ISREG(found.st_mode):
        return f"{library} is no regular file"
    if found.st_uid not in (os.getuid(), 0):
        return f"{library} belongs to user {found.st_uid}"
    if found.st_mode & OTHERS_WRITE:
        return f"others may write to {library}"
    noted = _noted(checksum_file(library))
    if noted is None:
        return f"{library} has no checksum beside it"
    if noted != _sha256(library):
        return f"{library} is damaged: its checksum is another than the one beside it"
    return None


def _noted(path: Path) -> str | None:
    """What a checksum file says. Something else in its place, a pipe for example, is not waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return file.read(MOST_BYTES).decode("ascii").strip()
    except (OSError, ValueError):
        pass
    return None


def keep(draft: Path, library: Path) -> None:
    """Give a compiled `draft` its place. It appears whole or not at all, also after a power cut."""
    draft.chmod(stat.S_IMODE(draft.stat().st_mode) & ~OTHERS_WRITE)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    write_atomic(checksum_file(library), f"{_sha256(draft)}\n", durable=True)
    draft.replace(library)
    sync_folder(library.parent)


def checksum_file(library: Path) -> Path:
    """The file that holds the library's SHA-256."""
    return library.with_name(f"{library.name}.sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
