"""A probe in a process of its own: what it finds, and that none of its ends costs more than the probe."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import TINY, compose_run

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.launch import probe_process
from moe_sweeps.launch.probe import Probe
from moe_sweeps.launch.probe_process import ANSWER, JOB, OUTPUT, ProbeFailed, probe_apart
from moe_sweeps.launch.process import ServedWorker, Server

RUN = compose_run(*TINY, "engine.device=cpu")
NO_PROBE = r"`moe-sweeps plan --no-probe`"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all tests: it imports torch first."""
    found = Server.launched(None)
    yield found
    found.close()


@pytest.fixture
def started(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ServedWorker]:
    """The processes that the test starts; temporary folders are in `tmp_path`."""
    found: list[ServedWorker] = []

    def start(folder: Path) -> ServedWorker:
        found.append(server.start_probe(folder))
        return found[-1]

    monkeypatch.setattr(probe_process, "start_probe", start)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return found


def test_it_measures_and_leaves_nothing_behind(started: list[ServedWorker], tmp_path: Path) -> None:
    assert 0 < probe_apart(RUN, threads=1).seconds_per_step < 10
    assert started[0].exitcode == 0
    assert list(tmp_path.iterdir()) == []


def test_one_that_takes_too_long_is_ended(started: list[ServedWorker], tmp_path: Path) -> None:
    with pytest.raises(ProbeFailed, match=rf"the probe of smoke_v1-aux did not end within 0 s\. {NO_PROBE}"):
        probe_apart(RUN, threads=1, patience=0.01)
    assert started[0].exitcode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("started")
def test_a_run_that_training_would_refuse_is_refused() -> None:
    wrong = dataclasses.replace(RUN, model=dataclasses.replace(RUN.model, heads=3))
    with pytest.raises(MoeSweepsError, match=r"model\.heads=3 is refused") as caught:
        probe_apart(wrong, threads=1)
    assert not isinstance(caught.value, ProbeFailed)


@pytest.mark.usefixtures("started")
def test_an_exception_in_it_is_told_in_a_line() -> None:
    with pytest.raises(ProbeFailed, match=rf"the probe of smoke_v1-aux failed: RuntimeError: .*\. {NO_PROBE}"):
        probe_apart(RUN, threads=0)


class Command:
    """A process in place of the server's, that gets the folder of its job."""

    def __init__(self, code: str, folder: Path) -> None:
        source = f"import os, sys, time\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n{code}"
        self._process = subprocess.Popen([sys.executable, "-c", source, str(folder)])
        self.pid = self._process.pid

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


Ends = Callable[[str], Probe]


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """A probe whose process does what `code` says."""

    def run(code: str) -> Probe:
        monkeypatch.setattr(probe_process, "start_probe", lambda folder: Command(code, folder))
        return probe_apart(RUN, threads=1, patience=5)

    return run


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), 9)", r"died: ended by SIGKILL"),
        ("os.abort()", r"died: ended by SIGABRT"),
        (f"(folder / '{OUTPUT}').write_text('first\\nCUDA error: out of memory\\n'); sys.exit(7)",
         r"died: exit code 7 \(CUDA error: out of memory\)"),
        ("sys.exit(0)", r"died: exit code 0"),
        (f"(folder / '{ANSWER}').write_text('{{')", r"died: exit code 0"),
        (f"os.symlink('/etc/passwd', folder / '{ANSWER}')", r"died: exit code 0"),
        (f"(folder / '{ANSWER}').write_text('[]')", r"died: exit code 0"),
        (f"(folder / '{ANSWER}').write_text('{{\"seconds_per_step\": \"1\"}}')", r"died: exit code 0"),
        (f"(folder / '{ANSWER}').write_text('{{\"failed\": \"OutOfMemoryError: 3 GiB\"}}')",
         r"failed: OutOfMemoryError: 3 GiB"),
    ],
)  # fmt: skip
def test_however_it_ends_the_error_says_how_and_what_to_do(ending: Ends, code: str, words: str) -> None:
    with pytest.raises(ProbeFailed, match=rf"^the probe of smoke_v1-aux {words}.*\. {NO_PROBE}"):
        ending(code)


def test_of_one_that_the_kernel_killed_it_says_why(ending: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_process, "out_of_memory", lambda host, before: f"no memory ({sorted(before)})")
    monkeypatch.setattr(probe_process, "oom_kills", lambda: {"group": 1})
    with pytest.raises(ProbeFailed, match=r"died: no memory \(\['group'\]\)"):
        ending("os.kill(os.getpid(), 9)")


def test_where_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> ServedWorker:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(probe_process, "start_probe", refuse)
    with pytest.raises(ProbeFailed, match=r"could not be started: Resource temporarily"):
        probe_apart(RUN, threads=1)


def test_an_interrupt_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches the driver alone: a server's children ignore it."""
    made: list[Command] = []

    class Interrupted(Command):
        def join(self, timeout: float | None = None) -> None:
            if not made:
                made.append(self)
                raise KeyboardInterrupt
            super().join(timeout)

    monkeypatch.setattr(probe_process, "start_probe", lambda folder: Interrupted("time.sleep(60)", folder))
    with pytest.raises(KeyboardInterrupt):
        probe_apart(RUN, threads=1)
    assert made[0].exitcode == -signal.SIGKILL


def test_one_whose_driver_is_gone_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / JOB).write_text(json.dumps({"run": {}, "threads": 1, "patience": 0.5}))
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom moe_sweeps.launch import probe_process as p\n"
        "p._found = lambda job: time.sleep(60)\np.answer(Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=os.environ)
    started = time.monotonic()
    assert process.wait(50) == -signal.SIGALRM
    assert time.monotonic() - started < 45
