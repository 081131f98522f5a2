"""A server that imports the trainer once, and forks a worker from itself for every run that it is asked for.

    python -m moe_sweeps.sweep.server SOCKET     SOCKET: the number of an inherited socket

Whoever drives a sweep holds the other end of the socket. Both write lines of JSON. `{"run": FOLDER, "environment":
{...}}` is answered by `{"pid": N}`, or by `{"error": TEXT}` where no process can be had, and the end of that worker is
told as `{"pid": N, "exitcode": CODE}`, minus the signal that ended it. The server ends with its driver; workers train
on.

A worker begins where the server stands: imports are done, nothing has been computed, and no thread is running.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

# A terminal, SLURM or a person sends these to all processes of a sweep. Its driver decides what they mean.
LEFT_TO_THE_DRIVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FAILED = 1


class Lines:
    """JSON, a line each, over a socket."""

    def __init__(self, end: socket.socket) -> None:
        self.socket, self._rest = end, b""

    def write(self, message: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """What has arrived, after waiting for some of it; None when the other side is gone."""
        try:
            received = self.socket.recv(65536)
        except ConnectionError:
            received = b""
        if not received:
            return None
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [json.loads(line) for line in lines]


def fork_server(end: socket.socket, other_end: socket.socket) -> int:
    """Make a server out of a copy of this process, and return its process id.

    That is right only while this process has computed nothing and runs no thread of its own: threads do not survive a
    fork, and the pools of torch's libraries would be waited for in vain.
    """
    pid = fork()
    if not pid:
        other_end.close()
        _never_return(lambda: serve(end))
    return pid


def serve(end: socket.socket) -> None:
    """Fork workers as they are asked for, until the driver is gone."""
    _leave_signals_to_the_driver()
    _close_stdin()
    import_trainer()
    gc.collect()
    gc.freeze()  # what is there now is shared with all workers; looking through it would copy it into each
    with _ends_of_children() as ended, selectors.DefaultSelector() as selector:
        lines = Lines(end)
        for source in (end, ended):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if end in ready:
                requests = lines.read()
                if requests is None:
                    return
                for request in requests:
                    lines.write(_start_worker(request, end))
            if ended in ready:
                ended.recv(4096)
                for pid, exitcode in _reaped():
                    lines.write({"pid": pid, "exitcode": exitcode})


def import_trainer() -> None:
    """Everything that a worker needs, torch._dynamo among it: torch's optimizers import it, which takes 2 s."""
    import torch._dynamo  # noqa: F401

    import moe_sweeps.worker  # noqa: F401


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Let signals wait until it is settled what they mean, in this process and in the one that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_DRIVER)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(request: dict[str, Any], end: socket.socket) -> dict[str, Any]:
    try:
        with signals_held_back():
            pid = fork()
            if not pid:
                _heed_signals_again()
    except OSError as error:
        return {"error": f"no process could be started: {error}"}
    if not pid:
        end.close()
        os.environ.update(request["environment"])
        _never_return(lambda: _work(Path(request["run"])))
    return {"pid": pid}


def _work(run: Path) -> None:
    from moe_sweeps.rundir import RunDir
    from moe_sweeps.sweep.process import work

    work(RunDir(run))


def fork() -> int:
    """os.fork."""
    with warnings.catch_warnings():  # OpenBLAS has threads from its import on, and handles forks itself
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _leave_signals_to_the_driver() -> None:
    for signum in LEFT_TO_THE_DRIVER:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_THE_DRIVER)


def _heed_signals_again() -> None:
    """All but Ctrl-C, which a terminal sends to the driver, too; that then asks with SIGTERM."""
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGCHLD, *LEFT_TO_THE_DRIVER):
        if signum != signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)


def _close_stdin() -> None:
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)


def _never_return(body: Callable[[], None]) -> NoReturn:
    """Run `body` and end this process, whatever happens: the frames below belong to the process it was copied from."""
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
                continue  # whoever read it is gone
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
    """A socket with something to read whenever a child has ended."""
    reading, writing = socket.socketpair()
    for one in (reading, writing):
        one.setblocking(False)
    with reading, writing:
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        yield reading


if __name__ == "__main__":
    _never_return(lambda: serve(socket.socket(fileno=int(sys.argv[1]))))
