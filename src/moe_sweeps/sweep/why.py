"""Why two runs are the same or differ, key by key, and which existing run a command line means.

A subject is a run folder or a command line. Two subjects are the same run when their canonical forms are equal; every
key in which their configs differ is listed with the reason why it counts or does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_sweeps.config.compose import compose
from moe_sweeps.config.frozen import from_dict, to_dict
from moe_sweeps.config.registry import Component
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import MoeSweepsError, RunFolderError, nearest
from moe_sweeps.identity import identity, unread_knobs, why_unread
from moe_sweeps.rundir import RunDir
from moe_sweeps.sweep.grid import single

ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Subject:
    """A run to explain. `canonical` and `run_id` of a folder are the stored ones, whatever today's code says."""

    name: str
    run: RunConfig
    canonical: dict[str, Any]
    run_id: str
    folder: RunDir | None = None

    @classmethod
    def of_line(cls, overrides: Sequence[str]) -> Subject:
        run = compose(single(overrides))
        found = identity(run)
        return cls(" ".join(overrides) or "the defaults", run, found["canonical"], found["run_id"])

    @classmethod
    def of_folder(cls, folder: RunDir) -> Subject:
        stored = folder.identity()
        return cls(folder.path.name, from_dict(folder.config()), stored["canonical"], stored["run_id"], folder)


@dataclass(frozen=True, slots=True)
class Difference:
    """One key in which two subjects differ. `counts`: it makes them two runs; `reason` says why it does or does not."""

    key: str
    a: str
    b: str
    counts: bool
    reason: str


def find_run(name: str, root: Path) -> RunDir:
    """The run folder of a path, a folder's name, a run id or the beginning of one.

    Raises:
        RunFolderError: none, or several, are called so.
    """
    if (Path(name) / "identity.json").is_file():
        return RunDir(Path(name).absolute())
    folders = RunDir.all(root)
    found = [f for f in folders if name == f.path.name or f.run_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunFolderError(f"{name} is the beginning of several runs: {', '.join(f.path.name for f in found)}.")
    close = nearest(name, [f.path.name for f in folders] + [f.run_id for f in folders])
    fix = f"Did you mean {close}?" if close else f"`moe-sweeps status` lists the runs of {root}."
    raise RunFolderError(f"there is no run {name} in {root}. {fix}")


def differences(a: Subject, b: Subject) -> list[Difference]:
    """Every key in which the two differ, those that count first."""
    found = [*_counting(a, b), *_not_counting(a, b)]
    return sorted(found, key=lambda d: not d.counts)


def nearest_runs(line: Subject, root: Path, most: int = 1) -> list[Subject]:
    """The readable runs below `root` whose canonical forms differ from that of `line` in the fewest keys."""
    wanted, scored = flat(line.canonical), []
    for folder in RunDir.all(root):
        try:
            scored.append((len(_differing(wanted, flat(folder.identity()["canonical"]))), folder.path.name, folder))
        except (MoeSweepsError, KeyError, AttributeError):
            continue  # a damaged folder is the tables' business
    return [Subject.of_folder(folder) for _, _, folder in sorted(scored, key=lambda s: s[:2])[:most]]


def version_differences(a: Subject, b: Subject) -> list[Difference]:
    """Code, packages and data of two folders: never part of the identity, but tables mark what mixes them."""
    if a.folder is None or b.folder is None:
        return []
    one, other = _versions(a.folder), _versions(b.folder)
    reason = "never part of a run's identity; a table that mixes them says so"
    return [Difference(k, one.get(k, ABSENT), other.get(k, ABSENT), False, reason) for k in _differing(one, other)]


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
            return f"only one of them reads it: the other has {why.by}"
    return "only one of them has it, or has it at another value than its neutral one"


def _not_counting(a: Subject, b: Subject) -> Iterator[Difference]:
    counted = set(_differing(flat(a.canonical), flat(b.canonical)))
    one, other = flat(to_dict(a.run)), flat(to_dict(b.run))
    for key in _differing(one, other):  # knobs that only one kind has are explained by the kinds
        if key in one and key in other and key not in counted and (reason := _why_it_does_not_count(key, a, b)):
            yield Difference(key, one.get(key, ABSENT), other.get(key, ABSENT), False, reason)


def _why_it_does_not_count(key: str, a: Subject, b: Subject) -> str | None:
    if _is_infrastructure(key, a.run):
        return "infrastructure: it cannot change a result"
    for subject in (a, b):
        why = why_unread(key, unread_knobs(subject.run))
        if why:
            return f"not read by {why.by} ({why.reader} reads it)"
    if key == "data_seed":
        return "null means: as seed"
    return "another spelling of the same meaning"


def _is_infrastructure(key: str, run: RunConfig) -> bool:
    group, _, leaf = key.partition(".")
    owner = getattr(run, group, None)
    if isinstance(owner, Component):
        field = type(owner).__dataclass_fields__.get(leaf)
        return owner.INFRA or bool(field and field.metadata.get("infra"))
    return bool(RunConfig.__dataclass_fields__[group].metadata.get("infra"))


def _versions(folder: RunDir) -> dict[str, str]:
    content = folder.provenance()
    last = (content.get("attempts") or [{}])[-1]
    found = {
        "training code": last.get("source_hash") or content.get("source_hash"),
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
