"""A copy of the sources as they were at submission, shared by all runs that were submitted with them.

A snapshot lies in `runs/snapshots/<hash of its content>/` and holds the files of the working tree that git tracks, or
would track: a new file need not be added first. A worker imports from it and from nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.files import disk_full_is_said
from moe_sweeps.paths import HOME_VARIABLE, REPOSITORY, home

PARTS = ("src", "conf", "sweeps", "train.py", "pyproject.toml")
SNAPSHOTS = "snapshots"


def take_snapshot(runs_root: Path, repository: Path = REPOSITORY) -> Path:
    """Copy the sources below `runs_root`, unless that was done before; returns the folder.

    Raises:
        DiskFull: there is no space for it.
    """
    contents = {path: (repository / path).read_bytes() for path in source_files(repository)}
    folder = runs_root / SNAPSHOTS / content_hash(contents)
    if folder.is_dir():
        return folder
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}-draft")
    try:
        with disk_full_is_said(draft, sum(map(len, contents.values()))):
            for path, content in contents.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_bytes(content)
                (draft / path).chmod(0o444)
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same content
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def source_files(repository: Path) -> list[str]:
    """Paths of the sources, relative to the repository: what git tracks or would track, else all that is there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, timeout=60, check=True)
        found = {name for name in done.stdout.decode().split("\0") if name}
    except (OSError, subprocess.SubprocessError):
        found = {str(p.relative_to(repository)) for part in PARTS for p in _below(repository / part)}
    return sorted(name for name in found if (repository / name).is_file())


def content_hash(contents: dict[str, bytes]) -> str:
    """16 hexadecimal digits over names and contents, each with its length: nothing moves between them unseen."""
    digest = hashlib.sha256()
    for path, content in sorted(contents.items()):
        digest.update(f"{len(path)} {len(content)} {path}\0".encode() + content)
    return digest.hexdigest()[:16]


def environment(snapshot: Path) -> dict[str, str]:
    """The environment of a process that imports from `snapshot`, and whose relative folders are those of this one.

    Raises:
        MoeSweepsError: the snapshot was removed.
    """
    if not (snapshot / "src" / "moe_sweeps").is_dir():
        raise MoeSweepsError(
            f"the code snapshot {snapshot} is gone. `moe-sweeps retry RUN --current-code` goes on with today's sources."
        )
    path = os.pathsep.join(filter(None, (str(snapshot / "src"), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, HOME_VARIABLE: str(home())}


def _below(part: Path) -> list[Path]:
    if part.is_file():
        return [part]
    return [p for p in part.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
