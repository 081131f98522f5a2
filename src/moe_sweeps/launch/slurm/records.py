"""What was submitted: one JSON file an array, written before sbatch is called and completed after it has answered.

A submission that dies in between leaves a record without a job number; the job is then found in the queue by its name.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moe_sweeps.errors import LaunchError
from moe_sweeps.host.files import write_json
from moe_sweeps.host.reading import MANIFEST_BYTES, is_name, read_json

PREFIX = "moe"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
JOB_ID = re.compile(r"[0-9]+")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class ArrayRecord:
    """One array: `jobs[i]` are the names of the run folders that array task i trains.

    `after`: the folder of the trunk that its runs continue from, where that was not trained yet.
    """

    path: Path
    runs_root: str
    jobs: list[list[str]]
    resources: dict[str, int]
    code: str  # the folder whose sources the jobs import
    created: float
    job_id: str | None = None
    after: str | None = None

    @classmethod
    def new(
        cls,
        folder: Path,
        runs_root: Path,
        jobs: list[list[str]],
        resources: dict[str, int],
        code: Path,
        after: str | None = None,
    ) -> ArrayRecord:
        """A record with a name that no other has, in any sweep; it is also the job's name in SLURM."""
        path = folder / f"{PREFIX}-{uuid.uuid4().hex[:12]}.json"
        return cls(path, str(runs_root), jobs, resources, str(code), time.time(), after=after)

    @classmethod
    def read(cls, path: Path) -> ArrayRecord:
        """Raises OSError, ValueError, TypeError or KeyError where there is no such record."""
        content: dict[str, Any] = read_json(path, MANIFEST_BYTES)
        if not isinstance(content["jobs"], list) or not isinstance(content["created"], int | float):
            raise ValueError("jobs or created have unexpected content")
        record = cls(path=path, **content)
        record._require_names()
        return record

    def _require_names(self) -> None:
        """Refuse a record that names runs outside the runs folder in which it lies: its job would train there."""
        if not all(isinstance(text, str) for text in (self.runs_root, self.code)):
            raise ValueError("runs_root and code must be texts")
        if Path(self.runs_root).resolve() != self.path.resolve().parents[3]:
            raise ValueError(f"it names runs in {self.runs_root}, and lies in another runs folder")
        if not all(isinstance(runs, list) and all(map(is_name, runs)) for runs in self.jobs):
            raise ValueError("jobs has an entry that is no name of a run folder")
        if self.after is not None and not (isinstance(self.after, str) and is_name(self.after)):
            raise ValueError("after is no name of a run folder")
        if self.job_id is not None and not (isinstance(self.job_id, str) and JOB_ID.fullmatch(self.job_id)):
            raise ValueError(f"{self.job_id!r} is no number of a job")

    def require_owner(self) -> None:
        """Refuse a record that somebody other than this user or root may have written: the job does what it says.

        Raises:
            LaunchError: its owner or its permissions are wrong.
        """
        found = self.path.stat()
        if found.st_uid not in (os.geteuid(), 0):
            raise LaunchError(f"{self.path} belongs to user {found.st_uid}, so this job refuses to follow it")
        if found.st_mode & OTHERS_WRITE:
            raise LaunchError(f"others can write to {self.path}, so this job refuses to follow it (chmod go-w)")

    def write(self) -> None:
        """Write the record to `path`, readable by all and writable by this user alone."""
        content = asdict(self)
        del content["path"]
        write_json(self.path, content, durable=True)
        self.path.chmod(self.path.stat().st_mode & ~OTHERS_WRITE & 0o777)

    @property
    def name(self) -> str:
        """The job's name in SLURM."""
        return self.path.stem

    def task_names(self) -> list[str]:
        """SLURM's names of its array tasks, 123_4; none before its number is known."""
        return [] if self.job_id is None else [f"{self.job_id}_{index}" for index in range(len(self.jobs))]

    def log_of(self, task: str) -> Path:
        """The file with what SLURM and the first rank of array task 123_4 printed; the script for a job that never
        began."""
        printed = (self.path.parent / f"{task}_0_log.{end}" for end in ("err", "out"))
        return next((p for p in printed if p.exists() and p.stat().st_size), self.path.with_suffix(".sh"))

    def task_of(self, run: str) -> str | None:
        """SLURM's name of the array task that trains the run in folder `run`: 123_4."""
        return next((f"{self.job_id}_{i}" for i, runs in enumerate(self.jobs) if run in runs), None)


def record_paths(runs_root: Path) -> list[Path]:
    """The files of all records below a runs folder."""
    return sorted(runs_root.glob(f"sweeps/*/slurm/{PREFIX}-*.json"))


def all_records(runs_root: Path) -> Iterator[ArrayRecord]:
    """Every record below a runs folder, oldest first. One that cannot be read is reported and skipped; if its jobs
    still wait, they will find their runs done, or trained by others."""
    found = []
    for path in record_paths(runs_root):
        try:
            found.append(ArrayRecord.read(path))
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s cannot be read (%s); if squeue knows a job %s, scancel it", path, error, path.stem)
    yield from sorted(found, key=lambda r: r.created)
