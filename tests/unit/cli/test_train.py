"""What `train.py` refuses before any run has a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, compose_run

from moe_sweeps.cli.train import check_machine_and_data, main
from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels import Arithmetic


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


def test_cfg_of_several_runs_does_not_say_m(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "--cfg", "balancer=aux,lossfree"]) == 2
    error = capsys.readouterr().err
    assert "it asks for 2 runs, and this is about one run. Choose one value." in error
    assert "-m" not in error
