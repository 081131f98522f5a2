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

from moe_sweeps.credentials import without_keys, without_keys_in_diff
from moe_sweeps.host.shell import command
from moe_sweeps.paths import INSTALLED, REPOSITORY

PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "pandas", "tokenizers", "moe_sweeps")


def provenance(command_typed: str) -> dict[str, Any]:
    """The content of provenance.json at submission, except for the code (code_version.py).

    The worker adds data, pairing and its machine.
    """
    return {
        "command": without_keys(command_typed),
        "submitted": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": package_versions(),
        "git": git_state(),
    }


@functools.cache
def package_versions() -> dict[str, str]:
    """Installed versions of the packages that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit, and the uncommitted changes to tracked files with their hash. Empty outside a git checkout."""
    # An installed package may lie in an environment inside an unrelated repository.
    commit = None if INSTALLED else _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    diff = _git("diff", "HEAD", "--", "src", "conf", "sweeps", "train.py") or ""
    return {
        "commit": commit.strip(),
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        "diff": without_keys_in_diff(diff),
    }


def command_line() -> str:
    """The command that this process was started with, as a shell reads it again, without API keys."""
    return without_keys(command("python", *map(without_keys, sys.argv)))  # also those that are a word after an option


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
