"""A copy of the sources as they were at submission, shared by all runs that were submitted with them.

A snapshot lies in `runs/snapshots/<hash of its content>/` and holds the files of the working tree that git tracks, or
would track: a new file need not be added first. Of a package that was installed without -e it holds all files. A worker
imports from it and from nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from moe_sweeps.credentials import without_keys
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.files import disk_full_is_said, make_folder, sync_folder, sync_tree
from moe_sweeps.host.reading import TEXT_BYTES, read_bytes
from moe_sweeps.paths import HOME_VARIABLE, INSTALLED, PACKAGE, REPOSITORY, home

PARTS = ("src", "conf", "sweeps", "train.py", "pyproject.toml")
CODE = "src/moe_sweeps"
SNAPSHOTS = "snapshots"


def take_snapshot(runs_root: Path, repository: Path = REPOSITORY) -> Path:
    """Copy the sources to a folder below `runs_root`, unless there is such a copy; returns the folder.

    Raises:
        DiskFull: there is no space for it.
    """
    contents = _sources(repository)
    folder = runs_root / SNAPSHOTS / content_hash(contents)
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}-draft")
    try:
        with disk_full_is_said(draft, sum(map(len, contents.values()))):
            for path, content in contents.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_bytes(content)
                (draft / path).chmod((draft / path).stat().st_mode & ~0o222)  # read-only, and no wider than the umask
        sync_tree(draft)  # a snapshot is taken once: one that a power cut left empty would be imported ever after
        draft.rename(folder)
        sync_folder(folder.parent)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same content
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _sources(repository: Path) -> dict[str, bytes]:
    """Path in the snapshot -> content. An installed package is laid out as in a repository, with what it ships."""
    if INSTALLED and repository == REPOSITORY:
        return {f"{CODE}/{path.relative_to(PACKAGE).as_posix()}": _read(path) for path in _below(PACKAGE)}
    return {path: _read(repository / path) for path in source_files(repository)}


def _read(path: Path) -> bytes:
    """A file's content. Settings are copied without API keys: a run that uses one is refused, and others need none."""
    content = path.read_bytes()
    if path.suffix not in (".yaml", ".yml"):
        return content
    return without_keys(content.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def source_files(repository: Path) -> list[str]:
    """Paths of the sources, relative to the repository: what git tracks or would track, else all that is there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, timeout=60, check=True)
        found = {name for name in done.stdout.decode().split("\0") if name}
    except (OSError, subprocess.SubprocessError):
        found = set()
    if not any(name.startswith(f"{CODE}/") for name in found):  # no repository, or one that ignores this folder
        found = {str(p.relative_to(repository)) for part in PARTS for p in _below(repository / part)}
    return sorted(name for name in found if not _holds_keys(Path(name)) and (repository / name).is_file())


def _holds_keys(path: Path) -> bool:
    """Whether a file of this name usually holds keys: .env, .env.local, .netrc, a private key."""
    kept = path.name in (".netrc", ".npmrc", ".pypirc", "credentials") or path.suffix in (".pem", ".key")
    return kept or any(part.startswith(".env") for part in path.parts)


def content_hash(contents: dict[str, bytes]) -> str:
    """16 hexadecimal digits over names and contents. Each is hashed with its length, so that their borders count."""
    digest = hashlib.sha256()
    for path, content in sorted(contents.items()):
        digest.update(f"{len(path)} {len(content)} {path}\0".encode() + content)
    return digest.hexdigest()[:16]


def environment(snapshot: Path) -> dict[str, str]:
    """The environment of a process that imports from `snapshot` and resolves relative folders as this process does.

    Raises:
        MoeSweepsError: the snapshot was removed.
    """
    if not (snapshot / CODE).is_dir():
        raise MoeSweepsError(
            f"the code snapshot {snapshot} is gone. "
            "`moe-sweeps retry RUN --current-code` resumes with the current code."
        )
    require_intact(snapshot)
    path = os.pathsep.join(filter(None, (str(snapshot / "src"), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, HOME_VARIABLE: str(home())} | _own_bytecode(snapshot)


def require_intact(snapshot: Path) -> None:
    """Raise MoeSweepsError unless the snapshot's name is the hash of its content, since that is executed.

    A snapshot of another user is executed only if this user's own sources are the same.
    """
    try:
        found = content_hash(_contents(snapshot))
    except (OSError, ValueError) as error:
        found = str(error)
    if found != snapshot.name:
        raise MoeSweepsError(
            f"the code snapshot {snapshot} was changed ({found}), and is not executed. Move it away; "
            "`moe-sweeps retry RUN --current-code` resumes with the current code."
        )
    if not _is_own(snapshot) and content_hash(_sources(REPOSITORY)) != snapshot.name:
        raise MoeSweepsError(
            f"the code snapshot {snapshot} is another user's and not your own code, so it is not executed. "
            "`moe-sweeps retry RUN --current-code` resumes with your code."
        )


def require_layout(snapshot: Path) -> None:
    """Raise MoeSweepsError for a snapshot of an older layout, whose sources lack the module that starts a worker."""
    if (snapshot / CODE).is_dir() and not (snapshot / CODE / "launch" / "server.py").exists():
        raise MoeSweepsError(
            f"the code snapshot {snapshot} was taken of an older version, whose code differs and cannot be started by "
            "this one. Resume in a clone of that version, or here with the current code: `moe-sweeps retry RUN "
            "--current-code`."
        )


def _is_own(snapshot: Path) -> bool:
    return snapshot.stat().st_uid in (os.geteuid(), 0)


def _contents(snapshot: Path) -> dict[str, bytes]:
    """Relative path -> content of every file except compiled ones. Links are refused: they could lead anywhere."""
    found: dict[str, bytes] = {}
    for folder, folders, names in os.walk(snapshot):
        folders[:] = [name for name in folders if name != "__pycache__"]
        paths = [Path(folder, name) for name in (*names, *folders)]
        if any(path.is_symlink() for path in paths):
            raise ValueError("it holds a link")
        files = paths[: len(names)]
        found |= {str(path.relative_to(snapshot)): read_bytes(path, TEXT_BYTES) for path in files}
    return found


def _own_bytecode(snapshot: Path) -> dict[str, str]:
    """Do not execute bytecode that another user compiled: the hash covers sources alone."""
    if _is_own(snapshot):
        return {}
    return {"PYTHONPYCACHEPREFIX": str(Path("~/.cache/moe_sweeps/bytecode").expanduser())}


def _below(part: Path) -> list[Path]:
    if part.is_file():
        return [part]
    return [p for p in part.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
