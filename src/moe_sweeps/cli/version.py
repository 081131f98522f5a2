"""`--version`: which version, and where its sources lie. Imports nothing heavy, so that it answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moe_sweeps import __version__

OPTION = "--version"
HELP = "print the version and the folder that the sources are in"


def version_line() -> str:
    """`moe_sweeps 0.1.0 from /home/me/moe_sweeps/src/moe_sweeps`: of two clones that share an environment, the one."""
    return f"moe_sweeps {__version__} from {Path(__file__).resolve().parents[1]}"


def print_version(words: Sequence[str]) -> bool:
    """Print the version if it is all that `words` of the command line ask for. Returns whether it was."""
    asked = list(words) == [OPTION]
    if asked:
        from moe_sweeps.host.consoles import say

        say(version_line())
    return asked
