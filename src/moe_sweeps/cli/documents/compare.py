"""`moe-sweeps compare --json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.cli.documents.document import Document, Part, told
from moe_sweeps.reports.side_by_side import Pictures
from moe_sweeps.results.side_by_side import SideBySide


@dataclass(frozen=True, slots=True)
class ComparedRun(Part):
    """One of the runs."""

    run_id: str = told("twelve hexadecimal digits")
    folder: str = told("path of the run folder")
    label: str = told("its settings in one line, or what its sweep calls it")
    state: str = told("done, failed, ...; edited: its config is not that of its id, so it has no numbers")


@dataclass(frozen=True, slots=True)
class DifferingSetting(Part):
    """A key in which the runs differ."""

    key: str = told("dotted")
    values: list[str | None] = told("one a run, as text; null where a run does not read it or has no such key")
    counts: bool = told("whether it can change a result")


@dataclass(frozen=True, slots=True)
class ComparedNumber(Part):
    """A final number of every run."""

    metric: str = told("a key of summary.json")
    better: str | None = told("lower or higher; null where neither is")
    values: list[float | None] = told("one a run, in that key's unit; null where it has none")
    differences: list[float | None] = told("minus the first run's; null for times, which machine and load decide, too")


@dataclass(frozen=True, slots=True)
class CompareDocument(Document):
    """Runs side by side, the first of which the others are held against. It holds no verdict: judge gives those."""

    SCHEMA: ClassVar[str] = "moe-sweeps/compare"

    runs: list[ComparedRun] = told("in the order in which they were named")
    settings: list[DifferingSetting] = told("those that can change a result first")
    numbers: list[ComparedNumber] = told("that some run has")
    remarks: list[str] = told("what speaks against comparing them")
    pictures: list[str] = told("paths of the curves, as PNG and SVG")
    no_picture: str | None = told("why there is none")


def compare_document(found: SideBySide, pictures: Pictures) -> CompareDocument:
    """The document of runs side by side."""
    runs = [ComparedRun(s.folder.run_id, str(s.folder.path), s.label, s.state) for s in found.sides]
    settings = [DifferingSetting(s.key, list(s.values), s.counts) for s in found.settings]
    numbers = [
        ComparedNumber(n.metric.column, n.metric.better, list(n.values), list(n.differences)) for n in found.numbers
    ]
    paths = [str(path) for path in pictures.paths]
    return CompareDocument(runs, settings, numbers, list(found.remarks), paths, pictures.left_out)
