"""What was submitted: one JSON file an array, written before sbatch is called and completed after it has answered.

A submission that dies in between leaves a record without a job number; SLURM is then asked for a job of that name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moe_sweeps.files import read_json, write_json

PREFIX = "moe"


@dataclass(slots=True)
class Record:
    """One array: `jobs[i]` are the names of the run folders that array task i trains."""

    path: Path
    runs_root: str
    jobs: list[list[str]]
    resources: dict[str, int]
    code: str  # the folder whose sources the jobs import
    created: float
    job_id: str | None = None

    @classmethod
    def new(cls, folder: Path, runs_root: Path, jobs: list[list[str]], resources: dict[str, int], code: Path) -> Record:
        """A record with a name that no other has, in any sweep; it is also the job's name in SLURM."""
        path = folder / f"{PREFIX}-{uuid.uuid4().hex[:12]}.json"
        return cls(path, str(runs_root), jobs, resources, str(code), time.time())

    @classmethod
    def read(cls, path: Path) -> Record:
        """Raises OSError or ValueError where there is no such record."""
        content: dict[str, Any] = read_json(path)
        return cls(path=path, **content)

    def write(self) -> None:
        content = asdict(self)
        del content["path"]
        write_json(self.path, content, durable=True)

    @property
    def name(self) -> str:
        return self.path.stem

    def task_of(self, run: str) -> str | None:
        """SLURM's name of the array task that trains the run in folder `run`: 123_4."""
        return next((f"{self.job_id}_{i}" for i, runs in enumerate(self.jobs) if run in runs), None)


def all_records(runs_root: Path) -> Iterator[Record]:
    """Every record below a runs folder, oldest first."""
    found = [Record.read(p) for p in runs_root.glob(f"sweeps/*/slurm/{PREFIX}-*.json")]
    yield from sorted(found, key=lambda r: r.created)
