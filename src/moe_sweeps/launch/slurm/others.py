"""Jobs of other users, where a runs folder is shared.

Who submitted a job owns its record. squeue is asked about these users, too. Where the cluster hides their jobs, or this
machine does not know them, a job that squeue does not show may well exist: its runs are left alone.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from moe_sweeps.errors import LaunchError
from moe_sweeps.launch.slurm.queue import ANSWER_SECONDS, call
from moe_sweeps.launch.slurm.records import ArrayRecord, all_records, record_paths


def is_own(record: ArrayRecord) -> bool:
    """Whether this user submitted it."""
    return _owner(record.path) in (os.geteuid(), None)


def other_users(runs_root: Path) -> frozenset[int]:
    """The ids of the other users who have submitted from this runs folder."""
    owners = {_owner(path) for path in record_paths(runs_root)}
    return frozenset(uid for uid in owners if uid is not None and uid != os.geteuid())


def known_users(users: Collection[int]) -> list[int]:
    """Those that this machine knows; squeue refuses a question about another."""
    return [uid for uid in sorted(users) if _is_known(uid)]


def hidden_tasks(runs_root: Path, users: Collection[int], seconds: float = ANSWER_SECONDS) -> frozenset[str]:
    """The array tasks (123_4) that `users` submitted and squeue may hide."""
    if not users:
        return frozenset()
    hidden = set(users) if _jobs_are_private(seconds) else set(users) - set(known_users(users))
    return frozenset(_tasks_of(runs_root, hidden)) if hidden else frozenset()


def _tasks_of(runs_root: Path, users: Collection[int]) -> Iterator[str]:
    for record in all_records(runs_root):
        if _owner(record.path) in users:
            yield from record.task_names()


def _jobs_are_private(seconds: float) -> bool:
    """Whether the cluster hides jobs of other users (PrivateData=jobs), as far as anybody can tell."""
    try:
        lines = call("scontrol", "show", "config", patience=(), seconds=seconds).splitlines()
    except LaunchError:
        return True
    values = (value for key, _, value in (line.partition("=") for line in lines) if key.strip() == "PrivateData")
    return not {"jobs", "all"}.isdisjoint(word.strip().lower() for word in next(values, "").split(","))


def _is_known(uid: int) -> bool:
    with suppress(KeyError, OverflowError):
        return bool(pwd.getpwuid(uid))
    return False


def _owner(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_uid
    return None
