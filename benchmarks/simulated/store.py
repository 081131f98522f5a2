"""What benchmarks/evidence.py and benchmarks/proposals.py printed, as data: benchmarks/results/evidence/<part>.json."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Sequence
from pathlib import Path

from moe_sweeps.host.files import write_json
from simulated.rates import Row

FOLDER = Path(__file__).parents[1] / "results" / "evidence"
PACKAGES = ("numpy", "scipy")


def path(part: str) -> Path:
    """The file of a part."""
    return FOLDER / f"{part}.json"


def save(part: str, rows: Sequence[Row], cpu_seconds: float | None = None) -> None:
    """Write the rows of a part with what they were counted by."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    content = {"part": part, "date": time.strftime("%Y-%m-%d"), "versions": versions, "cpu_seconds": cpu_seconds}
    write_json(path(part), {**content, "rows": list(rows)})


def load(part: str) -> list[Row]:
    """The committed rows of a part."""
    rows: list[Row] = json.loads(path(part).read_text())["rows"]
    return rows
