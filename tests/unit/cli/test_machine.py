"""What is refused before any run has a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, compose_run

from moe_sweeps.cli.machine import check_machine_and_data
from moe_sweeps.cli.train import main
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.kernels import Arithmetic
from moe_sweeps.records.rundir import State, Status


def test_kernels_that_the_processor_cannot_run_are_refused_before_anything_starts(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Arithmetic, "obstacle", lambda self: f"the processor has no {self.value}")
    assert main([*TINY, "engine.kernels=avx512"]) == 2
    assert "engine.kernels=avx512 is refused: the processor has no avx512" in capsys.readouterr().err
    assert not list(folders.glob("*-*"))
    with pytest.raises(ConfigError, match="the processor has no avx2"):
        check_machine_and_data([compose_run(*TINY), compose_run(*TINY, "engine.kernels=avx2")])
    check_machine_and_data([compose_run(*TINY, "engine.kernels=torch"), compose_run(*TINY)])


def test_a_finished_run_needs_no_kernels(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = compose_run(*TINY, "engine.kernels=avx512")
    monkeypatch.setattr(Arithmetic, "obstacle", lambda self: f"the processor has no {self.value}")
    folder = freeze(run, [], command="test")
    with pytest.raises(ConfigError, match="the processor has no avx512"):
        check_machine_and_data([run])
    folder.write_status(Status(State.done))
    check_machine_and_data([run])
