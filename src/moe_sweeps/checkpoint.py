"""Checkpoints: atomic, checksummed, the last k; a damaged one falls back to the one before.

A checkpoint is two files. `step-00000250.pt` holds the state, written first; `step-00000250.json` holds its size and
SHA-256, and exists only once the first is complete. Loading unpickles nothing but tensors and plain containers.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from moe_sweeps.errors import RunFolderError
from moe_sweeps.files import read_json, require_space, write_atomic, write_json

# Bytes that a checkpoint leaves free, so that status and metrics can still be written.
ROOM_FOR_LOGS = 1 << 20

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` updates and drop all but the last `keep` checkpoints.

        Raises:
            DiskFull: there is no space for it; earlier checkpoints are untouched and nothing of this one is left.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        require_space(self.folder, len(content) + ROOM_FOR_LOGS)
        write_atomic(self._state_file(step), content, durable=True)
        stamp = {"step": step, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        write_json(self._stamp_file(step), stamp, durable=True)
        complete = self.steps()
        for old in complete[: -self.keep]:
            self._remove(old)
        for file in self.folder.glob("step-*.pt"):
            if int(file.stem.removeprefix("step-")) not in complete:
                file.unlink(missing_ok=True)  # its worker was killed before the stamp

    def load_latest(self, map_location: torch.device) -> tuple[int, dict[str, Any]] | None:
        """(step, state) of the newest intact checkpoint, or None. Damaged ones are reported and passed over."""
        for step in reversed(self.steps()):
            try:
                return step, self._load(step, map_location)
            except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
                log.warning("checkpoint of step %d is damaged (%s); trying the one before", step, error)
        return None

    @contextmanager
    def explaining(self, step: int) -> Iterator[None]:
        """Around the use of an intact checkpoint's state: what does not fit is said to come from other code.

        Raises:
            RunFolderError: a key is missing, or something in the state has another shape.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"does not fit: {error}"
            fix = f"Go on with the code that began the run (provenance.json), or delete {self.folder} to start over."
            raise RunFolderError(
                f"{self._state_file(step)} is intact, but was written by other code, and {what}. {fix}"
            ) from error

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, ascending."""
        return sorted(int(p.stem.removeprefix("step-")) for p in self.folder.glob("step-*.json"))

    def _load(self, step: int, map_location: torch.device) -> dict[str, Any]:
        content = self._state_file(step).read_bytes()
        stamp = read_json(self._stamp_file(step))
        if hashlib.sha256(content).hexdigest() != stamp["sha256"]:
            raise ValueError(f"{len(content)} bytes do not have the recorded checksum of {stamp['bytes']} bytes")
        state = torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
        assert isinstance(state, dict)
        return state

    def _remove(self, step: int) -> None:
        # The stamp first: without it the checkpoint does not exist, whatever happens next.
        self._stamp_file(step).unlink(missing_ok=True)
        self._state_file(step).unlink(missing_ok=True)

    def _state_file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"

    def _stamp_file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.json"
