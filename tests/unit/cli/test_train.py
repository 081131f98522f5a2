"""What `python train.py` says of one run, and what it refuses before any run has a folder; tests/e2e trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY
from rich.console import Console

from moe_sweeps.cli import train
from moe_sweeps.cli.train import main
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.records.rundir import RunDir, State


def test_cfg_of_several_runs_does_not_say_m(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "--cfg", "balancer=aux,lossfree"]) == 2
    error = capsys.readouterr().err
    assert "it asks for 2 runs, and this is about one run. Choose one value." in error
    assert "-m" not in error


def test_a_fork_whose_trunk_was_cancelled_says_how_to_resume_the_trunk(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled meanwhile, from another shell: to retry the arm would be of no use."""
    trained: list[RunDir] = []

    def cancelled(console: object, run: object, folder: RunDir, ranks: object) -> State:
        trained.append(folder)
        return State.cancelled

    monkeypatch.setattr(train, "check_machine_and_data", lambda _: None)
    monkeypatch.setattr(train, "_train_unless_settled", cancelled)
    with pytest.raises(MoeSweepsError) as refused:
        train.train_one(Console(quiet=True), [*TINY, "fork.step=10"])
    (trunk,) = trained
    (arm,) = (folder for folder in RunDir.all(folders) if folder != trunk)
    assert arm.trunk_id() == trunk.run_id
    assert str(refused.value) == (
        f"{trunk.path.name} was cancelled; its state is saved. "
        f"`moe-sweeps retry --cancelled {trunk.run_id}` resumes it."
    )
