"""Which files `data.files` names: what is read as text, and what is passed over and why.

It imports nothing slow: plans list the files as well, long before any is read.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_sweeps.data.config import TextConfig, TextFormat
from moe_sweeps.errors import DataError
from moe_sweeps.paths import resolve

FORMATS = {
    TextFormat.plain: (".txt", ".text", ".md"),
    TextFormat.jsonl: (".jsonl", ".ndjson"),
    TextFormat.parquet: (".parquet",),
}
FORMAT_OF = {suffix: kind for kind, suffixes in FORMATS.items() for suffix in suffixes}
RECORDS = (TextFormat.jsonl, TextFormat.parquet)
COMPRESSED = ".gz"  # of text and jsonl; parquet is compressed within
# Made by programs for themselves: byte code, and what macOS adds to archives. Names that begin with a dot are hidden.
NOT_MEANT = frozenset({"__pycache__", "__MACOSX"})
# What describes a data set is not its text: README.md, README.de.md, LICENSE-MIT.txt, dataset_card.md.
CARD = re.compile(r"(readme|licen[cs]e|copying|notice|citation|datasheet|data(set)?[-_ ]?card)([-_. ].*)?", re.I)
MAGIC = re.compile(r"[*?[]")

HIDDEN, CARDS, LINKS, TWICE, BESIDE, OTHER, UNREADABLE = (
    "hidden",
    "cards and licences",
    "not regular files",
    "other names of files that are read",
    "plain text beside records (data.format=plain reads it)",
    "of another format than data.format",
    "of formats that are not read",
)


@dataclass(slots=True)
class Found:
    """`files` in the order in which they are read, the folders `roots` that were named, and what was passed over."""

    files: list[Path] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    passed_over: dict[Path, str] = field(default_factory=dict)  # path -> why

    def counts(self) -> dict[str, int]:
        """Files passed over by reason, the most frequent first."""
        return dict(Counter(self.passed_over.values()).most_common())

    @property
    def account(self) -> dict[str, Any]:
        """How much is read, from where, and what is passed over, as meta.json keeps it."""
        return {
            "read": len(self.files),
            "bytes": sum(path.stat().st_size for path in self.files),
            "roots": [str(root) for root in self.roots],
            "passed_over": self.counts(),
            "examples": {reason: self.example(reason) for reason in self.counts()},
        }

    def example(self, reason: str) -> str:
        """The first file that was passed over for `reason`, below its root."""
        return _below(next(path for path, why in self.passed_over.items() if why == reason), self.roots)


def find_files(config: TextConfig) -> Found:
    """What `data.files` names: files, folders with all that is below them, and patterns of either.

    However a folder is spelled, its files are the same, in the order of their paths, each once.

    Raises:
        DataError: a part names nothing that is read, or a folder cannot be listed.
    """
    assert config.files
    found = Found()
    for part in _parts(config.files):
        _add(found, part, config)
    names = _one_name_each(found.files)
    found.passed_over |= dict.fromkeys(set(found.files) - set(names), TWICE)
    found.files = sorted(names)
    found.passed_over = {p: why for p, why in sorted(found.passed_over.items()) if p not in names}
    return found


def format_of(path: Path) -> TextFormat | None:
    """The format that a file's ending says; None for one that is not read."""
    suffix = path.suffix.lower()
    if suffix != COMPRESSED:
        return FORMAT_OF.get(suffix)
    inner = FORMAT_OF.get(Path(path.stem).suffix.lower())
    return None if inner is TextFormat.parquet else inner


def _parts(files: str) -> list[str]:
    """The parts of `data.files` between colons; a path that exists is one part, even with a colon in its name."""
    return [files] if _exists(resolve(files)) else [part for part in files.split(os.pathsep) if part]


def _add(found: Found, part: str, config: TextConfig) -> None:
    """Add what one part of `data.files` names."""
    root, matches, is_named = _matches(resolve(part))
    reasons = {path: "" if is_named and format_of(path) else _why_not(path, root, part, config) for path in matches}
    known = [path for path, why in reasons.items() if not why]
    if config.format is TextFormat.auto and any(format_of(path) in RECORDS for path in known):
        reasons |= {path: BESIDE for path in known if format_of(path) is TextFormat.plain}
    read = [path for path, why in reasons.items() if not why]
    found.roots += [root] if root not in found.roots else []
    found.passed_over |= {path: why for path, why in reasons.items() if why}
    if not read:
        raise _nothing(config, resolve(part), reasons)
    found.files += read


