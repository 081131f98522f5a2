"""Pipes, terminals and signals around the real commands: output can be lost, training cannot."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import TINY
from processes import command, wait_until

from moe_sweeps.launch.follow import read_row
from moe_sweeps.records.rundir import RunDir, State

pytestmark = pytest.mark.usefixtures("real_data")
# Long enough to be interrupted, with no checkpoint on the way: what is saved was saved because of the signal.
LONG = (*TINY, "trainer.steps=4000", "trainer.checkpoint_every=2000", "launch.workers=1")
SHORT = (*TINY, "launch.workers=1")
MANAGE = [sys.executable, "-c", "import sys; from moe_sweeps.cli.manage import main; sys.exit(main())"]
SECONDS = 240  # a step takes a while where other tests run beside it


def bash(script: str, *, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """A script whose processes are a process group, as a terminal's foreground job is; signals are not ignored."""
    return subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; {script}"],
        start_new_session=True, stdout=stdout, stderr=subprocess.PIPE, text=True, restore_signals=True,
        preexec_fn=lambda: [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGHUP)],
    )  # fmt: skip


def line(*arguments: str) -> str:
    return shlex.join(command(*arguments))


def training(runs: Path, step: int = 8) -> Callable[[], bool]:
    return lambda: any(row.state == State.running and row.status.step >= step for row in rows(runs))


def rows(runs: Path) -> list:  # type: ignore[type-arg]
    return [read_row("", folder) for folder in RunDir.all(runs)]


def check_saved(folder: RunDir) -> None:
    """Stopped, with a checkpoint of the very step at which it stopped."""
    status = folder.status()
    assert (status.state, status.failure) == (State.preempted, None)
    assert 8 <= status.step < 4000
    assert folder.checkpoint_step() == status.step


def check_done(runs: Path, number: int = 1) -> None:
    folders = list(RunDir.all(runs))
    assert [folder.status().state for folder in folders] == [State.done] * number
    for folder in folders:
        assert [json.loads(text)["step"] for text in (folder.path / "metrics.jsonl").read_text().splitlines()]
        assert folder.summary()


@pytest.mark.parametrize("attempt", range(2))
@pytest.mark.parametrize("many", [(), ("-m",)], ids=["one", "sweep"])
def test_ctrl_c_in_a_pipeline_saves(folders: Path, tmp_path: Path, many: tuple[str, ...], attempt: int) -> None:
    """The reader ends by the same Ctrl-C, before or after there is something to say: tried twice."""
    process = bash(f"{line(*many, *LONG, f'seed={attempt}')} 2>&1 | tee {tmp_path / 'log'}")
    wait_until(training(folders))
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    check_saved(*RunDir.all(folders))


@pytest.mark.parametrize("many", [(), ("-m", "seed=0,1")], ids=["one", "sweep"])
def test_a_reader_that_has_seen_enough_ends_nothing(folders: Path, many: tuple[str, ...]) -> None:
    process = bash(f"{line(*SHORT, *many)} 2>&1 | head -2")
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert len(output.splitlines()) == 2
    check_done(folders, 2 if many else 1)


@pytest.mark.parametrize(
    ("many", "where"),
    [
        ("", ">&-"),
        ("", "2>&-"),
        ("", ">/dev/full"),
        ("-m", ">&- 2>&- <&-"),
        pytest.param("-m", ">/dev/full", marks=pytest.mark.slow),
        ("-m", ">/dev/full 2>/dev/full"),
    ],
)
def test_output_that_goes_nowhere(folders: Path, many: str, where: str) -> None:
    process = bash(f"{line(*many.split(), *SHORT)} {where}")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    check_done(folders)
    lost = where == ">/dev/full"
    assert ("some output is lost (stdout: No space left on device)" in errors) is lost


@pytest.mark.parametrize("many", [(), ("-m",)], ids=["one", "sweep"])
def test_a_terminal_that_goes_away(folders: Path, many: tuple[str, ...]) -> None:
    """Its processes hear SIGHUP, and whatever they write from then on is an error."""
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    process = subprocess.Popen(
        command(*many, *LONG), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)

    def read_on() -> bool:
        with suppress(BlockingIOError):
            os.read(ours, 65536)
        return training(folders)()

    wait_until(read_on)
    os.close(ours)
    assert process.wait(SECONDS) == 130
    check_saved(*RunDir.all(folders))


