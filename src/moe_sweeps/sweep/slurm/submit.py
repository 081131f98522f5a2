"""Submission: exactly what is missing goes to SLURM, whatever died half-way the last time.

Two facts make it safe to type a line again at any moment. A record with a name of its own is on disk before sbatch is
called, so a submission that died before it noted the job's number is found again in the queue by that name. And a
run's lock lets only one worker train it, so that even a job too many would train nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.errors import LaunchError, RunBusyError
from moe_sweeps.rundir import SETTLED, RunDir, State
from moe_sweeps.sweep.slurm.queue import Job, longest_minutes, max_array_size, own_jobs
from moe_sweeps.sweep.slurm.records import Record, all_records
from moe_sweeps.sweep.slurm.resources import Resources, within_limit
from moe_sweeps.sweep.slurm.script import ArrayScript


@dataclass(frozen=True, slots=True)
class Wanted:
    """One run that should be trained, and what it needs."""

    folder: RunDir
    needs: Resources
    code: Path  # the folder whose sources its job imports


@dataclass(frozen=True, slots=True)
class Submission:
    """What one call submitted, and what it left alone."""

    arrays: list[Record]
    active: list[RunDir]  # in the queue or running already


def submit(wanted: Sequence[Wanted], launch: SlurmConfig, runs_root: Path, sweep_id: str) -> Submission:
    """Submit every run of `wanted` that is neither settled nor in the queue.

    Raises:
        ConfigError: launch.minutes is longer than the partition allows.
        LaunchError: SLURM refused. Every script is tried with --test-only first, so that as a rule nothing was
            submitted then; what was is on record, and the same line submits the rest later.
    """
    folder = runs_root / "sweeps" / sweep_id / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(runs_root / "sweeps" / ".submitting.lock"):
        jobs = own_jobs()
        active = active_runs(runs_root, jobs)
        missing = [w for w in wanted if w.folder.path.name not in active and w.folder.status().state not in SETTLED]
        most = longest_minutes(launch.partition) if missing else None
        missing = [replace(w, needs=within_limit(w.needs, launch, most)) for w in missing]
        drafts = list(_arrays(missing, launch, folder, runs_root))
        scripts = {record.path: _script(record, launch) for record in drafts}
        for script in scripts.values():
            script.test()
        for done, record in enumerate(drafts):
            _submit_one(record, scripts[record.path], already=drafts[:done])
    return Submission(drafts, [w.folder for w in wanted if w.folder.path.name in active])


def dry_run(wanted: Sequence[Wanted], launch: SlurmConfig, runs_root: Path, sweep_id: str) -> list[str]:
    """The sbatch scripts that `submit` would use; nothing is written and SLURM is not asked."""
    folder = runs_root / "sweeps" / sweep_id / "slurm"
    return [_script(r, launch).text() for r in _arrays(wanted, launch, folder, runs_root, limit=1001)]


def active_runs(runs_root: Path, jobs: dict[str, Job]) -> dict[str, Job]:
    """Run folders that SLURM has a waiting or running job for -> that job. Half-made submissions are settled first.

    The caller holds the submission lock, or does not mind a record that is being made at this moment.
    """
    by_name = {job.name: job for job in jobs.values()}
    active: dict[str, Job] = {}
    for record in all_records(runs_root):
        if record.job_id is None:
            if record.name not in by_name:
                continue
            _note(record, by_name[record.name].task.split("_")[0])
        for index, names in enumerate(record.jobs):
            job = jobs.get(f"{record.job_id}_{index}")
            active |= dict.fromkeys(names, job) if job else {}
            for folder in (RunDir(runs_root / name) for name in names if job):
                if folder.status().slurm_job_id is None:  # its submission died before it could say so
                    _mark_queued(folder, record.task_of(folder.path.name))
    return active


def _submit_one(record: Record, script: ArrayScript, already: Sequence[Record]) -> None:
    record.write()
    try:
        job_id = script.submit()
    except LaunchError as error:
        record.path.unlink()
        if already:
            error.add_note(
                f"submitted before that: {', '.join(str(r.job_id) for r in already)}; type the same line for the rest"
            )
        raise
    _note(record, job_id)


def _note(record: Record, job_id: str) -> None:
    record.job_id = job_id
    record.write()
    for names in record.jobs:
        for name in names:
            _mark_queued(RunDir(Path(record.runs_root) / name), record.task_of(name))


def _mark_queued(folder: RunDir, task: str | None) -> None:
    """A run whose job began in the meantime says itself what it does."""
    try:
        with folder.lock():
            status = folder.status()
            if status.state not in SETTLED and status.slurm_job_id != task:
                status.state, status.slurm_job_id, status.failure = State.queued, task, None
                folder.write_status(status)
    except RunBusyError:
        return


def _arrays(
    wanted: Sequence[Wanted], launch: SlurmConfig, folder: Path, runs_root: Path, limit: int | None = None
) -> Iterator[Record]:
    """Records of arrays: runs with equal needs together, `launch.pack` to a job, no more jobs than SLURM allows."""
    if not wanted:
        return
    most = limit or max_array_size()
    groups: dict[tuple[Resources, Path], list[str]] = {}
    for one in wanted:
        groups.setdefault((one.needs, one.code), []).append(one.folder.path.name)
    for (needs, code), names in sorted(groups.items()):
        jobs = [names[i : i + launch.pack] for i in range(0, len(names), launch.pack)]
        for start in range(0, len(jobs), most):
            yield Record.new(folder, runs_root, jobs[start : start + most], asdict(needs), code)


def _script(record: Record, launch: SlurmConfig) -> ArrayScript:
    return ArrayScript(record.path, Resources(**record.resources), launch, len(record.jobs), Path(record.code))
