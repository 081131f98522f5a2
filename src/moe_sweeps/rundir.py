"""The run folder: everything that a run is, and the only place where its results live.

    config.yaml       the frozen, resolved config that the worker reads
    overrides.yaml    what was asked for on the command line
    identity.json     the canonical form that was hashed, and the identity version
    provenance.json   code, packages, host, data, command
    status.json       state, progress, heartbeat, failure
    metrics.jsonl     one JSON object a line;  routing.jsonl  the same for what the experts do, layer by layer
    routing_samples/  how a fixed sample of validation tokens was routed at each evaluation point
    summary.json      final numbers
    checkpoints/      the last k
    log.txt           what the worker printed;  traceback.txt  why it failed

This module knows files, not experiments: it imports neither torch nor the config schemas.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.errors import RunBusyError, RunFolderError
from moe_sweeps.files import disk_full_is_said, read_json, remove_leftovers, write_atomic, write_json
from moe_sweeps.status import FINISHED, SETTLED, Failure, State, Status

__all__ = ["FINISHED", "SETTLED", "Failure", "MetricsLog", "RunDir", "State", "Status", "failure_signature"]


# Another process that only looks whether a run is in use holds its lock for an instant; a worker waits that out.
PROBE_SECONDS = 1.0
# Space that a training run keeps, so that its end can be recorded on a disk that is full.
RESERVED_BYTES = 32 * 1024
CANCEL_REQUEST = "cancel.json"
# The same language by libyaml, ten times as fast where PyYAML was built with it; a sweep may have a thousand configs.
YAML_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
YAML_DUMPER: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
TRACEBACK_MARK = "--- "  # at the beginning of each traceback in traceback.txt
MOVE_AWAY = "Move the folder away; the run is then trained again."


@dataclass(frozen=True, slots=True)
class RunDir:
    """One run folder."""

    path: Path

    # --- creating and finding -------------------------------------------------------------------------------------

    @classmethod
    def create(cls, root: Path, name: str, run_id: str, *, config: dict[str, Any], overrides: list[str],
               identity: dict[str, Any], provenance: dict[str, Any], total_steps: int) -> RunDir:  # fmt: skip
        """Make the folder of a new run, complete or not at all; an existing one is returned as it is.

        Raises:
            RunFolderError: a folder of this id holds a different identity.
        """
        from filelock import FileLock  # its import takes longer than all that a command like `status` does

        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".creating.lock"):
            existing = cls.find(root, run_id)
            if existing is not None:
                existing.require_identity(identity)
                return existing
            for left_over in root.glob(".*-draft"):  # of a process that was killed; the lock says that none is at work
                shutil.rmtree(left_over)
            draft = cls(root / f".{run_id}.{uuid.uuid4().hex[:8]}-draft")
            draft.checkpoints.mkdir(parents=True)
            draft.write_config(config)
            write_atomic(draft.path / "overrides.yaml", yaml.safe_dump(overrides), durable=True)
            write_json(draft.path / "identity.json", identity, durable=True)
            write_json(draft.path / "provenance.json", provenance, durable=True)
            draft.write_status(Status(total_steps=total_steps))
            return cls(draft.path.rename(root / f"{name}-{run_id}"))

    @classmethod
    def find(cls, root: Path, run_id: str) -> RunDir | None:
        """The folder of a run id under `root`, whatever its name, or None."""
        if not root.is_dir():
            return None
        with os.scandir(root) as entries:  # a glob takes ten times as long, and a sweep may ask a thousand times
            found = sorted(root / entry.name for entry in entries if entry.name.endswith(f"-{run_id}"))
        if len(found) > 1:
            names = ", ".join(p.name for p in found)
            raise RunFolderError(f"{root} has several folders of run {run_id}: {names}. Move all but one away.")
        return cls(found[0]) if found else None

    @classmethod
    def all(cls, root: Path) -> list[RunDir]:
        """Every run folder under `root`, by name."""
        return [cls(p.parent) for p in sorted(root.glob("*/identity.json")) if not p.parent.name.startswith(".")]

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        return self.path.name.rsplit("-", 1)[-1]

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def config(self) -> dict[str, Any]:
        """The frozen config."""
        return dict(yaml.load((self.path / "config.yaml").read_text(), YAML_LOADER))

    def identity(self) -> dict[str, Any]:
        return self._read("identity.json")

    def provenance(self) -> dict[str, Any]:
        return self._read("provenance.json")

    def status(self) -> Status:
        """What status.json says.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        try:
            return Status.from_dict(self._read("status.json"))
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"{self.path / 'status.json'} is not a run's status: {error!r}. {MOVE_AWAY}"
            ) from error

    def checkpoint_step(self) -> int:
        """Step of the newest complete checkpoint; 0 without one."""
        return max((int(p.stem.removeprefix("step-")) for p in self.checkpoints.glob("step-*.json")), default=0)

    def last_traceback(self) -> str | None:
        """The traceback of the last failure, None if there was none."""
        path = self.path / "traceback.txt"
        if not path.exists():
            return None
        return path.read_text(errors="replace").rpartition(TRACEBACK_MARK)[2].partition("\n")[2].strip()

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked for this run to be cancelled, and it is not settled yet."""
        return (self.path / CANCEL_REQUEST).exists()

    def summary(self) -> dict[str, Any] | None:
        """Final numbers, or None before the run has ended."""
        return self._read("summary.json") if (self.path / "summary.json").exists() else None

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return dict(read_json(self.path / name))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name} cannot be read: {error}. {MOVE_AWAY}") from error

    def require_identity(self, identity: dict[str, Any]) -> None:
        """Raise RunFolderError unless this folder holds exactly `identity`."""
        if self.identity() != identity:
            raise RunFolderError(
                f"{self.path} holds another experiment than its run id says. Move it away and try again."
            )

    # --- writing --------------------------------------------------------------------------------------------------

    def write_config(self, config: dict[str, Any]) -> None:
        write_atomic(self.path / "config.yaml", yaml.dump(config, Dumper=YAML_DUMPER, sort_keys=False), durable=True)

    def write_status(self, status: Status, beat: bool = True) -> None:
        """Replace status.json and stamp its heartbeat, unless it is no sign of life (`beat`)."""
        status.heartbeat = time.time() if beat else status.heartbeat
        write_json(self.path / "status.json", asdict(status))

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary, durable=True)

    def update_provenance(self, **changes: Any) -> None:
        write_json(self.path / "provenance.json", self.provenance() | changes)

    def record_failure(self, error: BaseException, who: str = "") -> Failure:
        """Append the traceback to traceback.txt and return the failure for status.json.

        `who` names the process where several train the run.
        """
        text = "".join(traceback.format_exception(error))
        head = f"{TRACEBACK_MARK}{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {socket.gethostname()} pid {os.getpid()} {who}"
        with suppress(OSError), (self.path / "traceback.txt").open("a") as file:  # the disk may be what failed
            file.write(f"{head.rstrip()}\n{text}\n")
        message = f"{who}: {error}" if who else str(error)
        return Failure(type(error).__name__, message, failure_signature(error))

    def request_cancel(self) -> None:
        """Ask whoever trains this run, on whatever host, to save its state and stop; the next heartbeat sees it."""
        by = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        try:
            write_json(self.path / CANCEL_REQUEST, by)
        except FileNotFoundError:  # a worker that starts removed what this was writing, as a leftover
            write_json(self.path / CANCEL_REQUEST, by)

    def drop_cancel_request(self) -> None:
        (self.path / CANCEL_REQUEST).unlink(missing_ok=True)

    def settle_cancel_request(self, status: Status) -> bool:
        """Make a run that nobody trains cancelled if that was asked for. The caller holds the lock."""
        asked = self.cancel_requested
        if asked and status.state not in FINISHED:
            status.state = State.cancelled
            self.write_status(status)
        self.drop_cancel_request()
        return asked

    def remove_leftovers(self) -> None:
        """Remove what killed workers were writing. The caller holds the lock."""
        remove_leftovers(self.path)
        remove_leftovers(self.checkpoints)

    @contextmanager
    def reserved_space(self) -> Iterator[None]:
        """Keep some space until the block ends, so that how it ended can be recorded on a disk that is full."""
        file = self.path / ".reserve"
        write_atomic(file, os.urandom(RESERVED_BYTES))  # random, because some file systems compress
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    @contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[None]:
        """Hold the run. The lock ends with the process that holds it, however that process ends.

        Raises:
            RunBusyError: another worker holds it, and did so for `wait` seconds.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            holder = self.status()
            where = f"process {holder.pid} on {holder.host}" if holder.pid else "another process"
            raise RunBusyError(
                f"{self.path.name} is being trained by {where}; two workers never train one run"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether some worker on this machine holds the run at this moment."""
        try:
            with self.lock():
                return False
        except RunBusyError:
            return True


class MetricsLog:
    """metrics.jsonl or routing.jsonl: appended line by line, cut back when a run goes on from a checkpoint.

    Of the processes that train one run one alone `writes`; the log of the others changes no file.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; it has at least "step" and "split"."""
        if not self.writes:
            return
        line = json.dumps(record, allow_nan=False) + "\n"
        with disk_full_is_said(self.path, len(line)), self.path.open("a") as file:
            file.write(line)

    def sync(self) -> None:
        """Wait until what was appended is on disk."""
        if self.writes and self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def truncate_after(self, step: int) -> None:
        """Drop records of later steps, and a line that a crash cut short."""
        self._keep([line for line, record in self._lines() if record["step"] <= step])

    def drop(self, step: int | None, split: str) -> None:
        """Drop the records of one step (None: of all) and split, which are about to be written again."""
        self._keep([line for line, r in self._lines() if r["split"] != split or step not in (None, r["step"])])

    def records(self) -> list[dict[str, Any]]:
        """All complete records in order."""
        return [record for _, record in self._lines()]

    def _keep(self, lines: list[str]) -> None:
        if self.writes:
            write_atomic(self.path, "".join(lines), durable=True)

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if not self.path.exists():
            return
        with self.path.open() as file:
            for line in file:
                try:
                    yield line, json.loads(line)
                except ValueError:
                    if line.endswith("\n"):
                        raise RunFolderError(f"{self.path} has a line that is not JSON: {line[:80]!r}") from None


def failure_signature(error: BaseException) -> str:
    """Where and what, without the values: equal for runs that fail for the same reason."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}moe_sweeps{os.sep}" in f.filename] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "unknown"
    return f"{type(error).__name__} in {place}"
