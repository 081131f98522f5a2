"""Does a run that is killed and resumed give the same numbers as one that was not? Tested on the run itself.

Its first steps are trained twice: once undisturbed, and once in processes that are killed with SIGKILL and resumed, as
by a crash, a preemption without warning or a lost node. Then the two are compared to the last bit.
"""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from moe_sweeps.config.fork import ForkConfig
from moe_sweeps.config.search import SearchConfig
from moe_sweeps.config.tracking import TrackingConfig
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.launch.process import Worker, start
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.sweep.comparing import Part, compare_folders

# Each log line covers two steps, and checkpoints come after odd steps: every checkpoint then holds the sums of a line
# that is not written yet, which must survive the kill.
LOG_EVERY = 2
CHECKPOINTS = 6  # about how many are written in the steps that are trained
POLL_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Kill:
    """The last step that the killed process had logged, and the checkpoint from which the next one resumed."""

    logged: int
    checkpoint: int


@dataclass(frozen=True, slots=True)
class Verification:
    """How the two trainings of `steps` steps compare; the second had these kills."""

    steps: int
    kills: tuple[Kill, ...]
    parts: dict[str, Part]

    @property
    def same(self) -> bool:
        """Whether no part differs in any bit."""
        return not any(part.differences for part in self.parts.values())


@dataclass(frozen=True, slots=True)
class KillSchedule:
    """Train `steps` steps, with a checkpoint every `checkpoint_every`, and kill the process after each of `kill_at`."""

    steps: int
    checkpoint_every: int
    kill_at: tuple[int, ...]

    @classmethod
    def of(cls, run: RunConfig, steps: int, kills: int) -> KillSchedule:
        """Steps drawn by the run's id, spread out: after the first checkpoint, so that something is resumed, and well
        before the end, so that a fast run is not over yet.

        Raises:
            ConfigError: there are too few steps for that many kills.
        """
        steps = min(steps, run.trainer.steps)
        every = max(1, steps // CHECKPOINTS) | 1  # odd
        possible = range(every + 1, 2 * steps // 3 + 1)
        if not possible:
            rule = "a checkpoint, a kill after it and an end need at least 3 steps"
            raise ConfigError("--steps", steps, rule, "Use more --steps, with a run that has as many.")
        if not 1 <= kills <= len(possible):
            rule = f"a run of {steps} steps can be killed 1 to {len(possible)} times"
            raise ConfigError("--kills", kills, rule, "Use more --steps or fewer --kills.")
        draw = random.Random(run_id(run))
        bounds = [len(possible) * i // kills for i in range(kills + 1)]
        return cls(steps, every, tuple(draw.choice(possible[a:b]) for a, b in pairwise(bounds)))


def verify_resume(
    run: RunConfig,
    schedule: KillSchedule,
    root: Path,
    step_seen: Callable[[str, int], None] = lambda which, step: None,
) -> Verification:
    """Train the first steps of `run` twice in folders below `root`.

    `step_seen("undisturbed" or "killed", step)` reports progress.

    Raises:
        MoeSweepsError: a process ended by itself, or before all of the steps.
    """
    undisturbed = _frozen(run, schedule, root / "undisturbed")
    _train_to_the_end(undisturbed, lambda step: step_seen("undisturbed", step))
    _require_all_steps(undisturbed, schedule)
    killed = _frozen(run, schedule, root / "killed")
    kills = tuple(_kill_after(killed, step, lambda at: step_seen("killed", at)) for step in schedule.kill_at)
    _train_to_the_end(killed, lambda step: step_seen("killed", step))
    return Verification(schedule.steps, kills, compare_folders(undisturbed, killed))


def _frozen(run: RunConfig, schedule: KillSchedule, root: Path) -> RunDir:
    """The run, frozen with the schedule's logs, checkpoints and end. These are infrastructure: its id is the same."""
    settings = dataclasses.replace(
        run.trainer,
        stop_at=schedule.steps,
        log_every=LOG_EVERY,
        checkpoint_every=schedule.checkpoint_every,
        checkpoint_minutes=None,
    )
    paths = dataclasses.replace(run.paths, runs=str(root))
    changed = dataclasses.replace(run, trainer=settings, paths=paths, tracking=TrackingConfig(), search=SearchConfig())
    changed = dataclasses.replace(changed, fork=ForkConfig())  # from step 0: no trunk is here to continue from
    return freeze(changed, [], command="moe-sweeps verify-resume")


def _kill_after(folder: RunDir, step: int, step_seen: Callable[[int], None]) -> Kill:
    """Start the run, and SIGKILL it once it has logged `step`, and more than the process before it had."""
    step = max(step, _logged_step(folder) + 1)
    worker = start(folder)
    try:
        while worker.exitcode is None and _logged_step(folder) < step:
            step_seen(_logged_step(folder))
            time.sleep(POLL_SECONDS)
    finally:
        worker.kill()
        worker.join()
    if worker.exitcode != -signal.SIGKILL:
        raise _ended(folder, worker, f"before it could be killed after step {step}; use more --steps")
    return Kill(_logged_step(folder), folder.checkpoint_step())


def _train_to_the_end(folder: RunDir, step_seen: Callable[[int], None]) -> None:
    worker = start(folder)
    try:
        while worker.exitcode is None:
            worker.join(0.2)
            step_seen(_logged_step(folder))
    finally:
        worker.kill()
        worker.join()
    if worker.exitcode:
        raise _ended(folder, worker, "with an error")


def _require_all_steps(folder: RunDir, schedule: KillSchedule) -> None:
    status = folder.status()
    if not (status.is_paused or status.state is State.done) or status.step < schedule.steps:
        raise MoeSweepsError(
            f"{folder.path} is {status.state.value} after step {status.step} of {schedule.steps} without a kill: a run "
            "that ends early cannot be verified. Use fewer --steps, or a run that trains that long."
        )


def _ended(folder: RunDir, worker: Worker, how: str) -> MoeSweepsError:
    lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines() if folder.log.exists() else []
    last = f": {lines[-1]}" if lines else ""
    return MoeSweepsError(f"{folder.path} ended {how} (exit code {worker.exitcode}){last}")


def _logged_step(folder: RunDir) -> int:
    path = folder.path / "metrics.jsonl"
    complete = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return int(json.loads(complete.splitlines()[-1])["step"]) if complete else 0
