"""`moe-sweeps verify-resume` kills a run and says whether that changed anything; it can tell when it did."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import TINY

from moe_sweeps.cli.manage import main
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep import resuming

LINE = [*TINY, "balancer=lossfree", "router=sigmoid", "router.input_jitter=0.01"]  # the jitter draws random numbers
FORGETFUL = """
import sys
from pathlib import Path
import moe_sweeps.training.trainer  # all of it is imported before the function is replaced
from moe_sweeps.training import randomness
assert randomness.restore_random_state
randomness.restore_random_state = lambda *args: None
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.launch.work import work
work(RunDir(Path(sys.argv[1])))
"""


class Forgetful(subprocess.Popen[bytes]):
    """A worker that does not restore the state of its random numbers."""

    def __init__(self, folder: RunDir) -> None:
        super().__init__([sys.executable, "-c", FORGETFUL, str(folder.path)])

    @property
    def exitcode(self) -> int | None:
        return self.poll()

    def join(self, timeout: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout)


def test_a_killed_run_ends_as_if_nothing_had_happened(
    folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify-resume", *LINE, "trainer.steps=180", "--steps", "150", "--kills", "3"]) == 0
    said = capsys.readouterr().out
    assert "the first 150 of 180 steps, trained twice" in said
    assert "identical to the last bit" in said
    kills = [tuple(map(int, k)) for k in re.findall(r"after step (\d+), resumed from step (\d+)", said)]
    assert len(kills) == 3
    assert all(0 < checkpoint <= logged < 150 for logged, checkpoint in kills)
    assert kills == sorted(set(kills))
    assert not list(folders.glob(".verify*"))


def test_a_worker_that_forgets_is_found_out(
    folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "start", Forgetful)
    assert main(["verify-resume", *LINE, "trainer.steps=150", "--steps", "150", "--kills", "1"]) == 1
    said = capsys.readouterr().out
    assert "not identical" in said
    assert re.search(r"^    model: \d+ of \d+: ", said, re.MULTILINE)
    assert re.search(r"^    metrics.jsonl: \d+ of \d+: line", said, re.MULTILINE)
    (kept,) = folders.glob(".verify*")
    assert {path.name for path in kept.iterdir()} == {"undisturbed", "killed"}


def test_a_run_that_ends_early_is_not_tried_out(
    folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str]
) -> None:
    collapses = ["trainer.stop_on_collapse=true", "trainer.collapse_threshold=1e-6", "trainer.collapse_patience=3"]
    assert main(["verify-resume", *LINE, *collapses, "trainer.steps=60"]) == 2
    assert re.search(r"is \w+ after step \d of 60 without a kill: a run that ends early", capsys.readouterr().err)
    assert list(folders.glob(".verify*/undisturbed/*/log.txt")), "the evidence is gone"


def test_ctrl_c_leaves_nothing_behind(
    folders: Path, real_data: TokenData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: RunDir) -> Forgetful:
        os.kill(os.getpid(), signal.SIGTERM)
        return Forgetful(folder)

    monkeypatch.setattr(resuming, "start", interrupted)
    assert main(["verify-resume", *LINE]) == 130
    assert "stopped; its folders are removed" in capsys.readouterr().err
    assert not list(folders.glob(".verify*"))


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (["--steps", "12", "--kills", "0"], "--kills=0 is refused: a run of 12 steps can be killed 1 to 5 times"),
        (["--steps", "12", "--kills", "6"], "--kills=6 is refused: a run of 12 steps can be killed 1 to 5 times"),
        (["--steps", "2"], "--steps=2 is refused: a checkpoint, a kill after it and an end need at least 3 steps"),
        (["--steps", "-1"], "--steps=-1 is refused"),
    ],
)
def test_a_trial_that_is_none_is_refused(
    folders: Path, capsys: pytest.CaptureFixture[str], asked: list[str], refusal: str
) -> None:
    assert main(["verify-resume", *LINE, *asked]) == 2
    assert refusal in capsys.readouterr().err
    assert not list(folders.glob(".verify*"))