@pytest.mark.parametrize(("many", "runs"), [((), 1), (("-m", "seed=0,1,2"), 3)], ids=["one", "sweep"])
def test_a_reader_who_stands_still_holds_up_nothing(folders: Path, many: tuple[str, ...], runs: int) -> None:
    """The pipe is full once training has begun; only when all is trained somebody reads it."""
    reading, writing = os.pipe()
    process = bash(f"exec {line(*many, *TINY, 'trainer.steps=150', 'launch.workers=1')}", stdout=writing)
    wait_until(training(folders, 1))
    with os.fdopen(os.open(f"/proc/self/fd/{writing}", os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0) as filling:
        while filling.write(b"." * 4096):
            continue
    os.close(writing)
    wait_until(lambda: [row.state for row in rows(folders)] == [State.done] * runs, seconds=SECONDS)
    with os.fdopen(reading, "rb") as reader:
        assert b"validation loss" in reader.read() or many
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors


# --- signals that the parent made them ignore ------------------------------------------------------------------------

IGNORING = {"HUP": signal.SIGHUP, "INT": signal.SIGINT, "TERM": signal.SIGTERM}
SEARCH = ("-m", "search=random", "search.trials=1", "aux.coef=interval(0.1,0.2)")
MORE_OF_THEM = [(("-m",), "INT"), (("-m",), "TERM"), (SEARCH, "HUP")]
MIDDLE = (*TINY, "trainer.steps=400", "launch.workers=1")


@pytest.mark.parametrize(
    ("many", "name"),
    [((), "HUP"), (("-m",), "HUP"), *(pytest.param(*more, marks=pytest.mark.slow) for more in MORE_OF_THEM)],
)
def test_an_ignored_signal_stays_ignored(folders: Path, many: tuple[str, ...], name: str) -> None:
    """To all processes at once, as a terminal or a cluster sends it."""
    process = bash(f"trap '' {name}; exec {line(*many, *MIDDLE)}")
    wait_until(training(folders))
    os.killpg(process.pid, IGNORING[name])
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output + errors
    check_done(folders)
    assert [folder.status().attempt for folder in RunDir.all(folders)] == [1]


def test_nohup_in_the_background_of_a_script(folders: Path, tmp_path: Path) -> None:
    """SIGHUP is ignored by nohup, SIGINT by the shell; SIGTERM still saves."""
    process = bash(f"nohup {line('-m', *LONG)} > {tmp_path / 'log'} 2>&1 & wait $!")
    wait_until(training(folders))
    for signum in (signal.SIGHUP, signal.SIGINT):
        driver = next(p for p in children(process.pid) if b"train.py" in p[1])[0]
        os.kill(driver, signum)
    wait_until(lambda: rows(folders)[0].status.step > 60)
    os.kill(driver, signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    check_saved(*RunDir.all(folders))


def children(pid: int) -> list[tuple[int, bytes]]:
    numbers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [(int(number), Path(f"/proc/{number}/cmdline").read_bytes()) for number in numbers]


def test_a_driver_that_ignores_sigterm_still_lets_its_workers_save(folders: Path) -> None:
    process = bash(f"trap '' TERM; exec {line('-m', *LONG)}")
    wait_until(training(folders))
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=50)  # less than the minute after which workers are killed
    assert process.returncode == 130
    check_saved(*RunDir.all(folders))


@pytest.mark.parametrize(("ignored", "code"), [pytest.param(True, 0, marks=pytest.mark.slow), (False, 130)])
def test_verify_resume_and_a_hang_up(folders: Path, ignored: bool, code: int) -> None:
    words = shlex.join([*MANAGE, "verify-resume", *TINY, "trainer.steps=4000", "--steps=600", "--kills=1"])
    trap = "trap '' HUP; " if ignored else ""
    process = bash(f"{trap}exec {words}")
    wait_until(lambda: list(folders.glob(".verify-resume-*/undisturbed/*/metrics.jsonl")))
    os.killpg(process.pid, signal.SIGHUP)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == code, output + errors
    assert not list(folders.glob(".verify-resume-*"))


# --- commands that only read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("where", "code", "errors"), [
    ("| true", 141, ""),  # it is gone at once; `head -1` may read late, when everything is written
    (">/dev/full", 2, "error: the output could not be written: No space left on device\n"),
    (">&-", 0, ""),
])  # fmt: skip
def test_a_reading_command_ends_with_its_reader(folders: Path, where: str, code: int, errors: str) -> None:
    process = bash(f"{shlex.join([*MANAGE, 'knobs'])} {where}")
    output, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said, output) == (code, errors, "")
