"""Which runs of a plan were trained or started by other code than the current, and in which files it differs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import yaml

from moe_sweeps.errors import MoeSweepsError, RunFolderError
from moe_sweeps.experiment.code_version import code_version
from moe_sweeps.experiment.freeze import snapshot_of
from moe_sweeps.experiment.frozen import from_dict
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.code_record import CodeRecord, changed_files, is_other, records
from moe_sweeps.records.rundir import FINISHED, RunDir, State

log = logging.getLogger(__name__)


@dataclass(slots=True)
class OtherCode:
    """Runs that other code `trained` to their end, and runs that it has `begun` and the current code would resume.

    `files`: where the code of the trained runs differs; empty where it was not recorded by file.
    """

    trained: list[RunDir] = field(default_factory=list)
    begun: list[RunDir] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    files_of_begun: list[str] = field(default_factory=list)


def other_code(runs: Iterable[tuple[RunConfig, RunDir | None]]) -> OtherCode:
    """Those of `runs` that do not rest on the code that would train them now."""
    found = OtherCode()
    for run, folder in runs:
        if folder is None:
            continue
        try:
            status = folder.status()
        except RunFolderError:  # freezing says why, and leaves this run alone out
            continue
        if status.state in FINISHED:
            files, places = found.files, found.trained
        elif status.attempt and (status.state is State.failed or snapshot_of(folder) is None):
            files, places = found.files_of_begun, found.begun
        else:
            continue  # never started, or its own snapshot resumes it
        then = list(_others(folder, code_version(run)))
        if then:
            places.append(folder)
            files += [file for record in then for file in changed_files(record, code_version(run))]
    found.files, found.files_of_begun = list(dict.fromkeys(found.files)), list(dict.fromkeys(found.files_of_begun))
    return found


def other_code_of(folders: Iterable[RunDir]) -> OtherCode:
    """The same for runs given by their folders. A run that the current code cannot read is skipped."""
    return other_code((run, folder) for folder in folders if (run := _frozen_run(folder)) is not None)


def _frozen_run(folder: RunDir) -> RunConfig | None:
    try:
        return from_dict(folder.config())
    except (MoeSweepsError, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        log.warning("%s: its config cannot be read, so its code is not compared: %s", folder.path.name, error)
        return None


def _others(folder: RunDir, now: CodeRecord) -> Iterator[CodeRecord]:
    """The code versions behind a run that differ from `now`. None of a damaged folder, which tables report."""
    try:
        yield from (record for record in records(folder.provenance()) if is_other(record, now))
    except (RunFolderError, AttributeError, TypeError):
        return
