"""Checkpoints: written atomically, with checksums, of which the last k are kept. Damaged ones are skipped.

A checkpoint is two files. `step-00000250.pt` holds the state and is written first. `step-00000250.json` holds its size
and SHA-256, and exists only once the first is complete. Loading unpickles nothing but tensors and plain containers.

Neither saving nor loading needs memory for a second copy of the state. It is written and hashed tensor by tensor. What
is loaded stays in the file, mapped into memory, until it is copied to its place.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.files import require_space, write_json, written_atomically
from moe_sweeps.host.reading import opened, read_json
from moe_sweeps.optim.tensors import storage_bytes
from moe_sweeps.records.recovery import checkpoint_steps

CHECKPOINT_BYTES = 1 << 44
# Bytes that must be left after a checkpoint, so that status and metrics can still be written.
ROOM_FOR_LOGS = 1 << 20

log = logging.getLogger(__name__)


class HashingWriter:
    """A file for torch.save that hashes and counts what it passes on to `file`. torch.save writes front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.count = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> int:
        """Write and hash `data`; returns its number of bytes."""
        self._file.write(data)
        self.digest.update(data)
        size = memoryview(data).nbytes
        self.count += size
        return size

    def flush(self) -> None:
        self._file.flush()


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` updates, then delete all but the last `keep` checkpoints.

        Raises:
            DiskFull: there is no space for it. Earlier checkpoints are untouched, and nothing of this one is left.
        """
        needed = storage_bytes(state)
        require_space(self.folder, needed + ROOM_FOR_LOGS)
        with written_atomically(self._state_file(step), needed, durable=True) as file:
            hashing = HashingWriter(file)
            torch.save(state, cast(BinaryIO, hashing))
        stamp = {"step": step, "bytes": hashing.count, "sha256": hashing.digest.hexdigest()}
        write_json(self._stamp_file(step), stamp, durable=True)
        complete = self.steps()
        for old in complete[: -self.keep]:
            self._remove(old)
        for left_over in self.folder.glob("step-*.pt"):
            step_of = left_over.stem.removeprefix("step-")  # files that a person put there stay
            if step_of.isdecimal() and int(step_of) not in complete:
                left_over.unlink(missing_ok=True)  # its worker was killed before the stamp

    def load_latest(self, map_location: torch.device) -> tuple[int, dict[str, Any]] | None:
        """(step, state) of the newest intact checkpoint, or None. Damaged ones are logged and skipped.

        Tensors on the CPU stay in the file, so the caller must copy those that it keeps.
        """
        for step in reversed(self.steps()):
            try:
                return step, self._load(step, map_location)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
                log.warning("checkpoint of step %d is damaged (%s); trying the one before", step, error)
        return None

    def load(self, step: int, map_location: torch.device) -> dict[str, Any]:
        """The state after `step` updates.

        Raises:
            OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError: it is missing or damaged.
        """
        return self._load(step, map_location)

    def is_intact(self, step: int) -> bool:
        """Whether there is a checkpoint of this step with the checksum that it was written with."""
        try:
            self._require_checksum(step)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def stamp(self, step: int) -> dict[str, Any]:
        """What was recorded of a checkpoint when it was complete: step, bytes, sha256."""
        found = read_json(self._stamp_file(step))
        assert isinstance(found, dict)
        return found

    @contextmanager
    def explaining(self, step: int) -> Iterator[None]:
        """Around the use of an intact checkpoint's state: what does not fit was written by other code.

        Raises:
            RunFolderError: a key is missing, or something in the state has another shape.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"does not fit: {error}"
            fix = f"Resume with the code that started the run (provenance.json), or delete {self.folder} to start over."
            raise RunFolderError(
                f"{self._state_file(step)} is intact, but was written by other code, and {what}. {fix}"
            ) from error

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, ascending."""
        return checkpoint_steps(self.folder)

    def _load(self, step: int, map_location: torch.device) -> dict[str, Any]:
        self._require_checksum(step)
        state = torch.load(self._state_file(step), map_location=map_location, weights_only=True, mmap=True)
        assert isinstance(state, dict)
        return state

    def _require_checksum(self, step: int) -> None:
        path, stamp = self._state_file(step), read_json(self._stamp_file(step))
        with opened(path, CHECKPOINT_BYTES) as file:
            digest = hashlib.file_digest(cast(BufferedReader, file), "sha256")
            if digest.hexdigest() != stamp["sha256"]:  # read in blocks
                raise ValueError(f"{file.tell()} bytes do not have the recorded checksum of {stamp['bytes']} bytes")

    def _remove(self, step: int) -> None:
        # The stamp first: without it the checkpoint does not exist, whatever happens next.
        self._stamp_file(step).unlink(missing_ok=True)
        self._state_file(step).unlink(missing_ok=True)

    def _state_file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"

    def _stamp_file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.json"


def has_intact_checkpoint(folder: Path) -> bool:
    """Whether a run can resume from a checkpoint in `folder`."""
    found = Checkpoints(folder, 1)
    return any(found.is_intact(step) for step in reversed(found.steps()))
