"""Who gets which GPU, and MPS around runs that share one, with a control program that writes down what it is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from unit.cli.fake_runs import fake_run

from moe_sweeps.launch import gpus, local
from moe_sweeps.launch.gpus import least_used, shared_gpus, visible_gpus
from moe_sweeps.launch.local import LocalSweep
from moe_sweeps.records.rundir import RunDir, State


@pytest.mark.parametrize(
    ("named", "count", "expected"), [(None, 2, ["0", "1"]), ("3,GPU-ab", 2, ["3", "GPU-ab"]), ("", 0, []), ("7", 0, [])]
)
def test_gpus_are_called_what_the_environment_calls_them(
    monkeypatch: pytest.MonkeyPatch, named: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    if named is not None:
        monkeypatch.setenv(gpus.VISIBLE, named)
    assert visible_gpus() == expected


def test_the_least_used_gpu_comes_next() -> None:
    assert least_used(["0", "1"], []) == "0"
    assert least_used(["0", "1"], ["0", None]) == "1"
    assert least_used(["0", "1"], ["0", "1", "1"]) == "0"
    assert least_used([], ["0"]) is None


def test_a_sweep_spreads_its_runs_over_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        pid, exitcode = 1, 0

    given: list[dict[str, str]] = []

    def start(folder: RunDir, variables: dict[str, str]) -> Ended:
        given.append(variables)
        return Ended()

    monkeypatch.setattr(local, "start", start)
    runs: list[RunDir] = [fake_run(tmp_path, n, State.planned) for n in range(4)]
    LocalSweep(runs, workers=4, gpus=["0", "1"])._fill()
    assert [variables[gpus.VISIBLE] for variables in given] == ["0", "1", "0", "1"]


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What nvidia-cuda-mps-control was asked for, a line a call."""
    said, program = tmp_path / "said", tmp_path / "nvidia-cuda-mps-control"
    program.write_text(f'#!/bin/sh\necho "$1 $(cat) $(test -d "$CUDA_MPS_PIPE_DIRECTORY" && echo there)" >> {said}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(gpus.MPS_FOLDERS[0], raising=False)
    return said


def test_mps_runs_as_long_as_runs_share_a_gpu(control: Path) -> None:
    with shared_gpus(["0"], workers=2) as environment:
        assert control.read_text() == "-d  there\n"
        assert set(environment) == set(gpus.MPS_FOLDERS)
    assert control.read_text() == "-d  there\n quit there\n"
    assert not any(Path(path).exists() for path in environment.values())


def test_mps_serves_all_gpus_under_the_numbers_that_workers_are_told(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is told of GPUs 2 and 3 calls them 0 and 1."""
    monkeypatch.setenv(gpus.VISIBLE, "2,3")
    program = control.parent / "nvidia-cuda-mps-control"
    program.write_text(f'#!/bin/sh\necho "visible: ${{CUDA_VISIBLE_DEVICES-all}}" >> {control}\n')
    with shared_gpus(["2", "3"], workers=4) as environment:
        assert gpus.VISIBLE not in environment
    assert control.read_text() == "visible: all\n" * 2


@pytest.mark.parametrize(("found", "workers"), [([], 4), (["0"], 1), (["0", "1"], 2)])
def test_no_mps_where_nothing_is_shared(control: Path, found: list[str], workers: int) -> None:
    with shared_gpus(found, workers) as environment:
        assert environment == {}
    assert not control.exists()


def test_without_mps_runs_share_all_the_same(control: Path, caplog: pytest.LogCaptureFixture) -> None:
    (control.parent / "nvidia-cuda-mps-control").write_text("#!/bin/sh\necho no such device >&2\nexit 1\n")
    with shared_gpus(["0"], workers=2) as environment:
        assert environment == {}
    assert "without CUDA MPS: no such device" in caplog.text
