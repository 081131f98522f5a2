"""wandb: the run id is the id, the sweep the group, and the step the project's own.

Every row is logged under its own step, and rows come in the order of steps, so the newest step that wandb holds says
what is missing. Online wandb's server knows it: a run of this id is resumed. Offline nothing can be appended to the
files of an earlier attempt; they are read back with wandb's own reader, and the new attempt starts after them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import wandb

from moe_sweeps.records.mirror import Record
from moe_sweeps.records.rundir import FINISHED, State
from moe_sweeps.tracking.rows import Row
from moe_sweeps.tracking.tracker import Facts, Results, Table

log = logging.getLogger(__name__)
INIT_SECONDS = 60.0
READER_SECONDS = 300.0
FLUSH_SECONDS = 2.0
# Else wandb reports its own errors to its makers, and waits for that where there is no network.
os.environ["WANDB_ERROR_REPORTING"] = "false"


class WandbTracker:
    """One wandb run."""

    def __init__(self, settings: dict[str, Any], record: Record) -> None:
        self.settings, self.record = settings, record
        self._wandb: Any = None

    def begin(self, facts: Facts) -> int:
        offline = self.settings["mode"] == "offline"
        earlier = attempts(facts.folder) if offline else []
        held = steps_held(earlier, self.record) if offline else 0
        self._wandb = wandb.init(
            id=facts.run_id,
            name=facts.name,
            group=facts.group,
            project=self.settings["project"],
            entity=self.settings["entity"],
            mode=self.settings["mode"],
            config=facts.config,
            dir=str(facts.folder),
            resume="allow",
            settings=self._wandb_settings(),
        )
        self._wandb.define_metric("step")
        self._wandb.define_metric("*", step_metric="step")
        self.record.url = None if offline else self._wandb.url
        self.record.files = [path.parent.name for path in attempts(facts.folder)] if offline else []
        return held if offline else max(0, int(self._wandb.starting_step) - 1)

    def log(self, row: Row) -> None:
        self._wandb.log(row.values | {"step": row.step}, step=row.step, commit=True)

    def add_results(self, last: Row | None, results: Results) -> None:
        if last is not None:
            pictures = {f"pictures/{name}": wandb.Image(str(path)) for name, path in results.pictures.items()}
            self._log_with_tables(Row(last.step, last.values | pictures), results.tables)
        self._wandb.summary.update(results.summary)

    def _log_with_tables(self, row: Row, tables: dict[str, Table]) -> None:
        """Tables are artifacts, which not every account and server takes: without them the row still counts."""
        made = {f"tables/{name}": wandb.Table(columns=columns, data=rows) for name, (columns, rows) in tables.items()}
        try:
            self.log(Row(row.step, row.values | made))
        except Exception as error:
            self.record.problem = f"{self.record.destination}: it did not take the tables: {error}"
            log.warning("without tables", exc_info=True)
            self.log(row)

    def end(self, state: State | None) -> None:
        if state is State.preempted:
            self._wandb.mark_preempting()
        self._wandb.finish(exit_code=0 if state in FINISHED else 1)
        wandb.teardown()

    def _wandb_settings(self) -> wandb.Settings:
        """Numbers of the run and nothing else: no console, code, packages, machine or command line."""
        return wandb.Settings(
            init_timeout=INIT_SECONDS,
            console="off",
            silent=True,
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            x_transaction_log_flush_interval=FLUSH_SECONDS,
        )


def attempts(folder: Path) -> list[Path]:
    """The offline files of all attempts, oldest first: tracking/wandb/offline-run-<time>-<id>/run-<id>.wandb."""
    return sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))


def steps_held(files: list[Path], record: Record) -> int:
    """The newest step in the files of earlier attempts, of which one that was cut short is removed.

    What a killed attempt left is read from the files, not from the record. Of files that were sent and removed, the
    record says what they held.
    """
    gone = set(record.files) - {path.parent.name for path in files}
    known = record.last_step if gone else 0
    whole = files[:-1] if files and remove_if_cut_short(files[-1]) else files
    for path in reversed(whole):  # steps rise from one attempt to the next
        if found := last_step(inspect(path)):
            return max(found, known)
    return known


def remove_if_cut_short(path: Path) -> bool:
    """Remove the files of an attempt that was killed together with wandb's service; returns whether it was.

    `wandb sync` fails at such a file, and at all later ones of the run. What it held is in the run folder, too.
    """
    if path.with_suffix(".wandb.synced").exists() or any(r["type"] == "exit" for r in inspect(path)):
        return False
    shutil.rmtree(path.parent)
    return True


def last_step(records: list[dict[str, Any]]) -> int:
    """The newest step among the records of an offline file; 0 when they hold none."""
    return max((int(r["history"]["item"]["_step"]) for r in records if r["type"] == "history"), default=0)


def inspect(path: Path) -> list[dict[str, Any]]:
    """The records of an offline file, in order, as wandb's own reader finds them (`wandb leet inspect`).

    Raises:
        RuntimeError: it cannot read the file.
    """
    command = [sys.executable, "-P", "-m", "wandb", "leet", "inspect", "--json", str(path)]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=READER_SECONDS, check=False)
    if done.returncode and not done.stdout:
        raise RuntimeError(f"wandb cannot read {path}: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]
