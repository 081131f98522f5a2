"""Tries tests that failed beside others by themselves: `python .ci/again.py`, in a clone where `make test` failed.

Thousands of tests share two cores of an unknown machine, and many start processes, so that one fails now and then for
want of time alone. A test that failed must pass three times in a row, and is named, since its race is to be mended.
A fault that is there fails again; more than three failures are no chance and are not tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")
AT_MOST = 3
TIMES = 3


def main() -> int:
    failed = sorted(map(without_group, json.loads(FAILED.read_text()))) if FAILED.exists() else []
    if not failed:
        return refused("pytest left no list of failed tests")
    if len(failed) > AT_MOST:
        return refused(f"{len(failed)} tests failed, and more than {AT_MOST} are no chance")
    if modules := [name for name in failed if "::" not in name]:
        return refused(f"{', '.join(modules)} could not be collected")
    if any(not passes(failed) for _ in range(TIMES)):
        return refused("a test failed or was skipped by itself")
    for name in failed:
        print(f"to be mended: {name} failed beside others and passed {TIMES} times by itself")
    return 0


def without_group(name: str) -> str:
    """pytest-xdist puts the group of a test behind its name: FILE::TEST[x]@group."""
    return name.rpartition("@")[0] if name.rfind("@") > name.rfind("]") else name


def refused(reason: str) -> int:
    print(f"error: the gate stays red: {reason}", file=sys.stderr)
    return 1


def passes(tests: list[str]) -> bool:
    """All of them, none skipped, in one process and without the options of the whole run, such as its report's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    return done.returncode == 0 and f" {len(tests)} passed in " in done.stdout.splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
