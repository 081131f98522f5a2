"""Which runs of a plan rest on other code; tests/e2e/test_code_changes.py changes the code."""

from __future__ import annotations

from pathlib import Path

from helpers import TINY, compose_run

from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.rundir import RunDir, State, Status
from moe_sweeps.sweep.other_code import other_code


def test_a_folder_that_cannot_be_read_stops_no_plan(folders: Path) -> None:
    """A link is refused, and so is a folder that is closed or gone. Freezing says which, and trains the others."""
    runs = [compose_run(*TINY, f"seed={seed}") for seed in range(3)]
    linked, gone, old = (freeze(run, [], command="test") for run in runs)
    linked.path.rename(folders / ".elsewhere")
    linked.path.symlink_to(folders / ".elsewhere")
    old.update_provenance(attempts=[{"source_hash": "of other code"}])
    old.write_status(Status(State.done, attempt=1, total_steps=24))
    places = (linked, RunDir(gone.path.with_name("gone-000000000000")), old)
    found = other_code(zip(runs, places, strict=True))
    assert (found.trained, found.begun) == ([old], [])
