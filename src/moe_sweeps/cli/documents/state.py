"""`moe-sweeps status --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.cli.documents.document import Document, Part, Trouble, told, troubles
from moe_sweeps.cli.select import Selection
from moe_sweeps.launch.follow import RunRow
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.remarks import Remarks, remarks_of


@dataclass(frozen=True, slots=True)
class FailureData(Part):
    """Why a run failed."""

    type: str = told("the class of the error")
    message: str = told("its message")
    signature: str = told("equal for failures of one cause")


@dataclass(frozen=True, slots=True)
class NoteData(Part):
    """What somebody wrote about a run or a sweep."""

    text: str = told("as it was typed")
    time: str = told("ISO 8601")
    by: str = told("user name")


@dataclass(frozen=True, slots=True)
class RunState(Part):
    """What one run is doing."""

    run_id: str = told("twelve hexadecimal digits")
    folder: str = told("path of the run folder")
    label: str = told("what its sweep calls it")
    state: str = told("planned, queued, running, done, failed, ...: docs/glossary.md explains each")
    step: int = told("steps trained")
    total_steps: int = told("steps to train")
    loss: float | None = told("training loss, nats, at the last log")
    maxvio: float | None = told("MaxVio of the batch at the last log")
    tokens_per_second: float | None = told("speed of the current attempt")
    seconds_left: float | None = told("until it ends, if it trains now")
    attempt: int = told("times it was started")
    host: str | None = told("machine of the last attempt")
    slurm_job_id: str | None = told("as squeue names it: 123_4 for a task of an array")
    collapsed: bool = told("the router collapsed at some step")
    failure: FailureData | None = told("of the last attempt, if it failed")
    note: str | None = told("a remark on the state")
    settings: dict[str, str] = told("what was set: its values on the axes of its newest sweep, else what was typed")
    tags: list[str] = told("words that people put on it: moe-sweeps note RUN --tag WORD")
    notes: list[NoteData] = told("what people wrote about it, oldest first")


@dataclass(frozen=True, slots=True)
class SweepState(Part):
    """One sweep."""

    sweep_id: str = told("twelve hexadecimal digits")
    name: str = told("its name")
    created: str = told("ISO 8601")
    command: str = told("what was typed")
    runs: int = told("distinct runs planned")
    tags: list[str] = told("words that people put on it")
    notes: list[NoteData] = told("what people wrote about it, oldest first")


@dataclass(frozen=True, slots=True)
class StatusDocument(Document):
    """What runs are doing. Exit code 1 when one failed or is lost."""

    SCHEMA: ClassVar[str] = "moe-sweeps/status"

    runs: list[RunState] = told("one for each run folder that was asked for")
    states: dict[str, int] = told("how many runs are in each state")
    sweeps: list[SweepState] = told("the sweeps that were asked for; all without a word")
    never_started: int = told("planned runs of these sweeps that have no folder yet")
    problems: list[Trouble] = told("manifests that cannot be read")


def status_document(
    chosen: Selection, rows: Sequence[RunRow], settings: Mapping[str, dict[str, str]]
) -> StatusDocument:
    """The document of these runs. `settings`: by run id."""
    sweeps = [_sweep(m, remarks_of(chosen.folder_of(m))) for m in chosen.sweeps]
    states = dict(Counter(str(row.state) for row in rows))
    runs = [_run(row, settings.get(row.folder.run_id, {})) for row in rows]
    return StatusDocument(runs, states, sweeps, chosen.never_started, troubles(chosen.problems))


def note_data(remarks: Remarks) -> list[NoteData]:
    """Notes as data."""
    return [NoteData(note.text, note.time, note.by) for note in remarks.notes]


def _sweep(m: Manifest, remarks: Remarks) -> SweepState:
    parts = (m.sweep_id, m.name, str(m.created), m.command, len(m.runs))
    return SweepState(*parts, list(remarks.tags), note_data(remarks))


def _run(row: RunRow, settings: dict[str, str]) -> RunState:
    status, failed = row.status, row.status.failure
    failure = None if failed is None else FailureData(failed.type, failed.message, failed.signature)
    remarks = remarks_of(row.folder.path)
    return RunState(
        row.folder.run_id, str(row.folder.path), row.label, str(row.state), status.step, status.total_steps,
        status.loss, status.maxvio, status.tokens_per_second, row.seconds_left, status.attempt, status.host,
        status.slurm_job_id, status.collapsed, failure, row.folder.misplaced() or row.note or None,
        settings, list(remarks.tags), note_data(remarks),
    )  # fmt: skip
