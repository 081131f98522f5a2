"""Where the folders that come with the code are (conf/, sweeps/, ...), and where relative folders start.

In a clone, conf/, sweeps/, tables/ and reference/ lie beside src/. A package that was installed without -e carries
copies of them (setup.py), and has no repository.
"""

from __future__ import annotations

import os
from pathlib import Path

from moe_sweeps.errors import ConfigError, MoeSweepsError

PACKAGE = Path(__file__).resolve().parent
SOURCES = PACKAGE.parent  # what Python imports this package from
SHIPPED = PACKAGE / "shipped"
INSTALLED = SHIPPED.is_dir() or SOURCES.name != "src"
REPOSITORY = SOURCES if INSTALLED else SOURCES.parent
GIVEN = SHIPPED if INSTALLED else REPOSITORY
CONF = GIVEN / "conf"
SWEEPS = GIVEN / "sweeps"
TABLES = GIVEN / "tables"
REFERENCE = GIVEN / "reference"
# What trains a run, as messages say it: an installed package has no train.py.
TRAIN = "moe-sweeps train" if INSTALLED else "python train.py"
# Set for workers that import a snapshot of the sources: there relative folders start, not at the snapshot.
HOME_VARIABLE = "MOE_SWEEPS_HOME"
INSTALL_AGAIN = "Install again, in a clone of the repository: python -m pip install --force-reinstall --no-deps ."


def home() -> Path:
    """Where relative folders start, also for a worker that imports a snapshot.

    That is the repository; the working directory where the package is installed without one.
    """
    return Path(os.environ.get(HOME_VARIABLE) or (Path.cwd() if INSTALLED else REPOSITORY))


def resolve(folder: str) -> Path:
    """A configured folder as an absolute path; relative ones start at `home()`."""
    if not folder:
        fix = "Unset MOE_SWEEPS_RUNS, MOE_SWEEPS_DATA or MOE_SWEEPS_REPORTS, or give it a value."
        raise ConfigError("paths", folder, "an empty name is not a folder", fix)
    try:
        path = Path(folder).expanduser()
    except RuntimeError as error:  # ~name of a user who does not exist
        raise ConfigError("paths", folder, str(error).rstrip("."), "Write the folder in full.") from error
    return path if path.is_absolute() else home() / path


def sources_of(code: Path) -> Path:
    """The folder that Python imports from, for `code`: this repository or package, or a snapshot."""
    return SOURCES if code == REPOSITORY else code / "src"


def missing_folders() -> list[str]:
    """The given folders that are missing."""
    return [folder.name for folder in (CONF, SWEEPS, TABLES) if not folder.is_dir()]


def require_given_folders() -> None:
    """Refuse every command where conf/, sweeps/ or tables/ is missing: nothing can be composed without them.

    Raises:
        MoeSweepsError: one is missing.
    """
    if missing := missing_folders():
        names = " and ".join(f"{name}/" for name in missing)
        raise MoeSweepsError(f"{names} should be in {GIVEN}, and cannot be found. {INSTALL_AGAIN}")
