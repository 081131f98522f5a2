"""Links and ranges in lines as a person types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import TINY
from processes import train

from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir

pytestmark = pytest.mark.usefixtures("real_data")
TINIEST = (*TINY, "trainer.steps=6", "trainer.final_eval_sequences=8", "schedule.warmup_steps=2", "launch.workers=1")


def module(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )


def test_a_variable_decides_the_run_before_it_is_named(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = (*TINIEST, "aux.coef=3", "aux.normalization=${oc.env:NORM}")
    for norm in ("switch", "megatron"):
        monkeypatch.setenv("NORM", norm)
        done = train(*line)
        assert done.returncode == 0, done.stderr
        assert "already done" not in done.stdout
    frozen = {folder.config()["aux"]["normalization"]: folder for folder in RunDir.all(folders)}
    assert set(frozen) == {"switch", "megatron"}
    losses = {(folder.summary() or {})["val_loss"] for folder in frozen.values()}
    assert len(losses) == 2
    for folder in frozen.values():
        assert "aux.normalization=${oc.env:NORM}" in yaml.safe_load((folder.path / "overrides.yaml").read_text())
    assert "is already done" in train(*line).stdout
    told = " ".join(module("moe_sweeps", "why", *line).stdout.split())  # the length of the line decides where it breaks
    assert f"this is run {frozen['megatron'].path.name}" in told
    monkeypatch.delenv("NORM")
    refused = train(*line)
    assert refused.returncode == 2
    assert "aux.normalization=${oc.env:NORM} is refused: it cannot be resolved" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(RunDir.all(folders)) == 2


@pytest.mark.slow
def test_a_range_and_a_typed_number_are_one_run(folders: Path) -> None:
    done = train("-m", *TINIEST, "aux.coef=range(0.1,0.4,0.1)")
    assert done.returncode == 0, done.stderr
    assert "aux.coef (3) = 3 combinations, 3 distinct runs" in done.stdout
    assert sorted(folder.config()["aux"]["coef"] for folder in RunDir.all(folders)) == [0.1, 0.2, 0.3]
    for spelling in ("0.3", "0.30", "3e-1", ".3"):
        assert "is already done" in train(*TINIEST, f"aux.coef={spelling}").stdout, spelling


def test_an_axis_that_follows_another_is_trained_and_tabled(folders: Path) -> None:
    line = ("lr_split=static", "lr_split.dense=0.5,1", "lr_split.expert=${lr_split.dense}")
    done = train("-m", *TINIEST, *line)
    assert done.returncode == 0, done.stderr
    split = [(f.config()["lr_split"]["dense"], f.config()["lr_split"]["expert"]) for f in RunDir.all(folders)]
    assert sorted(split) == [(0.5, 0.5), (1, 1)]
    assert "${" not in done.stdout.split("Difference")[0].split("sweep (")[-1]


@pytest.mark.parametrize("name", ["moe_sweeps", "moe_sweeps.cli.manage"])
def test_the_second_command_as_a_module(folders: Path, name: str) -> None:
    shown = module(name, "plan", "--no-probe", *TINIEST, "aux.coef=0.1,0.2")
    assert shown.returncode == 0
    assert "2 distinct runs" in shown.stdout
    refused = module(name, "plan", "seed=18446744073709551616")
    assert refused.returncode == 2
    assert "seed=18446744073709551616 is refused: it must be >= 0 and <= 18446744073709551615" in refused.stderr


def test_the_main_command_as_a_module(folders: Path) -> None:
    done = module("moe_sweeps.cli.train", *TINIEST, "name=as-a-module")
    assert done.returncode == 0, done.stderr
    assert [f.path.name.rpartition("-")[0] for f in RunDir.all(folders)] == ["as-a-module"]
