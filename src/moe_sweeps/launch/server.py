"""A server that imports the trainer once, and forks a worker from itself for every run that it is asked to train.

    python -m moe_sweeps.launch.server SOCKET     SOCKET: the number of an inherited socket

The process that drives a sweep holds the other end of the socket. Both write lines of JSON. The request `{"run":
FOLDER, "environment": {...}}` is answered by `{"pid": N}`, or by `{"error": TEXT}` where no process can be started.
`{"probe": FOLDER, ...}` starts a probe (probe_process.py) in place of a worker. When either ends, the server sends
`{"pid": N, "exitcode": CODE}`; CODE is minus the signal that ended it. The server ends with its driver; its workers
keep training.

A worker starts in the state of the server: imports are done, nothing has been computed, and no thread is running.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from moe_sweeps.host.signals import STOP_SIGNALS, is_ignored
from moe_sweeps.launch.work import FAILED

# A terminal, SLURM or a person sends these to all processes of a sweep. Its driver decides what to do.
LEFT_TO_THE_DRIVER = STOP_SIGNALS


class JsonLines:
    """JSON, a line each, over a socket."""

    def __init__(self, end: socket.socket) -> None:
        self.socket, self._rest = end, b""

    def write(self, message: dict[str, Any]) -> None:
        """Send one message. Raises ConnectionError: the other side is gone."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """The messages that have arrived, after waiting for at least some bytes; None when the other side is gone."""
        try:
            received = self.socket.recv(65536)
        except ConnectionError:
            received = b""
        if not received:
            return None
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [json.loads(line) for line in lines]


def fork_server(end: socket.socket, other_end: socket.socket) -> int:
    """Fork a server from this process, and return its process id.

    This process must have computed nothing and run no thread of its own: threads do not survive a fork, and the child
    would wait forever for the thread pools of torch's libraries.
    """
    pid = fork()
    if not pid:
        other_end.close()
        _never_return(lambda: serve(end))
    return pid


def serve(end: socket.socket) -> None:
    """Fork workers as they are asked for, until the driver is gone."""
    ignored = _leave_signals_to_the_driver()
    _close_stdin()
    import_trainer()
    gc.collect()
    gc.freeze()  # keep the memory that workers share out of collections, which would copy it into each
    with _ends_of_children() as ended, selectors.DefaultSelector() as selector:
        lines = JsonLines(end)
        for source in (end, ended):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if end in ready:
                requests = lines.read()
                if requests is None:
                    return
                for request in requests:
                    lines.write(_start_worker(request, end, ignored))
            if ended in ready:
                ended.recv(4096)
                for pid, exitcode in _reaped():
                    lines.write({"pid": pid, "exitcode": exitcode})


def import_trainer() -> None:
    """Import everything that a worker needs; also torch._dynamo, which torch's optimizers import later, in 2 s."""
    import torch._dynamo  # noqa: F401

    import moe_sweeps.training.worker  # noqa: F401


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Block stop signals while handlers are set up, in this process and in the one that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_DRIVER)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(request: dict[str, Any], end: socket.socket, ignored: Collection[int]) -> dict[str, Any]:
    try:
        with signals_held_back():
            pid = fork()
            if not pid:
                _react_to_signals_again(ignored)
    except OSError as error:
        return {"error": f"no process could be started: {error}"}
    if not pid:
        end.close()
        os.environ.update(request["environment"])
        _never_return(lambda: _probe(Path(request["probe"])) if "probe" in request else _work(Path(request["run"])))
    return {"pid": pid}


def _work(run: Path) -> None:
    from moe_sweeps.launch.work import work
    from moe_sweeps.records.rundir import RunDir

    work(RunDir(run))


def _probe(folder: Path) -> None:
    from moe_sweeps.launch.probe_process import answer

    answer(folder)


def fork() -> int:
    """os.fork, without its warning about threads."""
    with warnings.catch_warnings():  # OpenBLAS has threads from its import on, and handles forks itself
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _leave_signals_to_the_driver() -> set[signal.Signals]:
    """Ignore stop signals; returns those that were ignored before, which a worker keeps ignoring."""
    before = {signum for signum in LEFT_TO_THE_DRIVER if is_ignored(signum)}
    for signum in LEFT_TO_THE_DRIVER:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_THE_DRIVER)
    return before


def _react_to_signals_again(ignored: Collection[int]) -> None:
    """Restore the default for stop signals, except SIGINT and those that the driver's parent ignores.

    A terminal sends SIGINT to the driver as well, which then asks with another signal (`signals.asking_signal`).
    """
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGCHLD, *LEFT_TO_THE_DRIVER):
        if signum != signal.SIGINT and signum not in ignored:
            signal.signal(signum, signal.SIG_DFL)


def _close_stdin() -> None:
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)


def _never_return(body: Callable[[], None]) -> NoReturn:
    """Run `body` and end this process, whatever happens: the frames below belong to the process it was forked from."""
    code = 0
    try:
        body()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else FAILED
    except BaseException:
        logging.exception("the process failed")
        code = FAILED
    finally:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                continue  # its reader is gone
        os._exit(code)


def _reaped() -> Iterator[tuple[int, int]]:
    """Children that have ended, with their exit codes."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, os.waitstatus_to_exitcode(status)


@contextmanager
def _ends_of_children() -> Iterator[socket.socket]:
    """A socket that becomes readable whenever a child has ended."""
    reading, writing = socket.socketpair()
    for one in (reading, writing):
        one.setblocking(False)
    with reading, writing:
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        yield reading


if __name__ == "__main__":
    _never_return(lambda: serve(socket.socket(fileno=int(sys.argv[1]))))
