"""`moe-sweeps why --json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.cli.documents.document import Document, Part, told
from moe_sweeps.sweep.why import Subject, differences, version_differences


@dataclass(frozen=True, slots=True)
class SubjectData(Part):
    """A run that exists, or that overrides describe."""

    name: str = told("of the run folder, or the overrides as typed")
    run_id: str = told("twelve hexadecimal digits")
    folder: str | None = told("path; null for overrides")


@dataclass(frozen=True, slots=True)
class DifferenceData(Part):
    """One key in which the two differ."""

    key: str = told("dotted; code, packages and data stand as words")
    a: str = told("its value in a, as text")
    b: str = told("its value in b")
    counts: bool = told("whether it makes them two runs")
    reason: str = told("why it does or does not")
    files: str = told("for the training code: the files that differ; else empty")


@dataclass(frozen=True, slots=True)
class WhyDocument(Document):
    """Why two runs are the same or differ. Exit code 0: the same run, 1: two runs, or no run has these overrides."""

    SCHEMA: ClassVar[str] = "moe-sweeps/why"

    same: bool = told("the two are one run")
    a: SubjectData = told("the first run, or the overrides")
    b: SubjectData | None = told(
        "the second run; for overrides alone: the run that they mean, or the nearest one; null: no run"
    )
    differences: list[DifferenceData] = told("those that count first")


def why_document(a: Subject, b: Subject | None) -> WhyDocument:
    """The document of two subjects; `b` is None where nothing can be compared."""
    found = [] if b is None else [*differences(a, b), *version_differences(a, b)]
    listed = [DifferenceData(d.key, d.a, d.b, d.counts, d.reason, d.files) for d in found]
    return WhyDocument(b is not None and a.run_id == b.run_id, _subject(a), None if b is None else _subject(b), listed)


def _subject(one: Subject) -> SubjectData:
    return SubjectData(one.name, one.run_id, None if one.folder is None else str(one.folder.path))
