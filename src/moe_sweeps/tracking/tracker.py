"""The interface of all trackers, and what they receive of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.tracking.rows import Row

Table = tuple[list[Any], list[Any]]  # names of columns, rows


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a run before it is over."""

    run_id: str
    name: str  # its arm and seed in the sweep, else the name of its folder
    group: str | None  # the newest sweep that it belongs to
    config: dict[str, Any]  # nested, by the names of the command line
    folder: Path  # tracking/ in the run folder: where a tracker may write

    @classmethod
    def of(cls, run: RunDir, folder: Path) -> Facts:
        """Read them from the run folder and the sweeps beside it; the tracker may write to `folder`."""
        name, group = _place_in_sweeps(run)
        identity = run.identity()
        config = run.config() | {"run_id": run.run_id, "arm": identity["arm"]}
        return cls(run.run_id, name or run.path.name, group, config, folder)


@dataclass(frozen=True, slots=True)
class Results:
    """What is known of a run when it is over."""

    summary: dict[str, Any]
    tables: dict[str, Table]
    pictures: dict[str, Path] = field(default_factory=dict)  # PNG files by name


class Tracker(Protocol):
    """A mirror of one run. Any method may fail, hang or be slow: training does not wait for it."""

    def begin(self, facts: Facts) -> int:
        """Connect, and return the newest step that the tracker holds of this run; 0 when it holds none.

        Steps up to there are not handed over again.
        """
        ...

    def log(self, row: Row) -> None:
        """Take over the numbers of one step. Steps rise."""
        ...

    def add_results(self, last: Row | None, results: Results) -> None:
        """Take over the last row, with tables and pictures, and the summary.

        Without a last row the tracker holds it already, tables and pictures too.
        """
        ...

    def end(self, state: State | None) -> None:
        """The run is in `state` now; None when its worker was lost. Waits until all is handed over."""
        ...


def _place_in_sweeps(run: RunDir) -> tuple[str | None, str | None]:
    """The run's label in the newest sweep that it belongs to, and that sweep."""
    manifests, _ = load_manifests(run.path.parent)
    for manifest in manifests:
        planned = manifest.runs.get(run.run_id)
        if planned is not None:
            return f"{planned.label} seed={planned.seed}", manifest.slug
    return None, None
