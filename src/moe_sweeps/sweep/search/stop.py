"""A request to start no further run of a search, from any shell: a file beside the manifest."""

from __future__ import annotations

import time
from pathlib import Path

from moe_sweeps.host.files import write_json

STOP = "stop.json"


def request_stop(sweep_folder: Path) -> None:
    """Ask the process that drives this search to start no further run."""
    write_json(sweep_folder / STOP, {"time": time.time()}, durable=True)


def stop_requested(sweep_folder: Path) -> bool:
    """Whether somebody has asked the search to stop."""
    return (sweep_folder / STOP).exists()


def drop_stop_request(sweep_folder: Path) -> None:
    """Remove the request: the search was started again."""
    (sweep_folder / STOP).unlink(missing_ok=True)
