"""Where the repository's own folders are."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"
SWEEPS = REPOSITORY / "sweeps"


def resolve(folder: str) -> Path:
    """A configured folder as an absolute path; relative ones start at the repository root."""
    path = Path(folder).expanduser()
    return path if path.is_absolute() else REPOSITORY / path
