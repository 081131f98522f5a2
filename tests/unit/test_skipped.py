"""What the gate says about skipped tests, and which of them it does not allow (.ci/skipped.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moe_sweeps.paths import REPOSITORY

PASSED = '<testcase classname="tests.unit.test_a" name="a"/>'
NO_BROWSER = '<testcase classname="tests.unit.test_b" name="b"><skipped message="no&#10;  browser"/></testcase>'
SLURM = '<testcase classname="tests.slurm.test_slurm" name="c"/>'
NO_SLURM = '<testcase classname="tests.slurm.test_slurm" name="d"><skipped message="no SLURM"/></testcase>'
NAMESAKE = '<testcase classname="tests.slurm_helpers" name="e"><skipped message="no SLURM"/></testcase>'


def skipped(tmp_path: Path, *cases: str, never: str = "") -> tuple[int, list[str], str]:
    report = tmp_path / "tests.xml"
    report.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    line = [sys.executable, str(REPOSITORY / ".ci" / "skipped.py"), str(report), "--never", never]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr.strip()


def test_it_counts_reasons_the_most_frequent_first(tmp_path: Path) -> None:
    code, lines, _ = skipped(tmp_path, PASSED, NO_BROWSER, NO_SLURM, NO_SLURM)
    assert code == 0
    assert lines == ["skipped: 3 of 4 tests", "     2  no SLURM", "     1  no browser"]


@pytest.mark.parametrize(
    ("cases", "error"),
    [
        ((PASSED, SLURM, NO_BROWSER, NAMESAKE), ""),
        (
            (PASSED, SLURM, NO_SLURM),
            "error: 1 tests of tests.slurm were skipped, though",
        ),
        ((PASSED,), "error: there was no test of tests.slurm, though"),
    ],
)
def test_a_package_that_must_have_run(tmp_path: Path, cases: tuple[str, ...], error: str) -> None:
    code, _, said = skipped(tmp_path, *cases, never="tests.slurm")
    assert code == int(bool(error))
    assert said == (f"{error} this machine has what they need" if error else "")
