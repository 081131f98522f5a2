"""Results of benchmarks as data: benchmarks/results/<case>.json, one file a case, which docs/performance.md renders."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_sweeps.host.files import write_json
from moe_sweeps.host.hardware import available_cores

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "hydra-core", "pandas")
Row = dict[str, Any]


def record(case: str, title: str, rows: Sequence[Row], *, threads: int, save: bool, note: str = "") -> Path | None:
    """Print the rows; with `save` store them with machine, versions and date, replacing older ones."""
    content = {
        "case": case,
        "title": title,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "threads": threads,
        "note": note,
        "rows": list(rows),
    }
    print(f"{title}\n" + "\n".join("  " + "  ".join(f"{k}={_short(v)}" for k, v in row.items()) for row in rows))
    if not save:
        return None
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{case}.json", content)
    return RESULTS / f"{case}.json"


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All recorded cases by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def machine() -> dict[str, Any]:
    """Processor, cores, and the load of the last minute; a load above the number of cores means a busy machine."""
    return {"cpu": _cpu_name(), "cores": available_cores(), "system": platform.system(), "load": round(load_now(), 1)}


def load_now() -> float:
    """Processes that wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


def compared(what: str, ours: float, rival: float, unit: str, *, target: float | None = None, **more: Any) -> Row:
    """A row that compares seconds, or whatever is better when it is smaller: the ratio is how much better ours is."""
    return {"what": what, "ours": ours, "rival": rival, "unit": unit, "ratio": rival / ours, "target": target} | more


def bounded(what: str, ours: float, limit: float | None, unit: str, **more: Any) -> Row:
    """A row that holds a measured value against a limit that it is to stay under."""
    held = {} if limit is None else {"held": "yes" if ours <= limit else "no"}
    return {"what": what, "ours": ours, "limit": limit, "unit": unit} | held | more


def wants_saving() -> bool:
    """Whether the script was called with --save; the word is taken from its arguments."""
    asked = "--save" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--save"]
    return asked


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.processor())
