"""What a tracker gets when a run is over: the summary, tables, and the pictures of `moe-sweeps report`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports.pictures import write_pictures
from moe_sweeps.results.history import History, NotRecorded
from moe_sweeps.tracking.tracker import Results, Table

log = logging.getLogger(__name__)


def results_of(run: RunDir, folder: Path, with_media: bool = True) -> Results:
    """The results of a finished run; its pictures are drawn below `folder`.

    What cannot be drawn is left out. Without media there are no tables either: the tracker then has both already.
    """
    summary = run.summary() or {}
    if not with_media:
        return Results(summary, {})
    tables = {"summary": summary_table(summary)}
    pictures = {}
    try:
        tables["experts"] = experts_table(History.read(run))
        drawn = write_pictures(run, folder / "pictures")
        pictures = {slug: drawn.folder / f"{slug}.png" for slug in drawn.drawn}
    except (NotRecorded, MoeSweepsError) as reason:
        log.info("left out: %s", reason)
    return Results(summary, tables, pictures)


def summary_table(summary: dict[str, Any]) -> Table:
    """Every final number with its name."""
    return ["name", "value"], [[name, str(value)] for name, value in flat(summary).items()]


def experts_table(history: History) -> Table:
    """What each expert did at the last evaluation: share of all picks of its layer, and share of each domain's picks.

    Raises:
        NotRecorded: the run has no such line.
    """
    record = history.last("val", "load_LE")
    domains: dict[str, list[list[float]]] = record.get("domain_load") or {}
    columns = ["layer", "expert", "share", *(f"share of {domain}" for domain in domains)]
    rows = [
        [layer, expert, _share(load_E, expert), *(_share(load_LE[layer], expert) for load_LE in domains.values())]
        for layer, load_E in enumerate(record["load_LE"])
        for expert in range(len(load_E))
    ]
    return columns, rows


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _share(load_E: list[float], expert: int) -> float:
    return round(load_E[expert] / (sum(load_E) or 1), 6)
