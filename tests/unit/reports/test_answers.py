"""The page that a researcher quotes, results/README.md, holds the numbers of the committed tables and no others."""

from __future__ import annotations

import re

from moe_sweeps.paths import REPOSITORY

TABLES = REPOSITORY / "results" / "suite" / "tables"
INTERVAL = re.compile(r"[+×-]?\d[\d.]* to [+×-]?\d[\d.]*")


def answers() -> str:
    """The rows of the table under "What is decided", without those that have no number."""
    text = (REPOSITORY / "results" / "README.md").read_text().split("## What is decided")[1].split("\n## ")[0]
    return "\n".join(line.rsplit("|", 2)[1] for line in text.splitlines() if line.startswith("| "))


def test_every_interval_is_one_of_the_tables() -> None:
    """They had been those of the log of `decide`, at the level of a look that nobody took."""
    tables = "\n".join(path.read_text() for path in [*TABLES.glob("*/table.md"), TABLES / "claims.md"])
    quoted = INTERVAL.findall(answers())
    assert len(quoted) >= 12
    known = set(INTERVAL.findall(tables.replace("\\", "")))
    assert [one for one in quoted if one not in known] == []
