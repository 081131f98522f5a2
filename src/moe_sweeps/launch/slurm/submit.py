"""Submit to SLURM exactly the runs that are missing, whatever was interrupted the last time.

Two facts make it safe to repeat a command at any moment. A record with a unique name is on disk before sbatch is
called, so a job whose submission died before noting its number is found in the queue by that name. And a run's lock
lets only one worker train it, so a superfluous job trains nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.errors import LaunchError, RunBusyError, RunFolderError
from moe_sweeps.host.files import make_folder
from moe_sweeps.host.locks import locked
from moe_sweeps.launch.slurm.others import hidden_tasks, is_own, known_users, other_users
from moe_sweeps.launch.slurm.queue import COMPLETING, WAITING, Job, longest_minutes, max_array_size, own_jobs
from moe_sweeps.launch.slurm.records import ArrayRecord, all_records
from moe_sweeps.launch.slurm.resources import Resources, within_limit
from moe_sweeps.launch.slurm.script import ArrayScript, NoAnswer
from moe_sweeps.records.rundir import PROBE_SECONDS, SETTLED, RunDir, State
from moe_sweeps.records.status import Status

log = logging.getLogger(__name__)

# Run folder -> the job in which the run ended before it was retried; None where none is known.
EndedIn = Mapping[str, str | None]
NOT_RETRIED: EndedIn = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Wanted:
    """One run that should be trained, and what it needs."""

    folder: RunDir
    needs: Resources
    code: Path  # the folder whose sources its job imports
    after: str | None = None  # the folder's name of the trunk that it continues from, where that is not trained yet


@dataclass(frozen=True, slots=True)
class Submission:
    """What one call submitted, and what it left alone."""

    arrays: list[ArrayRecord]
    active: list[RunDir]  # in the queue or running already


def submit(
    wanted: Sequence[Wanted], launch: SlurmConfig, runs_root: Path, sweep_id: str, retried: EndedIn = NOT_RETRIED
) -> Submission:
    """Submit every run of `wanted` that is neither settled nor in the queue.

    A job that a run of `retried` has ended in does not train it any more, though it may stay in the queue: for an
    instant, or for hours where it trains other runs.

    Raises:
        ConfigError: launch.minutes is longer than the partition allows.
        LaunchError: SLURM refused. Every script is tried with --test-only first, so usually nothing was submitted;
            what was is on record, and the same command submits the rest later.
    """
    folder = runs_root / "sweeps" / sweep_id / "slurm"
    make_folder(folder)
    with locked(runs_root / "sweeps" / ".submitting.lock", wait=None):
        others = other_users(runs_root)
        jobs = own_jobs(others=known_users(others))
        active = active_runs(runs_root, jobs, retried)
        hidden = _left_to_others(wanted, hidden_tasks(runs_root, others) - jobs.keys(), retried)
        taken = active.keys() | hidden
        missing = [w for w in wanted if w.folder.path.name not in taken and w.folder.status().state not in SETTLED]
        most = longest_minutes(launch.partition) if missing else None
        missing = [replace(w, needs=within_limit(w.needs, launch, most)) for w in missing]
        drafts = list(_arrays(missing, launch, folder, runs_root))
        scripts = {record.path: _script(record, launch) for record in drafts}
        _test_all(scripts.values())
        for done, record in enumerate(drafts):
            script = scripts[record.path]
            if record.after is not None and (task := _task_of(record.after, drafts[:done], active)):
                script = _script(record, launch, f"afterok:{task}")
            _submit_one(record, script, already=drafts[:done])
    return Submission(drafts, [w.folder for w in wanted if w.folder.path.name in taken])


def dry_run(wanted: Sequence[Wanted], launch: SlurmConfig, runs_root: Path, sweep_id: str) -> list[str]:
    """The sbatch scripts that `submit` would use; nothing is written and SLURM is not called.

    In the place of the number of a trunk's job, which is not known yet, stands the trunk's folder.
    """
    folder = runs_root / "sweeps" / sweep_id / "slurm"
    records = _arrays(wanted, launch, folder, runs_root, limit=1001)
    return [_script(r, launch, f"afterok:{r.after}" if r.after else None).text() for r in records]


def active_runs(runs_root: Path, jobs: Mapping[str, Job], retried: EndedIn = NOT_RETRIED) -> dict[str, Job]:
    """Run folders that a job of `jobs` trains or will train -> that job. Half-made submissions are settled first.

    The caller holds the submission lock, unless a record that is being written at this moment does not matter.
    """
    by_name = {job.name: job for job in jobs.values()}
    active: dict[str, Job] = {}
    for record in all_records(runs_root):
        if record.job_id is None:
            if record.name not in by_name:
                continue
            _note(record, by_name[record.name].task.split("_")[0], own=is_own(record))
        for task, names in zip(record.task_names(), record.jobs, strict=True):
            job = jobs.get(task)
            if job is not None and job.name == record.name:  # SLURM gives numbers a second time
                active |= {n: job for n in names if _trains(job, runs_root / n, retried, own=is_own(record))}
    return active


def _left_to_others(wanted: Sequence[Wanted], hidden: Collection[str], retried: EndedIn) -> set[str]:
    """Run folders that a job of another user may train, which squeue hides, so that nobody knows."""
    left = set()
    for folder in (w.folder for w in wanted) if hidden else ():
        status, name = folder.status(), folder.path.name
        task = status.slurm_job_id
        is_over = status.is_paused or status.state in SETTLED or status.state is State.failed
        if task in hidden and not is_over and retried.get(name, "") not in (task, None):
            left.add(name)
    if left:
        log.warning("left to jobs of other users, which squeue may hide: %s", ", ".join(sorted(left)))
    return left


def _trains(job: Job, run: Path, retried: EndedIn, *, own: bool) -> bool:
    """Whether the job trains the run or will. One that cannot be read is left to the job that has it.

    `own`: this user submitted the job; into a run of others nothing is written here.
    """
    folder = RunDir(run)
    try:
        status = folder.status()
    except RunFolderError:
        return True
    if job.state not in WAITING and _has_ended_in(job, status, run.name, retried):
        return False
    if own and status.slurm_job_id is None:  # its submission died before it could say so
        _mark_queued(folder, job.task)
    return True


def _has_ended_in(job: Job, status: Status, name: str, retried: EndedIn) -> bool:
    """Whether a job that has begun is done with the run: it failed there, or was stopped as the job ends."""
    if status.state is State.running:
        return False
    if status.state is State.failed:
        return status.slurm_job_id in (job.task, None)
    if name in retried:
        return retried[name] in (job.task, None)
    return job.state == COMPLETING and status.state is State.preempted


def _task_of(run: str, submitted: Sequence[ArrayRecord], active: Mapping[str, Job]) -> str | None:
    """The job that trains the run in folder `run`: one that was just submitted, or one in the queue."""
    found = next((task for record in submitted if (task := record.task_of(run))), None)
    return found or (active[run].task if run in active else None)


def _test_all(scripts: Collection[ArrayScript]) -> None:
    """Let SLURM check every script; if it refuses one, all are removed."""
    try:
        for script in scripts:
            script.test()
    except LaunchError:
        for script in scripts:
            script.path.unlink(missing_ok=True)
        raise


def _submit_one(record: ArrayRecord, script: ArrayScript, already: Sequence[ArrayRecord]) -> None:
    record.write()
    try:
        job_id = script.submit()
    except NoAnswer as error:  # the record stays: the next call asks the queue for a job of its name
        error.add_note(
            "SLURM may have taken the job. The same command asks the queue first, and submits nothing twice."
        )
        raise
    except LaunchError as error:
        record.path.unlink()
        script.path.unlink(missing_ok=True)
        if already:
            error.add_note(
                f"submitted before that: {', '.join(str(r.job_id) for r in already)}; the same command submits the rest"
            )
        raise
    _note(record, job_id)


def _note(record: ArrayRecord, job_id: str, *, own: bool = True) -> None:
    """Note the number of a record's job. A record of another user stays theirs: their job follows no other."""
    record.job_id = job_id
    if not own:
        return
    record.write()
    for names in record.jobs:
        for name in names:
            _mark_queued(RunDir(Path(record.runs_root) / name), record.task_of(name))


