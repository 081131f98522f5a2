"""A request to begin nothing further, from whatever shell: a file beside the manifest."""

from __future__ import annotations

import time
from pathlib import Path

from moe_sweeps.files import write_json

STOP = "stop.json"


def request_stop(sweep_folder: Path) -> None:
    """Ask whoever drives this search to begin nothing further."""
    write_json(sweep_folder / STOP, {"time": time.time()})


def stop_requested(sweep_folder: Path) -> bool:
    return (sweep_folder / STOP).exists()


def drop_stop_request(sweep_folder: Path) -> None:
    (sweep_folder / STOP).unlink(missing_ok=True)
