"""The sbatch script of an array, and what its submission passes on."""

from __future__ import annotations

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
    of_the_other = ("SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_MEM_PER_CPU")
    for name in (*of_the_other, "SLURM_CONF", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "3")
    passed_on = names_passed_on(monkeypatch, tmp_path)
    assert passed_on.isdisjoint(of_the_other)
    assert {"SLURM_CONF", "WANDB_API_KEY"} <= passed_on


# Each as sbatch's manual names it; all of them win over the script's own lines.
AGAINST_THE_SCRIPT = (
    *("ARRAY_INX", "JOB_NAME", "TIMELIMIT", "MEM_PER_NODE", "MEM_PER_CPU", "SIGNAL", "NO_REQUEUE", "OUTPUT", "ERROR"),
    "OPEN_MODE",
    "WAIT",
)
WHERE_TO = ("PARTITION", "ACCOUNT", "QOS", "CONSTRAINT")


@pytest.mark.parametrize("is_set", [True, False])
def test_a_persons_defaults_for_sbatch_do_not_change_the_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_set: bool
) -> None:
    """What `launch` leaves to the cluster is left to those defaults, too."""
    for name in (*AGAINST_THE_SCRIPT, *WHERE_TO, "RESERVATION", "GPUS"):
        monkeypatch.setenv(f"SBATCH_{name}", "1")
    where = [f"launch.{name.lower()}=x" for name in WHERE_TO] if is_set else []
    passed_on = names_passed_on(monkeypatch, tmp_path, *where)
    left = {"SBATCH_RESERVATION", "SBATCH_GPUS"} | (set() if is_set else {f"SBATCH_{name}" for name in WHERE_TO})
    assert {name for name in passed_on if name.startswith("SBATCH_")} == left


def test_a_persons_default_number_of_gpus_does_not_change_what_a_job_asks_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK"):
        monkeypatch.setenv(f"SBATCH_{name}", "8")
    passed_on = names_passed_on(monkeypatch, tmp_path, "launch.gpus_per_node=1")
    assert not {name for name in passed_on if name.startswith("SBATCH_")}


def names_passed_on(monkeypatch: pytest.MonkeyPatch, folder: Path, *settings: str) -> set[str]:
    """The environment variables that sbatch sees."""
    (folder / "sbatch").write_text('#!/bin/sh\nenv > "$0.env"\necho Submitted batch job 7\n')
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    run = compose_run("launch=slurm_cpu", "launch.threads=1", *settings)
    assert isinstance(run.launch, SlurmConfig)
    script = ArrayScript(folder / "moe-x.json", resources(run, 60.0), run.launch, 1, folder)
    assert script.submit() == "7"
    return {line.partition("=")[0] for line in (folder / "sbatch.env").read_text().splitlines()}
