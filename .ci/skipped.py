"""Says how many tests of a run were skipped and why, from pytest's --junitxml.

`python .ci/skipped.py REPORT [--never tests.slurm]`: exit code 1 when a test was skipped that must not be.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--never", default="", metavar="PACKAGE", help="tests below it must have run")
    arguments = parser.parse_args()
    cases = list(ElementTree.parse(arguments.report).iter("testcase"))
    skipped = [(case.get("classname", ""), reason) for case in cases for reason in reasons(case)]
    print(f"skipped: {len(skipped)} of {len(cases)} tests")
    for reason, count in Counter(reason for _, reason in skipped).most_common():
        print(f"{count:>6}  {reason}")
    return must_have_run(arguments.never, [case.get("classname", "") for case in cases], skipped)


def reasons(case: ElementTree.Element) -> list[str]:
    return [" ".join(element.get("message", "no reason given").split()) for element in case.iter("skipped")]


def must_have_run(package: str, ran: list[str], skipped: list[tuple[str, str]]) -> int:
    """0 when no test of `package` was skipped, and there were some."""
    if not package:
        return 0
    below = [name for name in ran if is_below(name, package)]
    left_out = sum(is_below(name, package) for name, _ in skipped)
    if left_out or not below:
        found = f"{left_out} tests of {package} were skipped" if below else f"there was no test of {package}"
        print(f"error: {found}, though this machine has what they need", file=sys.stderr)
        return 1
    return 0


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


if __name__ == "__main__":
    sys.exit(main())
