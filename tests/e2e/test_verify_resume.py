"""`moe-sweeps verify-resume` kills a run and says whether that changed anything; it can tell when it did."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY

from moe_sweeps.cli.manage import main
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.rundir import RunDir
from moe_sweeps.sweep import resuming

LINE = [*TINY, "balancer=lossfree", "router=sigmoid", "router.input_jitter=0.01"]  # the jitter draws random numbers
FORGETFUL = """
import sys
from pathlib import Path
import moe_sweeps.trainer
moe_sweeps.trainer.restore_random_state = lambda *args: None
from moe_sweeps.rundir import RunDir
from moe_sweeps.sweep.process import work
work(RunDir(Path(sys.argv[1])))
"""


class Forgetful:
    """A worker that does not restore the state of its random numbers."""

    def __init__(self, folder: RunDir) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", FORGETFUL, str(folder.path)])

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


def test_a_killed_run_ends_as_if_nothing_had_happened(
    folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify-resume", *LINE, "trainer.steps=80", "--steps", "60", "--kills", "2"]) == 0
    said = capsys.readouterr().out
    assert "the first 60 of 80 steps, trained twice" in said
    assert "3 processes in place of one" in said
    assert "the same to the last bit" in said
    assert not list(folders.glob(".verify*"))


def test_a_worker_that_forgets_is_found_out(
    folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "start", Forgetful)
    assert main(["verify-resume", *LINE, "trainer.steps=60", "--kills", "1"]) == 1
    said = capsys.readouterr().out
    assert "not the same" in said
    assert re.search(r"^    model: \d+ of \d+: ", said, re.MULTILINE)
    assert re.search(r"^    metrics.jsonl: \d+ of \d+: line", said, re.MULTILINE)
    (kept,) = folders.glob(".verify*")
    assert {path.name for path in kept.iterdir()} == {"undisturbed", "killed"}


@pytest.mark.parametrize("kills", [0, 9])
def test_kills_that_do_not_fit_are_refused(
    folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str], kills: int
) -> None:
    assert main(["verify-resume", *LINE, "--steps", "12", "--kills", str(kills)]) == 2
    assert f"--kills={kills} is refused: a run of 12 steps can be killed 1 to 8 times" in capsys.readouterr().err
    assert not list(folders.glob(".verify*"))
