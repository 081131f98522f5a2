"""Which code, packages and command a run comes from."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import subprocess
import sys
import time
from typing import Any

from moe_sweeps.keys import without_keys, without_own_keys
from moe_sweeps.paths import REPOSITORY

PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "pandas", "tokenizers", "moe_sweeps")
# Code that cannot change what a run computes: changing it does not make results incomparable.
NOT_TRAINING = ("cli", "results", "sweep", "tracking")


def provenance(command: str) -> dict[str, Any]:
    """What provenance.json holds from the moment of submission. The worker adds data, pairing and its machine."""
    return {
        "command": without_keys(command),
        "submitted": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": package_versions(),
        "git": git_state(),
        "source_hash": source_hash(),
    }


@functools.cache
def source_hash() -> str:
    """Short SHA-256 over the sources that training runs: the same hash, the same training code."""
    digest = hashlib.sha256()
    package = REPOSITORY / "src" / "moe_sweeps"
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.cpp")]):
        relative = path.relative_to(package)
        if relative.parts[0] not in NOT_TRAINING:
            digest.update(f"{relative}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def package_versions() -> dict[str, str]:
    """Installed versions of the packages that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit, and the uncommitted changes to tracked files with their hash. Empty outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    diff = _git("diff", "HEAD", "--", "src", "conf", "sweeps", "train.py") or ""
    return {
        "commit": commit.strip(),
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        "diff": without_own_keys(diff),
    }


def command_line() -> str:
    """The command that this process was started with, as typed but for keys."""
    return without_keys(" ".join(["python", *sys.argv]))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
