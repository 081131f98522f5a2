"""Worker processes: how one is started, and what it does.

A worker is forked from a server (server.py) that has imported torch once, so that a run starts without importing it
again. Runs that have a snapshot of the sources get a server that imports from there, one for each snapshot.
`python -m moe_sweeps.sweep.process FOLDER` is a worker in an interpreter of its own.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from moe_sweeps.distributed import ALONE, Ranks
from moe_sweeps.errors import RunBusyError
from moe_sweeps.freeze import snapshot_of
from moe_sweeps.rundir import RunDir
from moe_sweeps.snapshot import environment
from moe_sweeps.sweep.server import FAILED, Lines, fork_server, import_trainer, signals_held_back

NOTHING: Mapping[str, str] = MappingProxyType({})
BUSY = 75  # exit code of a worker that found its run in other hands
UNKNOWN = 255  # exit code of a worker whose server was killed, so that nobody saw how it ended


class Worker(Protocol):
    """A process that trains one run. `exitcode` is None while it lives, and minus the signal that ended it."""

    @property
    def pid(self) -> int | None: ...
    @property
    def exitcode(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


class Server:
    """The driver's end of a server: starts workers, and hears how they ended."""

    def __init__(self, end: socket.socket, pid: int, wait: Callable[[], object]) -> None:
        self.pid, self._end, self._lines, self._wait = pid, end, Lines(end), wait
        self._exitcodes: dict[int, int] = {}
        self.gone = False

    @classmethod
    def forked(cls) -> Server:
        """A copy of this process, which has computed nothing yet and so is as good as a fresh one."""
        import_trainer()
        ours, its = socket.socketpair()
        with its, signals_held_back():
            pid = fork_server(its, ours)
        return cls(ours, pid, lambda: os.waitpid(pid, 0))

    @classmethod
    def launched(cls, snapshot: Path | None) -> Server:
        """A fresh interpreter, which imports the sources of `snapshot` or those of now."""
        ours, its = socket.socketpair()
        with its, signals_held_back():
            process = subprocess.Popen(
                [sys.executable, "-m", "moe_sweeps.sweep.server", str(its.fileno())],
                env=environment(snapshot) if snapshot else None, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip
        return cls(ours, process.pid, process.wait)

    def start(self, folder: RunDir, variables: Mapping[str, str] = NOTHING) -> ServedWorker:
        """A new worker for the run of `folder`, with `variables` in its environment.

        Raises:
            OSError: there is none to be had.
        """
        try:
            self._lines.write({"run": str(folder.path), "environment": dict(variables)})
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
        """Until the server says something, or for `timeout` seconds."""
        if not self.gone and select.select([self._end], [], [], timeout)[0]:
            self._listen()

    def close(self) -> None:
        """Let the server go; its workers train on."""
        self.gone = True
        self._end.close()
        self._wait()

    def _listen(self) -> int | None:
        """Note all that the server says; the id of a new worker, if that is it."""
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
        return self._server.exitcode(self.pid)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def join(self, timeout: float | None = None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.exitcode is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            self._server.wait(left)

    def _send(self, signum: int) -> None:
        if self.exitcode is None:
            os.kill(self.pid, signum)


class SnapshotWorker:
    """A worker in an interpreter of its own, for a snapshot that was taken before there were servers."""

    def __init__(self, folder: RunDir, snapshot: Path, variables: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "moe_sweeps.sweep.process", str(folder.path)]
        # A session of its own: Ctrl-C in the terminal is this process's business, which asks its workers to save.
        with folder.log.open("a") as log:
            self._process = subprocess.Popen(
                command, env=environment(snapshot) | dict(variables), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def join(self, timeout: float | None = None) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return


_servers: dict[Path | None, Server] = {}


def fork_server_now() -> None:
    """Make the server for later workers from this process. It must have computed nothing so far, with no threads."""
    if None not in _servers:
        _servers[None] = Server.forked()


def close_servers() -> None:
    """Let all servers go; their workers train on."""
    while _servers:
        _servers.popitem()[1].close()


atexit.register(close_servers)


def start(folder: RunDir, variables: Mapping[str, str] = NOTHING) -> Worker:
    """A new process that trains the run of `folder`, from its snapshot if it has one.

    `variables` are added to its environment: the GPU that it gets.
    """
    snapshot = snapshot_of(folder)
    if snapshot is not None and not (snapshot / "src" / "moe_sweeps" / "sweep" / "server.py").exists():
        return SnapshotWorker(folder, snapshot, variables)
    if snapshot in _servers and _servers[snapshot].gone:
        _servers.pop(snapshot).close()
    if snapshot not in _servers:
        _servers[snapshot] = Server.launched(snapshot)
    return _servers[snapshot].start(folder, variables)


def work(folder: RunDir, ranks: Ranks = ALONE) -> None:
    """The body of a worker process: train one run, alone or with fellow `ranks`; the first one's output is its log."""
    if ranks.is_first:
        with folder.log.open("a", buffering=1) as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    from moe_sweeps.worker import run_worker

    try:
        with ranks.joined() as joined:
            run_worker(folder, ranks=joined)
    except RunBusyError as error:
        logging.info("%s", error)
        os._exit(BUSY)
    except Exception:
        logging.exception("the run failed")
        sys.exit(FAILED)


if __name__ == "__main__":
    work(RunDir(Path(sys.argv[1])))
