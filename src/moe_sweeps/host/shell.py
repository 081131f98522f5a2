"""Commands as a person pastes them into a shell: every command that is printed is spelt here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable

from moe_sweeps.paths import TRAIN

PROGRAM = "moe-sweeps"


def command(*words: object) -> str:
    """`words` as one line that a shell splits into the same words again.

    Characters that no terminal shows are spelt with `$'...'`, which bash, zsh and ksh read: pasted as they are, the
    shell would take a line break for the end of the command.
    """
    return " ".join(quoted(str(word)) for word in words)


def tool_command(*words: object) -> str:
    """A line of `moe-sweeps`."""
    return command(PROGRAM, *words)


def pip_command(*words: object) -> str:
    """What installs `words` for the Python that runs this, wherever it lies."""
    return command(sys.executable, "-m", "pip", "install", *words)


def train_command(settings: Iterable[object], *, several: bool = False) -> str:
    """The line that trains what `settings` (key=value) mean; `several`: as a sweep, with -m."""
    return command(*TRAIN.split(), *(["-m"] if several else []), *settings)


def quoted(word: str) -> str:
    """One word of a command."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_spelt, word)) + "'"


def _spelt(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape"))