def _mark_queued(folder: RunDir, task: str | None) -> None:
    """Note the run's job in its status, unless the job has begun: its worker does so itself."""
    try:
        with folder.lock(wait=PROBE_SECONDS):  # a process that follows runs holds it for an instant
            status = folder.status()
            if status.state not in SETTLED and status.slurm_job_id != task:
                status.state, status.slurm_job_id, status.failure = State.queued, task, None
                status.forget_deaths()
                folder.write_status(status)
    except RunBusyError:
        return


def _arrays(
    wanted: Sequence[Wanted], launch: SlurmConfig, folder: Path, runs_root: Path, limit: int | None = None
) -> Iterator[ArrayRecord]:
    """Records of arrays: runs with equal needs and the same trunk share one, `launch.pack` in a job, with at most the
    tasks SLURM allows."""
    if not wanted:
        return
    most = limit or max_array_size()
    groups: dict[tuple[str, Resources, Path], list[str]] = {}  # trunks, which wait for nothing, come first
    for one in wanted:
        groups.setdefault((one.after or "", one.needs, one.code), []).append(one.folder.path.name)
    for (after, needs, code), names in sorted(groups.items()):
        jobs = [names[i : i + launch.pack] for i in range(0, len(names), launch.pack)]
        for start in range(0, len(jobs), most):
            yield ArrayRecord.new(folder, runs_root, jobs[start : start + most], asdict(needs), code, after or None)


def _script(record: ArrayRecord, launch: SlurmConfig, after: str | None = None) -> ArrayScript:
    needs = Resources(**record.resources)
    return ArrayScript(record.path, needs, launch, len(record.jobs), Path(record.code), after)
