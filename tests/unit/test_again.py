"""Failed tests that the gate tries again by themselves, and those that it does not (.ci/again.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moe_sweeps.paths import REPOSITORY

# Passes until it was called `limit` times; a file counts, since each try is a process of its own.
COUNTS = """
from pathlib import Path
import pytest

def test_a():
    calls = Path("calls")
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    assert len(calls.read_text()) <= {limit}

@pytest.mark.parametrize("what", ["a@b"])
def test_b(what):
    pass

@pytest.mark.skip
def test_skipped():
    pass
"""


def again(clone: Path, failed: list[str] | None, limit: int = 9) -> tuple[int, str, str]:
    (clone / "test_it.py").write_text(COUNTS.format(limit=limit))
    if failed is not None:
        cache = clone / ".pytest_cache" / "v" / "cache"
        cache.mkdir(parents=True)
        (cache / "lastfailed").write_text(json.dumps(dict.fromkeys(failed, True)))
    line = [sys.executable, str(REPOSITORY / ".ci" / "again.py")]
    done = subprocess.run(line, cwd=clone, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr.strip()


def test_a_test_that_passes_three_times_is_named(tmp_path: Path) -> None:
    code, out, error = again(tmp_path, ["test_it.py::test_a@group", "test_it.py::test_b[a@b]"])
    assert (code, error) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("to be mended")] == [
        "to be mended: test_it.py::test_a failed beside others and passed 3 times by itself",
        "to be mended: test_it.py::test_b[a@b] failed beside others and passed 3 times by itself",
    ]
    assert (tmp_path / "calls").read_text() == "..."


@pytest.mark.parametrize("passes", [0, 2])
def test_one_failure_in_three_is_one(tmp_path: Path, passes: int) -> None:
    code, _, error = again(tmp_path, ["test_it.py::test_a"], limit=passes)
    assert (code, error) == (1, "error: the gate stays red: a test failed or was skipped by itself")


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        (None, "pytest left no list of failed tests"),
        ([], "pytest left no list of failed tests"),
        (["test_it.py::test_a", "b", "c", "d"], "4 tests failed, and more than 3 are no chance"),
        (["test_it.py"], "test_it.py could not be collected"),
        (["test_it.py::test_skipped"], "a test failed or was skipped by itself"),
        (["test_it.py::test_gone"], "a test failed or was skipped by itself"),
    ],
)
def test_what_is_no_chance_stays_a_failure(tmp_path: Path, failed: list[str] | None, reason: str) -> None:
    code, _, error = again(tmp_path, failed)
    assert (code, error.splitlines()[-1]) == (1, f"error: the gate stays red: {reason}")
