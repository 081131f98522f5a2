"""Mirrors of a run in a tracker, as the worker and the commands see them.

A mirror is a separate process (moe_sweeps.tracking) that follows the run folder. The worker starts it and tells it how
the run ended; they do not communicate in between, so a tracker that fails, hangs or cannot be reached does not slow
training. tracking/<destination>.json says how far the mirror is and what went wrong.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from moe_sweeps.credentials import without_keys
from moe_sweeps.errors import ConfigError
from moe_sweeps.host.files import make_folder, read_json, write_json
from moe_sweeps.host.shell import pip_command
from moe_sweeps.paths import SOURCES
from moe_sweeps.records.rundir import RunDir, State

FOLDER = "tracking"
OWN_SECONDS = 120.0  # limit for a mirror's own work at the end: tables and pictures
GRACE = 3.0  # after all its limits, before it is killed


@dataclass(slots=True)
class Record:
    """tracking/<destination>.json: how much of a run one tracker holds."""

    destination: str
    last_step: int = 0  # the newest step that was handed over
    complete: bool = False  # the run is over, and all of it was handed over, results included
    problem: str | None = None
    url: str | None = None
    files: list[str] = field(default_factory=list)  # what the tracker wrote below tracking/, by attempt
    updated: float = 0.0

    @classmethod
    def read(cls, folder: RunDir, destination: str) -> Record:
        """The record of a run folder; an empty one where none can be read."""
        known = {f.name for f in fields(cls)}
        try:
            content = read_json(_record_path(folder, destination))
            found = cls(**{k: v for k, v in content.items() if k in known})
            found.require_types()
            return found
        except (OSError, ValueError, TypeError, AttributeError):
            return cls(destination)

    def require_types(self) -> None:
        """Raise TypeError for a value that no mirror has written."""
        texts = (self.destination, self.problem or "", self.url or "", *self.files)
        counts = (self.last_step, self.updated, self.complete)
        if not all(isinstance(t, str) for t in texts) or not all(isinstance(n, int | float) for n in counts):
            raise TypeError("it is no record of a mirror")

    def write(self, folder: RunDir) -> None:
        """Write the record beside the others of the run; keys in it are masked."""
        self.updated = time.time()
        self.problem = None if self.problem is None else without_keys(self.problem)
        write_json(_record_path(folder, self.destination), asdict(self), whole=True)


def records(folder: RunDir) -> list[Record]:
    """The records of all trackers that a run was mirrored in."""
    return [Record.read(folder, path.stem) for path in sorted((folder.path / FOLDER).glob("*.json"))]


def destination_of(settings: dict[str, Any]) -> str | None:
    """Where a tracking config mirrors to: the name of its record, None for nowhere."""
    if settings.get("kind") == "wandb":
        return {"online": "wandb", "offline": "wandb-offline"}.get(str(settings["mode"]))
    return "tensorboard" if settings.get("kind") == "tensorboard" else None


def require_tracker(kind: str) -> None:
    """Raise ConfigError unless the package of a tracker is installed here."""
    if kind != "none" and importlib.util.find_spec(kind) is None:
        install = f"Install it: {pip_command('-e', f'.[{kind}]')}"
        raise ConfigError("tracking", kind, f"the package {kind} is not installed here", install)


def start_mirror(folder: RunDir) -> Mirror | None:
    """The mirror that the run's config asks for, None if it asks for none."""
    settings = folder.settings("tracking")
    return Mirror(folder, settings) if destination_of(settings) else None


class Mirror:
    """A process that mirrors a run while it trains. No method raises because of the tracker."""

    def __init__(self, folder: RunDir, settings: dict[str, Any]) -> None:
        self.folder, self.limit = folder, float(settings["finish_seconds"]) + OWN_SECONDS + GRACE
        self.destination = str(destination_of(settings))
        self._begun = time.time()
        self._process: subprocess.Popen[bytes] | None = None
        self._own_problem: str | None = None
        try:
            self._process = self._start(settings)
        except OSError as error:
            self._own_problem = f"{self.destination}: its process could not be started: {error}"

    def _start(self, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
        make_folder(self.folder.path / FOLDER)
        command = [sys.executable, "-P", "-m", "moe_sweeps.tracking", str(self.folder.path), json.dumps(settings)]
        path = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH"))))
        # A separate session, so that signals to the worker do not reach the mirror.
        with (self.folder.path / FOLDER / f"{self.destination}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def problem(self) -> str | None:
        """One sentence on what is wrong with the tracker now; None if nothing is."""
        if self._own_problem or self._process is None:
            return self._own_problem
        record = Record.read(self.folder, self.destination)
        said = record.problem if record.updated >= self._begun else None
        code = self._process.poll()
        if code and not said:
            log = self.folder.path / FOLDER / f"{self.destination}.log"
            return f"{self.destination}: its process ended with exit code {code}; see {log}"
        return said

    def end(self, state: State) -> str | None:
        """Tell the mirror how the run ended, wait for it up to its limit, and return what went wrong."""
        process = self._process
        if process is None:
            return self.problem()
        try:
            process.communicate(f"{state}\n".encode(), timeout=self.limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._own_problem = f"{self.destination}: its process did not end within {self.limit:g} s"
        return self.problem()


def _record_path(folder: RunDir, destination: str) -> Path:
    return folder.path / FOLDER / f"{destination}.json"
