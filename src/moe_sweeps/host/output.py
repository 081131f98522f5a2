"""stdout and stderr that may fail: training must continue, whatever happens to them.

The reader of a pipe may end (`| head`, `| tee` after Ctrl-C) or stall, a terminal may close, a disk may be full, a
stream may be closed (`>&-`). What a training command writes is then discarded without an error. A command that only
prints ends with its reader instead, as other Unix tools do.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.consoles import say

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

READER_GONE = 141  # exit code of a program that SIGPIPE ended, by a shell's convention: 128 + 13
PATIENCE = 2.0  # seconds that training waits for a stalled reader, once until it reads again
GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF)  # there is no reader any more
NAMES = {1: "stdout", 2: "stderr"}


class ReaderGone(SystemExit):
    """Ends a command that only prints, because its reader is gone."""


@dataclass(slots=True)
class Policy:
    """What this process does when its output cannot be written."""

    may_be_lost: bool = False  # otherwise the command ends with the reader of its stdout
    training: bool = False  # while True, nothing waits for a stalled reader
    problems: dict[int, OSError] = field(default_factory=dict)  # the last one of each stream


policy = Policy()


class Raw(io.FileIO):
    """A file descriptor that is written according to `policy`."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self._fd, self._own, self._patient = fd, _without_waiting(fd), True

    def close(self) -> None:
        """Close this object; the descriptor itself stays open, since it belongs to the process."""
        super().close()
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def reopen(self) -> None:
        """Adapt to the descriptor, which refers to another file now."""
        if self._own is not None:
            os.close(self._own)
        self._own = _without_waiting(self._fd)

    def write(self, data: Buffer) -> int:
        """Write all of `data`, or discard what cannot be written; returns its size in both cases."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                if not self._taken():
                    return size
                left = left[self._write_some(left) :]
            except OSError as error:
                self._lose(error)
                return size
        return size

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._fd if self._own is None else self._own, data[: select.PIPE_BUF])
        except BlockingIOError:  # another process has filled the pipe
            return 0

    def _taken(self) -> bool:
        """Wait until there is room to write. False: the reader has stalled, and training does not wait for it."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if poll.poll(None if not policy.training else PATIENCE * 1000 * self._patient):
            self._patient = True
            return True
        self._patient = False
        return False

    def _lose(self, error: OSError) -> None:
        known, policy.problems[self._fd] = self._fd in policy.problems, error
        if policy.may_be_lost or known or self._fd != 1:
            return
        if error.errno in GONE:
            raise ReaderGone(READER_GONE)
        raise MoeSweepsError(f"the output could not be written: {error.strerror}")


def _without_waiting(fd: int) -> int | None:
    """A descriptor of the same pipe or terminal whose writes never block; None where that is not possible.

    poll promises room for one byte alone, so a longer write could block. Setting O_NONBLOCK on `fd` itself would set it
    for every process that shares it.
    """
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    return None


def open_missing() -> None:
    """Open /dev/null in place of a closed stdin, stdout or stderr (`>&-`).

    Otherwise the next file to be opened gets its number, and output ends up in a checkpoint.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one


@contextmanager
def guarded(*, may_be_lost: bool = False) -> Iterator[Policy]:
    """Write stdout and stderr by the policy: with `may_be_lost` errors are ignored, else the command ends with its
    reader.

    A stream that replaced them (a test's, a notebook's) is left alone.

    Raises:
        ReaderGone: the reader of stdout is gone, and the command only prints.
        MoeSweepsError: stdout cannot be written, and the command only prints.
    """
    open_missing()
    before = sys.stdout, sys.stderr
    policy.may_be_lost, policy.problems = may_be_lost, {}
    sys.stdout, sys.stderr = _guard(sys.stdout, sys.__stdout__, 1), _guard(sys.stderr, sys.__stderr__, 2)
    try:
        yield policy
        sys.stdout.flush()
    finally:
        lost, policy.may_be_lost = policy.may_be_lost, True  # it is over
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):  # somebody closed it
                stream.flush()
        if lost:
            _say_what_was_lost()
        sys.stdout, sys.stderr = before


def standard_output_may_be_lost() -> None:
    """Discard output that cannot be written, from now on until this process ends."""
    open_missing()
    policy.may_be_lost = True
    sys.stdout, sys.stderr = _guard(sys.stdout, sys.__stdout__, 1), _guard(sys.stderr, sys.__stderr__, 2)


@contextmanager
def not_waited_for() -> Iterator[None]:
    """While a run trains: discard output whose reader has stalled, instead of waiting."""
    before, policy.training = policy.training, True
    try:
        yield
    finally:
        policy.training = before


def log_to(path: Path) -> None:
    """Append all further output of this process to a file; discard it if that is a link or cannot be opened."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        target = os.open(path, flags, 0o666)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    open_missing()
    policy.may_be_lost = True
    for stream, original, fd in ((sys.stdout, sys.__stdout__, 1), (sys.stderr, sys.__stderr__, 2)):
        with suppress(ValueError, AttributeError):
            stream.flush()
        os.dup2(target, fd)
        guarded_stream = _guard(stream, original, fd)
        setattr(sys, NAMES[fd], guarded_stream)
        raw = _raw_of(guarded_stream)
        if raw is not None:
            raw.reopen()
        guarded_stream.reconfigure(line_buffering=True) if isinstance(guarded_stream, io.TextIOWrapper) else None
    os.close(target)


def _guard(stream: TextIO | None, original: TextIO | None, fd: int) -> TextIO:
    if stream is not None and (stream is not original or _raw_of(stream) is not None):
        return stream
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(Raw(fd)), encoding="utf-8", errors="replace")
    with suppress(OSError):
        stream.flush()
    assert isinstance(stream, io.TextIOWrapper)
    return io.TextIOWrapper(
        io.BufferedWriter(Raw(fd)),
        encoding=stream.encoding,
        errors="replace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _raw_of(stream: TextIO | None) -> Raw | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, Raw) else None


def _say_what_was_lost() -> None:
    """Report lost output on stderr, unless the reader has left on purpose."""
    for fd, error in [*policy.problems.items()]:  # a copy: printing may add a problem of stderr
        if error.errno not in GONE and fd == 1:
            say(f"some output is lost ({NAMES[fd]}: {error.strerror}); the run folders have everything", stderr=True)
