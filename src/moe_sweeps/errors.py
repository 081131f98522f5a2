"""Errors that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_SHOWN = 200  # characters of a value in a message


class MoeSweepsError(Exception):
    """Base of every error that is shown to the user as a message instead of a traceback."""


class ConfigError(MoeSweepsError):
    """A value, key or combination that was refused before anything expensive started.

    The message names the field, the value, the rule and the fix, in that order.
    """

    def __init__(self, field: str, value: object, rule: str, fix: str) -> None:
        self.field, self.value, self.rule, self.fix = field, value, rule, fix
        super().__init__(f"{field}={_show(value)} is refused: {rule}. {fix}")


def key_refused(field: str) -> ConfigError:
    """The error about an API key in a setting; it does not show the key."""
    rule = "it holds an API key, which would stand in config.yaml for everybody to read"
    fix = "Export the key where you start runs: their processes, SLURM's too, inherit it."
    return ConfigError(field, "***", rule, fix)


class RunFolderError(MoeSweepsError):
    """A run folder that is damaged, in use by another worker, or not what it claims to be."""


class RunBusyError(RunFolderError):
    """Another worker holds the run at this moment."""


class DiskFull(MoeSweepsError):
    """There is no space for a file; nothing of it was left behind. The message names the folder and both sizes."""

    def __init__(self, folder: object, needed: int, free: int) -> None:
        self.folder, self.needed, self.free = folder, needed, free
        super().__init__(
            f"the disk or the quota is full: {folder} needs {needed:,} bytes and {free:,} are free. "
            "Free some space and type the same line again: the run resumes from its last checkpoint."
        )


class LockRefused(MoeSweepsError):
    """The file system, or this user's permissions, do not allow a lock. The message says what to do."""


class NotWritable(MoeSweepsError):
    """This user lacks permission to write, or read, a file. The message names the path, its owner and a remedy."""

    def __init__(self, path: object, owner: str, reason: str, fix: str) -> None:
        super().__init__(f"{path} (owner: {owner}) is closed to you: {reason}. {fix}")


class DataError(MoeSweepsError):
    """Prepared data that is missing, damaged or too small for what was asked."""


class LaunchError(MoeSweepsError):
    """SLURM, or another thing that starts runs, refused or did not answer."""


class Diverged(MoeSweepsError):
    """The loss became NaN or infinite: an outcome of the experiment, not a crash."""


class Interrupted(MoeSweepsError):
    """The run was asked to stop. Its state was saved, so that it can resume."""


class Paused(Interrupted):
    """The run reached `trainer.stop_at` and was evaluated there. It resumes when that is raised."""


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid spelling closest to `word`, or None when nothing is close."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return close[0] if close else None


def _show(value: object) -> str:
    """A value in a message: the beginning of a long one."""
    text = "null" if value is None else str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def first_line(error: Exception) -> str:
    """The first line of an error's message; its type if it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
