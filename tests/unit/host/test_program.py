"""How a command ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import atexit, os, signal, sys, time, weakref
import moe_sweeps.host.consoles
from moe_sweeps.host.program import run_program, stopped

def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)

def main() -> int:
{body}

atexit.register(lambda: (press(), print("ended")))
run_program(main)
"""


def ran(folder: Path, body: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """As a module: Python's own end of a process differs there (exit_sigint)."""
    program = PROGRAM.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    (folder / "a_program.py").write_text(program)
    line = [sys.executable, "-m", "a_program"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return 3", 3, ""),
        ("sys.exit(4)", 4, ""),
        ("press()", 130, "\nstopped\n"),
        # The second interrupts neither the message nor what cleans up before it.
        ("try:\n    press()\nexcept KeyboardInterrupt:\n    press()\n    return stopped('so')", 130, "\nstopped; so\n"),
        ("try:\n    press()\nfinally:\n    press()", 130, "\nstopped\n"),
        # As in the making of a dataclass: Python would remember it, though it is caught, and die of a signal.
        ("exec('press()')", 130, "\nstopped\n"),
        ("try:\n    exec('press()')\nexcept KeyboardInterrupt:\n    return stopped('so')", 130, "\nstopped; so\n"),
        # Python drops what is raised in a weak reference's callback, such as those that each import runs.
        ("class C: pass\nc = C()\nr = weakref.ref(c, lambda _: press())\ndel c\ntime.sleep(9)", 130, "\nstopped\n"),
        # A later one is meant: the first may have been swallowed.
        (
            "try:\n    press()\nexcept KeyboardInterrupt:\n    time.sleep(1.1)\n    press()\n    return 0",
            130,
            "\nstopped\n",
        ),
    ],
)
def test_ctrl_c_ends_a_program_in_a_line(tmp_path: Path, body: str, code: int, said: str) -> None:
    """Each also meets one while it exits."""
    done = ran(tmp_path, body)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "ended\n")


def test_what_the_parent_ignores_stays_ignored(tmp_path: Path) -> None:
    """As a script's `command &` does."""
    done = ran(tmp_path, "press()\nreturn 0", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_is_a_traceback_still(tmp_path: Path) -> None:
    done = ran(tmp_path, "raise ValueError('it')")
    assert done.returncode == 1
    assert "ValueError: it" in done.stderr
