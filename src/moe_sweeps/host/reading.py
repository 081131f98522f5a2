"""Read files from folders that others may have written; all such reading passes here.

The content of a folder may be hostile: a link to a file elsewhere, a device or FIFO in place of a file, a hundred
gigabytes, endless nesting, numbers of 400 digits, aliases that multiply. All of these are refused by a ValueError that
says which, without blocking and before they cost anything. docs/security.md has the whole list.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

# The largest size of each kind of file: at least ten times that of the longest real run or sweep.
CONFIG_BYTES = 1 << 20  # config.yaml, overrides.yaml: 8 KB
DOCUMENT_BYTES = 32 << 20  # JSON of a run folder; provenance.json holds the uncommitted diff
MANIFEST_BYTES = 256 << 20  # a manifest: 1 KB a combination
LOG_BYTES = 4 << 30  # metrics.jsonl, routing.jsonl: a million lines of 4 KB
TEXT_BYTES = 64 << 20  # traceback.txt
PICTURE_BYTES = 64 << 20

MOST_LEVELS = 64
MOST_VALUES = 100_000
LARGEST_INTEGER = 2**64
# libyaml's parser, ten times as fast, where PyYAML was built with it; a sweep may have a thousand configs.
YamlLoader = type[yaml.SafeLoader] | type[yaml.BaseLoader]
YAML_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML_EVENTS: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LONG_NUMBER = re.compile(rb"[0-9]{19}|[eE]\+?[0-9]{3}")  # a text without a match has only small numbers
_PLAIN = (str, int, float, bool, type(None))
_NAME = re.compile(r"[^/\\\0\n\r]+")
_LINK = (errno.ELOOP, errno.ENOTDIR)  # ENOTDIR: a link in place of a folder


class Refused(ValueError):
    """A file that is not read; the message says why."""


def is_name(text: object) -> bool:
    """Whether `text` is a name in a folder that cannot lead out of it."""
    return isinstance(text, str) and bool(_NAME.fullmatch(text)) and not text.startswith(".") and len(text) < 256


@contextmanager
def opened(path: Path, most: int = DOCUMENT_BYTES, *, links: bool = False) -> Iterator[IO[bytes]]:
    """A regular file of at most `most` bytes, open for reading. Opening never blocks.

    Neither the file nor the folder that it lies in may be a link, unless `links` (data of the user's own).

    Raises:
        OSError: there is no such file, or this user cannot read it.
        Refused: it is a link, no regular file, or too large.
    """
    handle, _ = _opened(path, most, links)
    with os.fdopen(handle, "rb") as file:
        yield file


def _opened(path: Path, most: int, links: bool) -> tuple[int, int]:
    """A descriptor of a file that may be read, and how many bytes it has."""
    handle = _descriptor(path, links)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise _no_file(path)
        if found.st_size > most:
            raise Refused(f"it has {found.st_size:,} bytes, and no {path.name} has more than {most:,}")
    except BaseException:
        os.close(handle)
        raise
    return handle, found.st_size


def _descriptor(path: Path, links: bool) -> int:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if links:
        return os.open(path, flags)
    try:
        parent = os.open(path.parent, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_RDONLY)
    except OSError as error:
        raise _said(error, path.parent) from error
    try:
        return os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        raise _said(error, path) from error
    finally:
        os.close(parent)


def _said(error: OSError, path: Path) -> Exception:
    if error.errno in _LINK and path.is_symlink():
        return Refused(f"{path.name} is a link, and links are not followed")
    if error.errno == errno.ENXIO:  # a socket
        return _no_file(path)
    error.filename = str(path)
    return error


def _no_file(path: Path) -> Refused:
    return Refused(f"{path.name} is not a regular file")


def read_bytes(path: Path, most: int = DOCUMENT_BYTES, *, links: bool = False) -> bytes:
    """All of a file, as `opened` allows it."""
    handle, size = _opened(path, most, links)
    try:  # bytes that are appended meanwhile are left for the next call
        content = os.read(handle, size)
        while 0 < len(content) < size and (more := os.read(handle, size - len(content))):  # 2 GB at once at most
            content += more
        return content
    finally:
        os.close(handle)


def why_not_read(folder: str, name: str, most: int) -> str | None:
    """What is wrong with a file, without reading it; None if it is regular and not too large, or missing."""
    try:
        found = os.lstat(f"{folder}/{name}")
    except OSError:
        return None
    if stat.S_ISREG(found.st_mode) and found.st_size <= most:
        return None
    if stat.S_ISLNK(found.st_mode):
        return f"{name} is a link, and links are not followed"
    large = f"{name} has {found.st_size:,} bytes, more than any run writes"
    return large if stat.S_ISREG(found.st_mode) else f"{name} is not a regular file"


def read_text(path: Path, most: int = TEXT_BYTES, errors: str = "strict") -> str:
    """All of a file as text in UTF-8."""
    return read_bytes(path, most).decode("utf-8", errors)


def read_tail(path: Path, most: int) -> str:
    """The last `most` bytes of a text of any size; bytes that are not UTF-8 are replaced."""
    with opened(path, 1 << 62) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read(most).decode("utf-8", "replace")


def read_json(path: Path, most: int = DOCUMENT_BYTES, *, links: bool = False) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or is refused.
    """
    return parse_json(read_bytes(path, most, links=links))


def parse_json(content: bytes) -> Any:
    """Strict JSON: no NaN, no duplicate keys, valid Unicode, limited nesting and numbers.

    Raises:
        ValueError: it is not that.
    """
    try:
        found = json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise Refused(_TOO_DEEP) from None
    if _is_suspicious(content):
        require_sane(found)
    return found


def parse_yaml(content: bytes, loader: YamlLoader = YAML_LOADER, *, aliases: bool = False) -> Any:
    """YAML without type tags or keys other than text. `loader` makes plain data alone.

    Aliases are refused unless a person writes such files (`aliases`): then they may stand for MOST_VALUES values.

    Raises:
        ValueError, yaml.YAMLError: it is not that.
    """
    text = content.decode("utf-8")
    if not aliases and (b"&" in content or b"*" in content) and _has_alias(text):
        raise Refused("it has an alias; write the value out")
    try:
        found = yaml.load(text, loader)
    except RecursionError:
        raise Refused(_TOO_DEEP) from None
    require_sane(found, MOST_VALUES if aliases else None)
    return found


def read_yaml(path: Path, most: int = CONFIG_BYTES) -> Any:
    """The content of a YAML file, parsed by `parse_yaml`."""
    return parse_yaml(read_bytes(path, most))


def require_sane(content: Any, most: int | None = None) -> None:
    """Check that `content` is plain data of at most MOST_LEVELS levels, with finite numbers below a bound.

    `most`: how many values it may hold, those behind several aliases counted each time.

    Raises:
        Refused: it is not.
    """
    level, count = [content], 0
    for _ in range(MOST_LEVELS):
        count += len(level)
        if most is not None and count > most:
            raise Refused(f"its aliases stand for more than {most:,} values")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    raise Refused("it has a key that is not text")
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            else:
                _require_sane_value(value)
        if not inner:
            return
        level = inner
    raise Refused(_TOO_DEEP)


_TOO_DEEP = f"it is nested deeper than {MOST_LEVELS} levels"


def _require_sane_value(value: Any) -> None:
    if not isinstance(value, _PLAIN):
        raise Refused(f"it holds a {type(value).__name__}, which no run writes")
    if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
        raise Refused("it has an integer of 2^64 or more")
    if isinstance(value, float) and math.isinf(value):
        raise Refused("it has a number that is not finite")
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair cannot be shown or written


def _is_suspicious(content: bytes) -> bool:
    deep = content.count(b"[") + content.count(b"{") > MOST_LEVELS
    return deep or b"\\ud" in content or b"\\uD" in content or bool(_LONG_NUMBER.search(content))


def _has_alias(text: str) -> bool:
    return any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _YAML_EVENTS))


def _no_constant(name: str) -> Any:
    raise Refused(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("it has a key twice")
    return found


@contextmanager
def appending(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, created if missing, opened for appending. A link, a FIFO or a device is refused."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        raise _said(error, path) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_file(path)
    with os.fdopen(handle, "ab") as file:
        yield file
