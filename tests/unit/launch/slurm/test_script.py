"""The sbatch script of an array, and what its submission passes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers import compose_run

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.launch.slurm.resources import resources
from moe_sweeps.launch.slurm.script import ArrayScript


def test_a_line_that_is_typed_inside_another_job_passes_on_nothing_of_that_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SLURM sets SLURM_RESTART_COUNT only from a job's first restart on; an inherited 3 would hide three of them."""
    (tmp_path / "sbatch").write_text('#!/bin/sh\nenv > "$0.env"\necho Submitted batch job 7\n')
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    of_the_other = ("SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_MEM_PER_CPU")
    for name in (*of_the_other, "SLURM_CONF", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "3")
    run = compose_run("launch=slurm_cpu")
    assert isinstance(run.launch, SlurmConfig)
    launch = dataclasses.replace(run.launch, threads=1)
    script = ArrayScript(tmp_path / "moe-x.json", resources(run, 60.0), launch, 1, tmp_path)
    assert script.submit() == "7"
    passed_on = {line.partition("=")[0] for line in (tmp_path / "sbatch.env").read_text().splitlines()}
    assert passed_on.isdisjoint(of_the_other)
    assert {"SLURM_CONF", "WANDB_API_KEY"} <= passed_on
