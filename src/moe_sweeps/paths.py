"""Where the repository's own folders are."""

from __future__ import annotations

import os
from pathlib import Path

from moe_sweeps.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"
SWEEPS = REPOSITORY / "sweeps"
# Set for workers that import a snapshot of the sources: there relative folders start, not at the snapshot.
HOME_VARIABLE = "MOE_SWEEPS_HOME"


def home() -> Path:
    """Where relative folders start: the repository, also for a worker that imports a snapshot of it."""
    return Path(os.environ.get(HOME_VARIABLE) or REPOSITORY)


def resolve(folder: str) -> Path:
    """A configured folder as an absolute path; relative ones start at the repository root."""
    if not folder:
        fix = "Unset MOE_SWEEPS_RUNS, MOE_SWEEPS_DATA or MOE_SWEEPS_REPORTS, or give it a value."
        raise ConfigError("paths", folder, "an empty name is not a folder", fix)
    path = Path(folder).expanduser()
    return path if path.is_absolute() else home() / path
