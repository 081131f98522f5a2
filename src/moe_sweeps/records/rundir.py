"""The run folder: everything that is stored of a run, and the only place where its results live.

    config.yaml       the frozen, resolved config that the worker reads
    overrides.yaml    what was asked for on the command line
    identity.json     the canonical form that was hashed, and the identity version
    provenance.json   code, packages, host, data, command
    status.json       state, progress, heartbeat, failure
    metrics.jsonl     one JSON object a line;  routing.jsonl  the same for what the experts do, layer by layer
    routing_samples/  how a fixed sample of validation tokens was routed at each evaluation point
    summary.json      final numbers
    checkpoints/      the last k
    superseded/       older results, each with all of the above (sweep/again.py)
    log.txt           what the worker printed;  traceback.txt  why it failed

This module knows files, not experiments: it imports neither torch nor the config schemas.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.errors import LockRefused, NotWritable, RunBusyError, RunFolderError
from moe_sweeps.host.files import (
    exists,
    make_folder,
    remove_leftovers,
    share,
    sync_folder,
    write_atomic,
    write_json,
)
from moe_sweeps.host.locks import Busy, locked
from moe_sweeps.host.reading import LOG_BYTES, appending, why_not_read
from moe_sweeps.records import failures
from moe_sweeps.records.failures import failure_signature
from moe_sweeps.records.metrics_log import MetricsLog
from moe_sweeps.records.recovery import checkpoint_steps, final_numbers, rebuilt_status, unknown_provenance
from moe_sweeps.records.small_files import (
    DamagedFile,
    closed,
    free_place,
    misplaced,
    read_config,
    read_object,
    write_config,
)
from moe_sweeps.records.status import FINISHED, SETTLED, Failure, State, Status

__all__ = [
    "FINISHED",
    "SETTLED",
    "DamagedFile",
    "Failure",
    "MetricsLog",
    "RunDir",
    "State",
    "Status",
    "failure_signature",
]


# A process that only checks whether a run is in use holds its lock for an instant. A worker waits that long.
PROBE_SECONDS = 1.0
# Space that a training run reserves, so that its end can be recorded even when the disk is full.
RESERVED_BYTES = 32 * 1024
CANCEL_REQUEST = "cancel.json"
NAME = re.compile(r".+-[0-9a-f]{12}")  # of a run folder


@dataclass(frozen=True, slots=True)
class RunDir:
    """One run folder."""

    path: Path

    # --- creating and finding -------------------------------------------------------------------------------------

    @classmethod
    def create(cls, root: Path, name: str, run_id: str, *, config: dict[str, Any], overrides: list[str],
               identity: dict[str, Any], provenance: dict[str, Any], total_steps: int) -> RunDir:  # fmt: skip
        """Make the folder of a new run, complete or not at all; return an existing one unchanged.

        The folder is renamed into place once all of it is on disk, so a power cut leaves all of it or nothing.

        Raises:
            RunFolderError: a folder of this id holds a different identity.
        """
        existing = cls._existing(root, run_id, identity)  # before any lock, so that a user who may only read finds it
        if existing is not None:
            return existing
        make_folder(root)
        with locked(root / ".creating.lock", wait=None):
            existing = cls._existing(root, run_id, identity)
            if existing is not None:
                return existing
            for left_over in root.glob(".*-draft"):  # of killed processes: under the lock no other is at work
                shutil.rmtree(left_over, ignore_errors=True)  # another user's stays
            draft = cls(root / f".{run_id}.{uuid.uuid4().hex[:8]}-draft")
            make_folder(draft.checkpoints)
            draft.write_config(config, durable=False)
            write_atomic(draft.path / "overrides.yaml", yaml.safe_dump(overrides), whole=True)
            write_json(draft.path / "identity.json", identity, whole=True)
            write_json(draft.path / "provenance.json", provenance, whole=True)
            draft.write_status(Status(total_steps=total_steps))
            sync_folder(draft.path)
            folder = cls(draft.path.rename(root / f"{name}-{run_id}"))
            sync_folder(root)
            return folder

    @classmethod
    def _existing(cls, root: Path, run_id: str, identity: dict[str, Any]) -> RunDir | None:
        existing = cls.find(root, run_id)
        if existing is not None:
            existing.require_identity(identity)
        return existing

    @classmethod
    def find(cls, root: Path, run_id: str) -> RunDir | None:
        """The folder of a run id under `root`, whatever its name, or None."""
        if not root.is_dir():
            return None
        with os.scandir(root) as entries:  # a glob takes ten times as long, and a sweep asks a thousand times
            found = sorted(root / entry.name for entry in entries if entry.name.endswith(f"-{run_id}"))
        if len(found) > 1:
            names = ", ".join(p.name for p in found)
            raise RunFolderError(f"{root} has several folders of run {run_id}: {names}. Move all but one away.")
        return cls(found[0]) if found else None

    @classmethod
    def all(cls, root: Path) -> list[RunDir]:
        """Every folder under `root` that is or looks like a run folder, by name. Hidden ones are drafts."""
        if not root.is_dir():
            return []
        with os.scandir(root) as entries:
            named = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        # The name is enough for most; only the others are opened.
        return [
            cls(root / name)
            for name in named
            if (NAME.fullmatch(name) and (root / name).is_dir()) or exists(root / name / "identity.json")
        ]

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The twelve hexadecimal digits at the end of its name."""
        return self.path.name.rsplit("-", 1)[-1]

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """What the worker prints."""
        return self.path / "log.txt"

    def make_log(self) -> Path:
        """Create log.txt if nothing lies there, as open to a group as the folder is, and return its path.

        What lies there in place of a file is left alone: `require_log` refuses it, `host.output.log_to` does not
        follow it.
        """
        if not os.path.lexists(self.log):
            with suppress(OSError, ValueError), appending(self.log):  # without a log the run is trained all the same
                share(self.log)
        return self.log

    def require_log(self) -> None:
        """Raise DamagedFile for a link, a folder, a FIFO or a device in the place of log.txt."""
        if reason := why_not_read(str(self.path), self.log.name, LOG_BYTES):
            raise DamagedFile(self.log, reason)

    def config(self) -> dict[str, Any]:
        """The frozen config.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        return read_config(self.path / "config.yaml")

    def settings(self, group: str) -> dict[str, Any]:
        """One group of the frozen config; empty where it has none.

        Raises:
            RunFolderError: the config is missing or damaged.
        """
        return dict(self.config().get(group, {}))

    def trunk_id(self) -> str | None:
        """The id of the run that this one continues from; None for a run that is no fork.

        Raises:
            DamagedFile: config.yaml cannot be read.
        """
        fork = self.config().get("fork")
        if not isinstance(fork, dict) or fork.get("step") is None or fork.get("role") != "arm":
            return None
        return str(fork["run"]) if fork.get("run") else None

    def misplaced(self) -> str | None:
        """What is here in the place of a file of a run, or that the folder is a link; None if all is well."""
        return misplaced(self.path)

    def identity(self) -> dict[str, Any]:
        """identity.json: the canonical form that was hashed, run id, arm, version of the scheme.

        Raises:
            DamagedFile: it is missing or damaged.
        """
        found = self.read("identity.json")
        if not isinstance(found.get("canonical", {}), dict) or not isinstance(found.get("run_id", ""), str):
            raise DamagedFile(self.path / "identity.json", "identity.json has unexpected content")
        return found

    def has_sound(self, name: str) -> bool:
        """Whether the JSON file `name` can be read and holds a non-empty object."""
        try:
            return bool(self.read(name))
        except DamagedFile:
            return False

    def provenance(self) -> dict[str, Any]:
        """The content of provenance.json; where it was lost, one whose versions of code and data are unknown."""
        try:
            found = self.read("provenance.json")
        except DamagedFile as error:
            return unknown_provenance(error.reason)
        is_record = "source_hash" in found and _is_list_of_objects(found.get("attempts", []))
        groups = ("git", "packages", "pairing")
        found = {k: v for k, v in found.items() if k not in groups or isinstance(v, dict | None)}
        return found if is_record else found | unknown_provenance("provenance.json has unexpected content")

    def status(self) -> Status:
        """The content of status.json; where it is missing or damaged, rebuilt from the other files (`rebuilt`).

        Raises:
            RunFolderError: the folder is gone, or this user may not read it.
        """
        self.require_no_link()
        try:
            return Status.from_dict(self.read("status.json"))
        except DamagedFile as error:
            problem = error.reason
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problem = f"status.json has unexpected content ({' '.join(str(error).split())[:200]})"
        try:
            return rebuilt_status(self.path, problem)
        except OSError as error:
            raise closed(self.path, error) from error

    def require_no_link(self) -> None:
        """Raise DamagedFile if the folder is a link, since a link may lead anywhere."""
        if self.path.is_symlink():
            raise DamagedFile(self.path, "it is a link, and links are not followed")

    def trusted_status(self) -> Status:
        """The same, but a run without its final numbers is not called done: it resumes."""
        status = self.status()
        if status.state is State.done and final_numbers(self.path) is None:
            problem = "status.json says done, but summary.json is missing or damaged"
            found = rebuilt_status(self.path, problem)
            status.state, status.rebuilt, status.step = found.state, problem, found.step
        return status

    def checkpoint_step(self) -> int:
        """Step of the newest complete checkpoint; 0 without one."""
        return max(checkpoint_steps(self.checkpoints), default=0)

    def last_traceback(self) -> str | None:
        """The traceback of the last failure, None if there was none."""
        return failures.last_traceback(self.path / "traceback.txt")

    @property
    def cancel_requested(self) -> bool:
        """Whether a request to cancel this run is pending."""
        return (self.path / CANCEL_REQUEST).exists()

    def summary(self) -> dict[str, Any] | None:
        """Final numbers, or None before the run has ended."""
        return self.read("summary.json") if (self.path / "summary.json").exists() else None

    def read(self, name: str) -> dict[str, Any]:
        """The object in the JSON file `name`.

        Raises:
            DamagedFile: it is missing, truncated, or no object.
            RunFolderError: this user may not read it.
        """
        return read_object(self.path / name)

    def require_identity(self, identity: dict[str, Any]) -> None:
        """Raise RunFolderError unless this folder holds exactly `identity`."""
        if self.identity() != identity:
            raise RunFolderError(
                f"{self.path} holds another experiment than its run id says. Move it away and try again."
            )

    # --- writing --------------------------------------------------------------------------------------------------

    def write_config(self, config: dict[str, Any], durable: bool = True) -> None:
        """Freeze `config`; `durable` waits until it is on disk."""
        write_config(self._place("config.yaml"), config, durable)

    def write_identity(self, identity: dict[str, Any]) -> None:
        """Write identity.json, as it must survive a power loss."""
        write_json(self._place("identity.json"), identity, durable=True)

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        """Write provenance.json, as it must survive a power loss."""
        write_json(self._place("provenance.json"), provenance, durable=True)

    def _place(self, name: str) -> Path:
        return free_place(self.path / name)

    def write_status(self, status: Status, beat: bool = True) -> None:
        """Replace status.json. With `beat` the heartbeat becomes now; without, the writer is not the run's worker."""
        status.heartbeat = time.time() if beat else status.heartbeat
        # Not durable: after a power cut the status of a second before is good enough.
        write_json(self._place("status.json"), asdict(status) | {"rebuilt": None}, whole=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write the final numbers."""
        write_json(self._place("summary.json"), summary, durable=True)

    def update_provenance(self, **changes: Any) -> None:
        """Set single entries of provenance.json."""
        self.write_provenance(self.provenance() | changes)

    def record_failure(self, error: BaseException, who: str = "") -> Failure:
        """Append the traceback to traceback.txt and return the failure for status.json.

        `who` names the process where several train the run.
        """
        return failures.record(self.path / "traceback.txt", error, who)

    def request_cancel(self) -> None:
        """Ask the run's worker, on any host, to save its state and stop. It sees the request at its next heartbeat."""
        by = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        try:
            write_json(self.path / CANCEL_REQUEST, by, durable=True)
        except FileNotFoundError:  # a starting worker removed the temporary file as a leftover
            write_json(self.path / CANCEL_REQUEST, by, durable=True)

    def drop_cancel_request(self) -> None:
        """Take away the request to stop, if there is one."""
        (self.path / CANCEL_REQUEST).unlink(missing_ok=True)

    def settle_cancel_request(self, status: Status) -> bool:
        """Mark the run as cancelled if that was requested; returns whether it was. The caller holds the lock."""
        asked = self.cancel_requested
        if asked and status.state not in FINISHED:
            status.state = State.cancelled
            self.write_status(status)
        self.drop_cancel_request()
        return asked

    def remove_leftovers(self) -> None:
        """Remove temporary files of killed workers. The caller holds the lock."""
        remove_leftovers(self.path)
        remove_leftovers(self.checkpoints)

    @contextmanager
    def reserved_space(self) -> Iterator[None]:
        """Reserve some disk space for the block, so that its end can be recorded when the disk is full."""
        file = self.path / ".reserve"
        write_atomic(file, os.urandom(RESERVED_BYTES))  # random, because some file systems compress
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    @contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[None]:
        """Hold the run's lock. It is released when its process ends, however that happens.

        Raises:
            RunBusyError: another worker still holds it after `wait` seconds.
            LockRefused, NotWritable: no lock can be taken here; the message says what to do.
        """
        try:
            with locked(self.path / ".lock", wait):
                yield
        except Busy as busy:
            where = busy.holder or self._holder()
            raise RunBusyError(
                f"{self.path.name} is being trained by {where}; two workers never train one run"
            ) from None

    def _holder(self) -> str:
        status = self.status()
        return f"process {status.pid} on {status.host}" if status.pid else "another process"

    def is_locked(self) -> bool:
        """Whether a worker on this machine holds the run now."""
        try:
            with self.lock():
                return False
        except RunBusyError:
            return True
        except (LockRefused, NotWritable):  # locks do not work here, so the heartbeat decides
            return False


def _is_list_of_objects(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(one, dict) for one in content)
