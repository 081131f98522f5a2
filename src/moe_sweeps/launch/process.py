"""Worker processes: how one is started, and how its end is noticed.

A worker is forked from a server (server.py) that has imported torch once, so that a run starts without importing it
again. Runs with a snapshot of the sources get a server that imports from it, one per snapshot.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from moe_sweeps.experiment.freeze import snapshot_of
from moe_sweeps.experiment.snapshot import environment, require_layout
from moe_sweeps.host.signals import asking_signal
from moe_sweeps.launch.server import JsonLines, fork_server, import_trainer, signals_held_back
from moe_sweeps.records.rundir import RunDir

NOTHING: Mapping[str, str] = MappingProxyType({})
UNKNOWN = 255  # exit code of a worker whose server was killed, so that its real one is not known


class Worker(Protocol):
    """A process that trains one run."""

    @property
    def pid(self) -> int | None:
        """Its process id."""

    @property
    def exitcode(self) -> int | None:
        """None while it lives; minus the signal that ended it."""

    def terminate(self) -> None:
        """Ask it to save its state and end."""

    def kill(self) -> None:
        """End it at once, by SIGKILL."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most `timeout` seconds."""


class Server:
    """The driver's handle on a server: starts workers, and learns how they ended."""

    def __init__(self, end: socket.socket, pid: int, wait: Callable[[], object]) -> None:
        self.pid, self._end, self._lines, self._wait = pid, end, JsonLines(end), wait
        self._exitcodes: dict[int, int] = {}
        self.gone = False

    @classmethod
    def forked(cls) -> Server:
        """A fork of this process, which must have computed nothing yet."""
        import_trainer()
        ours, its = socket.socketpair()
        with its, signals_held_back():
            pid = fork_server(its, ours)
        return cls(ours, pid, lambda: os.waitpid(pid, 0))

    @classmethod
    def launched(cls, snapshot: Path | None) -> Server:
        """A new interpreter, which imports the sources of `snapshot`, or the current ones."""
        ours, its = socket.socketpair()
        with its, signals_held_back():
            process = subprocess.Popen(
                [sys.executable, "-m", "moe_sweeps.launch.server", str(its.fileno())],
                env=environment(snapshot) if snapshot else None, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip
        return cls(ours, process.pid, process.wait)

    def start(self, folder: RunDir, variables: Mapping[str, str] = NOTHING) -> ServedWorker:
        """A new worker for the run of `folder`, with `variables` in its environment.

        Raises:
            OSError: no process could be started.
        """
        return self._start({"run": str(folder.path)}, variables)

    def start_probe(self, folder: Path) -> ServedWorker:
        """A new process for the probe whose job lies in `folder`.

        Raises:
            OSError: no process could be started.
        """
        return self._start({"probe": str(folder)}, NOTHING)

    def _start(self, request: dict[str, Any], variables: Mapping[str, str]) -> ServedWorker:
        try:
            self._lines.write(request | {"environment": dict(variables)})
        except ConnectionError:
            self.gone = True
        answer = None
        while answer is None and not self.gone:
            answer = self._listen()
        if answer is None:
            raise ChildProcessError("the server that starts workers is gone")
        return ServedWorker(self, answer)

    def exitcode(self, pid: int) -> int | None:
        """How the worker `pid` ended, None while it lives."""
        self.wait(0)
        return self._exitcodes.get(pid, UNKNOWN if self.gone else None)

    def wait(self, timeout: float | None) -> None:
        """Wait for a message of the server, at most `timeout` seconds."""
        if not self.gone and select.select([self._end], [], [], timeout)[0]:
            self._listen()

    def close(self) -> None:
        """End the server; its workers keep training."""
        self.gone = True
        self._end.close()
        self._wait()

    def _listen(self) -> int | None:
        """Handle what the server has sent; returns the process id of a new worker, if one was started."""
        new, error = None, None
        messages = self._lines.read()
        self.gone = messages is None
        for message in messages or []:
            if "error" in message:
                error = message["error"]
            elif "exitcode" in message:
                self._exitcodes[message["pid"]] = message["exitcode"]
            else:
                new = message["pid"]
        if error is not None:
            raise OSError(error)
        return new


class ServedWorker:
    """A worker that a server started."""

    def __init__(self, server: Server, pid: int) -> None:
        self.pid, self._server = pid, server

    @property
    def exitcode(self) -> int | None:
        """None while it lives; minus the signal that ended it."""
        return self._server.exitcode(self.pid)

    def terminate(self) -> None:
        """Ask it to save its state and end."""
        self._send(asking_signal())

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        self._send(signal.SIGKILL)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.exitcode is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            self._server.wait(left)

    def _send(self, signum: int) -> None:
        if self.exitcode is None:
            with suppress(ProcessLookupError):  # it ended meanwhile, and its server has not said so yet
                os.kill(self.pid, signum)


_servers: dict[Path | None, Server] = {}


def fork_server_now() -> None:
    """Fork the server for later workers from this process, which must have computed nothing and have no threads."""
    if None not in _servers:
        _servers[None] = Server.forked()


def close_servers() -> None:
    """End all servers; their workers keep training."""
    while _servers:
        _servers.popitem()[1].close()


atexit.register(close_servers)


def start(folder: RunDir, variables: Mapping[str, str] = NOTHING) -> Worker:
    """A new process that trains the run of `folder`, from its snapshot if it has one.

    `variables` are added to its environment: the GPU that it gets.

    Raises:
        MoeSweepsError: its snapshot is gone, was changed, or has another layout of modules.
    """
    snapshot = snapshot_of(folder)
    if snapshot is not None:
        require_layout(snapshot)
    return _server(snapshot).start(folder, variables)


def start_probe(folder: Path) -> Worker:
    """A new process for the probe whose job lies in `folder`.

    Raises:
        OSError: no process could be started.
    """
    return _server(None).start_probe(folder)


def has_server() -> bool:
    """Whether a process that runs the current code can be had at once, without an import of torch."""
    return None in _servers and not _servers[None].gone


def _server(snapshot: Path | None) -> Server:
    if snapshot in _servers and _servers[snapshot].gone:
        _servers.pop(snapshot).close()
    if snapshot not in _servers:
        _servers[snapshot] = Server.launched(snapshot)
    return _servers[snapshot]
