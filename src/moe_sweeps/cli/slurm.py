"""What `launch=slurm` does with a plan: freeze it, submit it, say what was submitted and how to follow it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from moe_sweeps.cli.watching import follow
from moe_sweeps.config.frozen import from_dict
from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.freeze import snapshot_of
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.provenance import command_line
from moe_sweeps.rundir import SETTLED, RunDir
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.plan import Plan, PlannedRun, write_manifest
from moe_sweeps.sweep.slurm.resources import resources
from moe_sweeps.sweep.slurm.submit import Submission, Wanted, dry_run, submit

RETRIES = "retries"  # the folder of their records, below runs/sweeps


def submit_plan(console: Console, plan: Plan, launch: SlurmConfig, estimator: Estimator) -> int:
    """Submit what is missing and return; with `launch.wait` follow it to the end. Returns the exit code.

    Raises:
        ConfigError: a run cannot be given what it asks for.
        LaunchError: SLURM refused.
    """
    if launch.dry_run:
        wanted = [_wanted(p, RunDir(plan.runs_root / _folder_name(p)), estimator, REPOSITORY) for p in _missing(plan)]
        for text in dry_run(wanted, launch, plan.runs_root, plan.sweep_id):
            console.out(text, highlight=False)
        return 0
    for planned in _missing(plan):
        resources(planned.run, 0.0)  # what cannot be asked for is refused before anything is written
    started = time.perf_counter()
    folders = {run_id: _frozen(planned) for run_id, planned in plan.runs.items()}
    write_manifest(plan, command_line())
    wanted = [_wanted(p, folders[p.run_id], estimator, _code(folders[p.run_id])) for p in _missing(plan)]
    submission = submit(wanted, launch, plan.runs_root, plan.sweep_id)
    _say(console, plan, submission, time.perf_counter() - started)
    if not launch.wait:
        return 0
    return follow(console, [(plan.runs[run_id].label, folder) for run_id, folder in folders.items()])


def resubmit(console: Console, folders: Sequence[RunDir], runs_root: Path) -> None:
    """Submit runs again with their frozen configs; those that were submitted alike go together.

    Raises:
        LaunchError: SLURM refused.
    """
    groups: dict[str, list[tuple[RunConfig, RunDir]]] = {}
    for folder in folders:
        run = from_dict(folder.config())
        groups.setdefault(repr(run.launch), []).append((run, folder))
    for members in groups.values():
        launch = members[0][0].launch
        assert isinstance(launch, SlurmConfig)
        estimator = Estimator(runs_root, launch.threads or 1)
        wanted = [Wanted(f, resources(run, estimator.estimate(run).seconds), _code(f)) for run, f in members]
        submission = submit(wanted, launch, runs_root, RETRIES)
        for record in submission.arrays:
            runs = _count(sum(map(len, record.jobs)), "run")
            console.print(f"submitted job array {record.job_id}: {runs}, again", highlight=False)
        if submission.active:
            console.print(f"left to jobs that have not ended yet: {_count(len(submission.active), 'run')}")


def _missing(plan: Plan) -> list[PlannedRun]:
    return [p for p in plan.runs.values() if p.state not in SETTLED]


def _frozen(planned: PlannedRun) -> RunDir:
    """The run's folder. The login node's cores say nothing about those of a job, which is told its own."""
    launch = planned.run.launch
    assert isinstance(launch, SlurmConfig)
    threads = max(1, (launch.cpus_per_task or 1) // launch.pack)
    return planned.frozen(command_line(), threads=threads)


def _wanted(planned: PlannedRun, folder: RunDir, estimator: Estimator, code: Path) -> Wanted:
    return Wanted(folder, resources(planned.run, estimator.estimate(planned.run).seconds), code)


def _code(folder: RunDir) -> Path:
    return snapshot_of(folder) or REPOSITORY


def _folder_name(planned: PlannedRun) -> str:
    return planned.folder.path.name if planned.folder else f"{planned.run.run_name}-{planned.run_id}"


def _say(console: Console, plan: Plan, submission: Submission, seconds: float) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for record in submission.arrays:
        needs = ", ".join(f"{key}={value}" for key, value in record.resources.items())
        runs = sum(map(len, record.jobs))
        say(
            f"submitted job array {record.job_id}: {_count(runs, 'run')} in {_count(len(record.jobs), 'job')} ({needs})"
        )
    if submission.active:
        say(f"{_count(len(submission.active), 'run')} in the queue or running already")
    if not submission.arrays and not submission.active:
        say("nothing to submit: every run has its result")
        return
    say(f"submitted in {seconds:.1f} s. Follow it from any shell, on any day:")
    say(f"  moe-sweeps watch {plan.sweep_id}")
    say("  make tables")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
