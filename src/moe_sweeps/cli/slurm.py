"""`launch=slurm`: freeze the runs of a plan, submit them, and say what was submitted and how to follow it."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from moe_sweeps.cli.freezing import frozen_runs, print_refused
from moe_sweeps.cli.roots import command_at, make_at
from moe_sweeps.cli.watching import follow
from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.experiment.freeze import snapshot_of
from moe_sweeps.experiment.frozen_run import frozen_run
from moe_sweeps.experiment.provenance import command_line
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.experiment.snapshot import require_intact, require_layout
from moe_sweeps.launch.slurm.resources import resources
from moe_sweeps.launch.slurm.submit import EndedIn, Submission, Wanted, dry_run, submit
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import SETTLED, RunDir
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.manifest import write_manifest
from moe_sweeps.sweep.plan import Plan, PlannedRun

NOTHING_LEFT = "nothing to submit: every run has its result"
RETRIES = "retries"  # the folder of their records, below runs/sweeps


def show_scripts(console: Console, plan: Plan, launch: SlurmConfig, estimator: Estimator) -> int:
    """Print what would be submitted. Nothing is written, and neither SLURM nor the data are needed.

    Raises:
        ConfigError: a run cannot be given what it asks for.
    """
    missing = _missing(plan)
    if not missing:
        console.print(NOTHING_LEFT, highlight=False)
    after = _names_of_trunks(plan, {p.run_id: _folder_name(p) for p in missing})
    folders = {p.run_id: RunDir(plan.runs_root / _folder_name(p)) for p in missing}
    wanted = [_wanted(p, folders[p.run_id], estimator, REPOSITORY, after.get(p.run_id)) for p in missing]
    for text in dry_run(wanted, launch, plan.runs_root, plan.sweep_id):
        console.out(text, highlight=False)
    return 0


def submit_plan(console: Console, plan: Plan, launch: SlurmConfig, estimator: Estimator) -> int:
    """Submit the runs without a result; with `launch.wait` follow them to the end. Returns the exit code.

    Raises:
        ConfigError: a run cannot be given what it asks for.
        LaunchError: SLURM refused.
    """
    for planned in _missing(plan):
        resources(planned.run, 0.0)  # an impossible request is refused before anything is written
    started = time.perf_counter()
    folders, refused = frozen_runs(plan, _frozen)
    write_manifest(plan, command_line())
    todo = [p for p in _missing(plan) if p.run_id in folders]
    after = _names_of_trunks(plan, {p.run_id: folders[p.run_id].path.name for p in todo})
    wanted = [_wanted(p, folders[p.run_id], estimator, _code(folders[p.run_id]), after.get(p.run_id)) for p in todo]
    submission = submit(wanted, launch, plan.runs_root, plan.sweep_id)
    _say(console, plan, submission, time.perf_counter() - started)
    print_refused(console, plan, refused)
    if not launch.wait:
        return 1 if refused else 0
    code = follow(console, [(plan.to_train[run_id].label, folder) for run_id, folder in folders.items()])
    return 1 if refused else code


def resubmit(console: Console, folders: Sequence[RunDir], runs_root: Path, ended_in: EndedIn) -> None:
    """Submit runs again with their frozen configs; those that were submitted alike go together.

    `ended_in`: the jobs in which they failed, or what else they are retried for.

    Raises:
        LaunchError: SLURM refused.
    """
    groups: dict[str, list[tuple[RunConfig, RunDir]]] = {}
    for folder in folders:
        run = frozen_run(folder)
        groups.setdefault(repr(run.launch), []).append((run, folder))
    for members in groups.values():
        launch = members[0][0].launch
        assert isinstance(launch, SlurmConfig)
        estimator = Estimator(runs_root, launch.threads or 1)
        names = {folder.run_id: folder.path.name for folder in folders}
        wanted = [
            Wanted(f, resources(run, estimator.estimate(run).seconds), _code(f), names.get(run.fork.run or ""))
            for run, f in members
        ]
        submission = submit(wanted, launch, runs_root, RETRIES, ended_in)
        for record in submission.arrays:
            runs = _count(sum(map(len, record.jobs)), "run")
            console.print(f"submitted job array {record.job_id}: {runs}, again", highlight=False)
        if submission.active:
            count = _count(len(submission.active), "run")
            console.print(f"{count} in the queue or running already", highlight=False)


def _missing(plan: Plan) -> list[PlannedRun]:
    return [p for p in plan.to_train.values() if p.state not in SETTLED]


def _frozen(planned: PlannedRun) -> RunDir:
    """The run's folder, with the number of threads of its job: the login node's cores do not matter."""
    launch = planned.run.launch
    assert isinstance(launch, SlurmConfig)
    return planned.frozen(command_line(), threads=threads_of_job(launch))


def threads_of_job(launch: SlurmConfig) -> int:
    """What each run of a job is given."""
    return max(1, (launch.cpus_per_task or 1) // launch.pack)


def _wanted(planned: PlannedRun, folder: RunDir, estimator: Estimator, code: Path, after: str | None = None) -> Wanted:
    return Wanted(folder, resources(planned.run, estimator.estimate(planned.run).seconds), code, after)


def _names_of_trunks(plan: Plan, names: Mapping[str, str]) -> dict[str, str]:
    """Run id of a fork -> the folder's name of its trunk, where that is among `names`, the runs to be submitted."""
    trunks = {run_id: planned.run.fork.run or "" for run_id, planned in plan.runs.items()}
    return {run_id: names[trunk] for run_id, trunk in trunks.items() if trunk in names}


def _code(folder: RunDir) -> Path:
    snapshot = snapshot_of(folder)
    if snapshot is not None and snapshot.is_dir():  # where it is gone, the job fails and says what to do
        _require_intact(snapshot)
        require_layout(snapshot)
    return snapshot or REPOSITORY


_require_intact = functools.cache(require_intact)  # the runs of a sweep share one


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
        say(NOTHING_LEFT)
        return
    done = f"submitted in {seconds:.1f} s" if submission.arrays else "nothing more to submit"
    say(f"{done}. To follow the runs, from any shell:")
    say(f"  {command_at(plan.runs_root, 'watch', plan.sweep_id)}")
    say(f"  {make_at(plan.runs_root, 'tables')}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
