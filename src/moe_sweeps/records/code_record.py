"""What provenance.json says of the code that trained a run, and when two such records contradict each other.

`source_hash` names a version; `sources` has the hash of every file that the run can execute, and, for each option that
was chosen, the file that it lies in. Runs from before `sources` was kept have one hash over all files: a version of its
own, equal to itself alone.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

COMPILED = ".cpp"  # compared only where both used kernels: a run may change that between attempts
WITHOUT_FILES = "recorded before versions were kept by file"
UNKNOWN = "unknown"
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class CodeRecord:
    """One version of the code. `files`: file -> hash; None: not kept by file."""

    version: str
    files: Mapping[str, str] | None = None

    @classmethod
    def of(cls, files: Mapping[str, str]) -> CodeRecord:
        """The version of these files: 12 hexadecimal digits over them."""
        text = "\n".join(f"{file} {digest}" for file, digest in sorted(files.items()))
        return cls(hashlib.sha256(text.encode()).hexdigest()[:12], dict(sorted(files.items())))

    def entry(self) -> dict[str, Any]:
        """As provenance.json has it."""
        return {"source_hash": self.version, "sources": self.files}

    def contradicts(self, other: CodeRecord) -> bool:
        """Whether a file that both executed differs. Two arms execute different files and may still be comparable."""
        if self.files is None or other.files is None:
            return self.version != other.version
        return any(other.files.get(file, digest) != digest for file, digest in self.files.items())


def records(provenance: Mapping[str, Any]) -> tuple[CodeRecord, ...]:
    """The versions that trained the run; before its first attempt, the version that was submitted."""
    submitted = _record(provenance, None)
    found = [_record(attempt, submitted) for attempt in provenance.get("attempts") or []]
    distinct = {record.version: record for record in found if record}
    return tuple(distinct.values()) or ((submitted,) if submitted else ())


def trunk_records(provenance: Mapping[str, Any]) -> tuple[CodeRecord, ...]:
    """The versions that trained the steps which a forked run did not train itself; none for other runs."""
    trunk = provenance.get("trunk")
    attempts = trunk.get("attempts") if isinstance(trunk, Mapping) else None
    found = [_record(one, None) for one in attempts if isinstance(one, Mapping)] if isinstance(attempts, list) else []
    return tuple(record for record in found if record)


def changed_files(then: CodeRecord, now: CodeRecord) -> tuple[str, ...]:
    """Files that differ between two versions of one run; empty if none does or a version has no list of files."""
    if then.files is None or now.files is None:
        return ()
    both = dict.fromkeys([*then.files, *now.files])
    differ = [f for f in both if then.files.get(f) != now.files.get(f)]
    return tuple(f for f in differ if not f.endswith(COMPILED) or (f in then.files and f in now.files))


def is_other(then: CodeRecord, now: CodeRecord) -> bool:
    """Whether the run would now be trained by code that differs from `then`."""
    if then.files is None or now.files is None:
        return then.version != now.version
    return bool(changed_files(then, now))


def name_files(files: Iterable[str], most: int | None = MOST_NAMED) -> str:
    """The first `most` files by name (None: all), then how many more there are."""
    names = list(dict.fromkeys(files))
    rest = len(names) - most if most is not None else 0
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "") or WITHOUT_FILES


def disagree(found: Iterable[CodeRecord]) -> bool:
    """Whether some two of these records contradict each other."""
    return any(a.contradicts(b) for a, b in combinations({r.version: r for r in found}.values(), 2))


def differing_files(found: Iterable[CodeRecord]) -> list[str]:
    """The files of which these records have several versions."""
    hashes: dict[str, set[str]] = {}
    for record in found:
        for file, digest in (record.files or {}).items():
            hashes.setdefault(file, set()).add(digest)
    return [file for file, digests in hashes.items() if len(digests) > 1]


def versions(found: Sequence[CodeRecord]) -> dict[str, str]:
    """version of a record -> what tables call it: the same for records that do not contradict each other.

    Records that go together are named by a hash over all of their files; one without files by its own hash.
    """
    groups: list[dict[str, CodeRecord]] = []
    for record in {r.version: r for r in found}.values():
        group = next((g for g in groups if not any(record.contradicts(r) for r in g.values())), None)
        if group is None:
            groups.append(group := {})
        group[record.version] = record
    return {name: _name(list(group.values())) for group in groups for name in group}


def text_of(found: Sequence[CodeRecord]) -> str:
    """Records as one line of text, for a column of a table; `parsed_text` reads it."""
    return ";".join(" ".join([r.version, *(f"{k}:{v}" for k, v in (r.files or {}).items())]) for r in found)


@functools.lru_cache(maxsize=4096)
def parsed_text(text: str) -> tuple[CodeRecord, ...]:
    """The records that `text_of` wrote."""
    found = []
    for one in filter(None, text.split(";")):
        name, *files = one.split(" ")
        pairs = dict(f.rsplit(":", 1) for f in files)
        found.append(CodeRecord(name, pairs or None))
    return tuple(found)


def _name(group: Sequence[CodeRecord]) -> str:
    files = {file: digest for record in group for file, digest in (record.files or {}).items()}
    return CodeRecord.of(files).version if files else group[0].version


def _record(entry: Mapping[str, Any], submitted: CodeRecord | None) -> CodeRecord | None:
    """The version of one attempt, which lists its files only if they differ from the submitted ones."""
    name, files = entry.get("source_hash"), entry.get("sources")
    if not name:
        return None
    if files is None and submitted and submitted.version == name:
        return submitted
    return CodeRecord(str(name), {str(k): str(v) for k, v in files.items()} if isinstance(files, dict) else None)