def _matches(path: Path) -> tuple[Path, list[Path], bool]:
    """The folder that was named (of a pattern: its fixed beginning), all files in question, whether it names a file."""
    if _exists(path) and path.is_dir():
        root = _real(path)
        return root, list(_walk(root)), False
    if _exists(path) and path.is_file():
        root = _real(path.parent)
        return root, [root / path.name], True
    fixed = next((n for n, name in enumerate(path.parts) if MAGIC.search(name)), len(path.parts))
    root = _real(Path(*path.parts[:fixed]))
    if fixed == len(path.parts) or not root.is_dir():
        return root, [], False
    matches: dict[Path, None] = {}
    for match in _expand(root, path.parts[fixed:]):
        matches |= dict.fromkeys(_walk(match) if match.is_dir() else [match])
    return root, list(matches), False


def _expand(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Files and folders below `folder` that match `pattern`, hidden ones too: they are counted."""
    head, rest = pattern[0], pattern[1:]
    if head == "**" and not rest:
        yield folder
    elif head == "**":
        for inner in _folders(folder):
            yield from _expand(inner, rest)
    else:
        matching = [n for n in _listed(folder) if fnmatch.fnmatchcase(n, head)] if MAGIC.search(head) else [head]
        for path in (folder / name for name in matching):
            if not rest:
                yield from [path] if path.exists() or path.is_symlink() else []
            elif path.is_dir():
                yield from _expand(path, rest)


def _walk(root: Path) -> Iterator[Path]:
    """Everything below `root` that is no folder."""
    for folder in _folders(root):
        yield from (path for name in _listed(folder) if not (path := folder / name).is_dir())


def _folders(root: Path) -> list[Path]:
    """`root` and every folder below it, each once under one name, links followed: those that are no links first."""
    found, seen, linked = list[Path](), set[str](), [root]
    while linked:
        waiting = [linked.pop(0)]
        while waiting:
            folder = waiting.pop(0)
            if (real := os.path.realpath(folder)) in seen:
                continue
            seen.add(real)
            found.append(folder)
            inner = [path for name in _listed(folder) if (path := folder / name).is_dir()]
            waiting += [path for path in inner if not path.is_symlink()]
            linked += [path for path in inner if path.is_symlink() and not _is_hidden(path, root)]
    return found


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (names are what is matched)
    except OSError as error:
        raise DataError(f"data.files is refused: {folder} cannot be listed ({error.strerror}).") from error


def _why_not(path: Path, root: Path, part: str, config: TextConfig) -> str:
    """Why a file is not read, or ""."""
    kind = format_of(path)
    if _is_hidden(path, root):
        return HIDDEN
    if not path.is_file():
        return LINKS
    if kind is None:
        return UNREADABLE
    if config.format not in (TextFormat.auto, kind):
        return OTHER
    if kind is TextFormat.plain and CARD.fullmatch(path.name.partition(".")[0]) and not _asks_for_cards(part):
        return CARDS
    return ""


def _is_hidden(path: Path, root: Path) -> bool:
    """Whether a name below the folder that was named is hidden; the folder itself may be, since it was asked for."""
    return any(name.startswith(".") or name in NOT_MEANT for name in path.relative_to(root).parts)


def _asks_for_cards(part: str) -> bool:
    """Whether a pattern names cards explicitly: '**/README.md'."""
    last = Path(part).name
    return bool(CARD.fullmatch(MAGIC.split(last)[0].partition(".")[0]))


def _one_name_each(paths: Iterable[Path]) -> set[Path]:
    """Of several names of one file the one that is no link, else the first."""
    names: dict[str, list[Path]] = {}
    for path in sorted(set(paths)):
        names.setdefault(os.path.realpath(path), []).append(path)
    return {next((p for p in same if str(p) == real), same[0]) for real, same in names.items()}


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a list of many files is too long for a name
        return False


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _below(path: Path, roots: Sequence[Path]) -> str:
    root = next((r for r in roots if path.is_relative_to(r)), None)
    return str(path.relative_to(root)) if root else str(path)


def _nothing(config: TextConfig, path: Path, reasons: dict[Path, str]) -> DataError:
    endings = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
    formats = f"Formats: {endings}, and .gz of text and jsonl."
    problem = f"{path} matches no file"
    if reasons:
        first, why = next(iter(reasons.items()))
        counts = ", ".join(f"{n} {reason}" for reason, n in Counter(reasons.values()).most_common())
        problem = f"nothing that {path} names is text ({counts}, such as {first})"
        if why == UNREADABLE and len(reasons) == 1:
            problem = f"{first} has an ending that is not read"
    return DataError(f"data.files={config.files} is refused: {problem}. {formats}")
