"""Why two runs are the same or differ, key by key, and which existing run a command line means.

A subject is a run folder or the overrides of a command line. Two subjects are the same run when their canonical forms
are equal; every key in which their configs differ is listed with the reason why it counts or does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_sweeps.config.registry import Component
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment.code_version import code_version
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.experiment.frozen_run import frozen_run
from moe_sweeps.experiment.identity import identity, unread_knobs, why_unread
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.code_record import (
    CodeRecord,
    changed_files,
    differing_files,
    disagree,
    is_other,
    name_files,
    records,
)
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.grid import ONE_RUN, single

ABSENT = "–"
NEVER = "never part of a run's identity; a table that mixes them says so"


@dataclass(frozen=True, slots=True)
class Subject:
    """A run to explain. `canonical` and `run_id` of a folder are the stored ones, not those of the current code."""

    name: str
    run: RunConfig
    canonical: dict[str, Any]
    run_id: str
    folder: RunDir | None = None

    @classmethod
    def of_line(cls, overrides: Sequence[str]) -> Subject:
        """The run that these overrides mean."""
        run = compose(single(overrides, *ONE_RUN))
        found = identity(run)
        return cls(" ".join(overrides) or "the defaults", run, found["canonical"], found["run_id"])

    @classmethod
    def of_folder(cls, folder: RunDir) -> Subject:
        """The run of this folder."""
        stored = folder.identity()
        return cls(folder.path.name, frozen_run(folder), stored["canonical"], stored["run_id"], folder)


@dataclass(frozen=True, slots=True)
class Difference:
    """One key in which two subjects differ. `counts`: whether that makes them two runs; `reason`: why it does or not.

    `files`: for the training code, the names of the files that differ.
    """

    key: str
    a: str
    b: str
    counts: bool
    reason: str
    files: str = ""


def differences(a: Subject, b: Subject) -> list[Difference]:
    """Every key in which the two differ, those that count first."""
    found = [*_counting(a, b), *_not_counting(a, b)]
    return sorted(found, key=lambda d: not d.counts)


def nearest_run(line: Subject, root: Path) -> Subject | None:
    """The readable run below `root` whose canonical form differs from that of `line` in the fewest keys."""
    wanted, scored = flat(line.canonical), []
    for folder in RunDir.all(root):
        try:
            scored.append((len(_differing(wanted, flat(folder.identity()["canonical"]))), folder.path.name, folder))
        except (MoeSweepsError, KeyError, AttributeError):
            continue  # tables report damaged folders
    readable = (_readable(folder) for _, _, folder in sorted(scored, key=lambda s: s[:2]))
    return next(filter(None, readable), None)


def _readable(folder: RunDir) -> Subject | None:
    try:
        return Subject.of_folder(folder)
    except MoeSweepsError:
        return None


def version_differences(a: Subject, b: Subject) -> list[Difference]:
    """How code, packages and data of two folders differ, or the code of a folder and the current code.

    They are never part of the identity, but tables mark rows that mix them.
    """
    found = list(_code_difference(a, b))
    if a.folder is None or b.folder is None:
        return found
    one, other = _versions(a.folder), _versions(b.folder)
    found += [Difference(k, one.get(k, ABSENT), other.get(k, ABSENT), False, NEVER) for k in _differing(one, other)]
    return found


def _code_difference(a: Subject, b: Subject) -> Iterator[Difference]:
    """The files that differ. Two arms execute different files, of which those that both execute are compared."""
    one, other = _code(a), _code(b)
    if a.run_id == b.run_id:
        differ = any(is_other(x, y) for x in one for y in other)
        files = [file for x in one for y in other for file in changed_files(x, y)]
    else:
        differ, files = disagree([*one, *other]), differing_files([*one, *other])
    if differ:
        then, now = ("+".join(record.version for record in found) for found in (one, other))
        yield Difference("training code", then, now, False, NEVER, name_files(files, most=None))


def _code(subject: Subject) -> tuple[CodeRecord, ...]:
    """The code that trained a folder's run, or that would train a command line's."""
    return (code_version(subject.run),) if subject.folder is None else records(subject.folder.provenance())


def _counting(a: Subject, b: Subject) -> Iterator[Difference]:
    one, other = flat(a.canonical), flat(b.canonical)
    for key in _differing(one, other):
        x, y = one.get(key, ABSENT), other.get(key, ABSENT)
        yield Difference(key, x, y, True, _why_it_counts(key, a, b, ABSENT in (x, y)))


def _why_it_counts(key: str, a: Subject, b: Subject, one_sided: bool) -> str:
    if not one_sided:
        return "decides the result"
    for subject in (a, b):
        why = why_unread(key, unread_knobs(subject.run))
        if why:
            return f"not read with {why.by}"
    return "only one of them has it, or not at its neutral value"


def _not_counting(a: Subject, b: Subject) -> Iterator[Difference]:
    counted = set(_differing(flat(a.canonical), flat(b.canonical)))
    one, other = flat(to_dict(a.run)), flat(to_dict(b.run))
    for key in _differing(one, other):  # knobs that only one kind has are explained by the kinds
        if key in one and key in other and key not in counted and (reason := _why_it_does_not_count(key, a, b)):
            yield Difference(key, one.get(key, ABSENT), other.get(key, ABSENT), False, reason)


def _why_it_does_not_count(key: str, a: Subject, b: Subject) -> str | None:
    if is_infrastructure(key, a.run):
        return "infrastructure: it cannot change a result"
    for subject in (a, b):
        why = why_unread(key, unread_knobs(subject.run))
        if why:
            return f"not read by {why.by} ({why.reader} reads it)"
    if key == "data_seed":
        return "null means: as seed"
    return "another spelling of the same meaning"


def is_infrastructure(key: str, run: RunConfig) -> bool:
    """Whether `key`, a group or a knob, cannot change the result of `run`."""
    group, _, leaf = key.partition(".")
    owner = getattr(run, group, None)
    if isinstance(owner, Component):
        field = type(owner).__dataclass_fields__.get(leaf)
        return owner.INFRA or bool(field and field.metadata.get("infra"))
    alone = RunConfig.__dataclass_fields__.get(group)  # none of scale, which sets keys of several groups
    return bool(alone and alone.metadata.get("infra"))


def _versions(folder: RunDir) -> dict[str, str]:
    content = folder.provenance()
    last = (content.get("attempts") or [{}])[-1]
    found = {
        "data": last.get("data_fingerprint"),
        "git commit": (content.get("git") or {}).get("commit"),
        "uncommitted changes": (content.get("git") or {}).get("diff_sha256"),
    }
    found |= {f"package {name}": version for name, version in (content.get("packages") or {}).items()}
    return {k: str(v)[:12] for k, v in found.items() if v}


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and values as text, of nested plain data."""
    found: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = "null" if value is None else str(value)
    return found


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
