"""Notes and tags that people put on runs and sweeps: notes.json in the folder of the run or the sweep.

They are no part of a result. What somebody wrote is data: it is kept as typed and escaped wherever it is shown.
"""

from __future__ import annotations

import dataclasses
import getpass
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.host.files import write_json
from moe_sweeps.host.locks import Busy, locked
from moe_sweeps.host.reading import read_json

FILE, LOCK = "notes.json", ".notes.lock"
VERSION = 1
WAIT_SECONDS = 10.0  # for another writer, who needs milliseconds
MOST_CHARACTERS, MOST_NOTES, MOST_TAGS = 2000, 200, 50
MOST_BYTES = 8 << 20  # of the file: twelve bytes a character, since JSON escapes
_TAG = re.compile(r"[^\W_][\w.+-]{0,39}")
_WRONG = (KeyError, TypeError, AttributeError, ValueError)


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody wrote, when (ISO 8601) and who."""

    text: str
    time: str
    by: str


@dataclass(frozen=True, slots=True)
class Remarks:
    """The notes, oldest first, and the tags of a run or sweep. `problem`: why notes.json cannot be read."""

    notes: tuple[Note, ...] = ()
    tags: tuple[str, ...] = ()
    problem: str | None = None

    def __bool__(self) -> bool:
        return bool(self.notes or self.tags or self.problem)

    @property
    def line(self) -> str:
        """All of it in one line: tags with a #, then the notes."""
        problem = [f"notes.json cannot be read: {self.problem}"] if self.problem else []
        return " ".join([*(f"#{tag}" for tag in self.tags), "; ".join([*(note.text for note in self.notes), *problem])]
                        ).strip()  # fmt: skip

    def with_note(self, text: str) -> Remarks:
        """With a further note.

        Raises:
            ConfigError: it is empty, or too long, or one too many.
        """
        text = text.encode(errors="replace").decode().strip()  # a byte that is no UTF-8 is no text of a JSON file
        if not text:
            raise ConfigError("note", text, "a note says something", "Write it after the run: moe-sweeps note RUN TEXT")
        if len(text) > MOST_CHARACTERS:
            rule = f"it has {len(text):,} characters, and a note has at most {MOST_CHARACTERS:,}"
            raise ConfigError("note", text, rule, "Put it into a file, and its name into the note.")
        if len(self.notes) >= MOST_NOTES:
            rule = f"there are {len(self.notes)} notes, and {MOST_NOTES} is the most"
            raise ConfigError("note", text, rule, "Remove one: moe-sweeps note RUN --remove 1")
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return dataclasses.replace(self, notes=(*self.notes, Note(text, now, _user())))

    def without_note(self, number: int) -> Remarks:
        """Without the `number`-th note, from 1.

        Raises:
            ConfigError: there is no such note.
        """
        if not 1 <= number <= len(self.notes):
            rule = f"there are {len(self.notes)} notes, counted from 1"
            raise ConfigError("--remove", number, rule, "`moe-sweeps note RUN` lists them with their numbers.")
        return dataclasses.replace(self, notes=self.notes[: number - 1] + self.notes[number:])

    def with_tag(self, tag: str) -> Remarks:
        """With a further tag.

        Raises:
            ConfigError: it is no tag.
        """
        rule = (
            f"a tag is one word of letters, digits, _ . + -, of at most 40 characters, and at most {MOST_TAGS} on one"
        )
        if not _TAG.fullmatch(tag) or (tag not in self.tags and len(self.tags) >= MOST_TAGS):
            raise ConfigError("--tag", tag, rule, "Write --tag best; a sentence is a note.")
        return dataclasses.replace(self, tags=tuple(dict.fromkeys([*self.tags, tag])))

    def without_tag(self, tag: str) -> Remarks:
        """Without a tag that is there.

        Raises:
            ConfigError: it is not.
        """
        if tag not in self.tags:
            there = ", ".join(self.tags) or "none"
            raise ConfigError("--untag", tag, f"the tags are: {there}", "Name one of these.")
        return dataclasses.replace(self, tags=tuple(other for other in self.tags if other != tag))


def remarks_of(folder: Path) -> Remarks:
    """The remarks on a run or sweep; where they cannot be read, the reason in their place."""
    try:
        return _read(folder)
    except FileNotFoundError:
        return Remarks()
    except (OSError, ValueError) as error:
        return Remarks(problem=" ".join(str(error).split())[:200])


def change_remarks(folder: Path, change: Callable[[Remarks], Remarks]) -> Remarks:
    """Replace the remarks by what `change` makes of them, one writer at a time; returns them.

    Raises:
        MoeSweepsError: others hold the file, or what is there cannot be read, which is then left as it is.
        ConfigError: the change is refused.
    """
    try:
        with locked(folder / LOCK, wait=WAIT_SECONDS):
            before = remarks_of(folder)
            if before.problem:
                fix = "Repair it, or move it away and write the note again."
                raise MoeSweepsError(f"{folder / FILE} cannot be read ({before.problem}), so nothing is added. {fix}")
            after = change(before)
            if after != before:
                write_json(folder / FILE, _plain(after), durable=True)
            return after
    except Busy:
        raise MoeSweepsError(f"another process writes notes in {folder}. Try again in a moment.") from None


def _read(folder: Path) -> Remarks:
    content = read_json(folder / FILE, MOST_BYTES)
    try:
        notes = tuple(Note(*(_text(note[name]) for name in ("text", "time", "by"))) for note in content["notes"])
        return Remarks(notes, tuple(_text(tag) for tag in content["tags"]))
    except _WRONG as error:
        raise ValueError(f"it holds no notes ({type(error).__name__}: {error})") from None


def _plain(remarks: Remarks) -> dict[str, Any]:
    notes = [{"text": note.text, "time": note.time, "by": note.by} for note in remarks.notes]
    return {"version": VERSION, "notes": notes, "tags": list(remarks.tags)}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return "?"
