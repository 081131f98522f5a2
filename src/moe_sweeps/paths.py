"""Where the repository's own folders are."""

from __future__ import annotations

from pathlib import Path

from moe_sweeps.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"
SWEEPS = REPOSITORY / "sweeps"


def resolve(folder: str) -> Path:
    """A configured folder as an absolute path; relative ones start at the repository root."""
    if not folder:
        raise ConfigError("paths", folder, "an empty name is not a folder", "Unset MOE_SWEEPS_RUNS or give it a value.")
    path = Path(folder).expanduser()
    return path if path.is_absolute() else REPOSITORY / path
