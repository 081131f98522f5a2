"""Does a run that is killed and started again end as if nothing had happened? Tried out on the run itself.

Its first steps are trained twice, once undisturbed and once in processes that are killed with SIGKILL and started
again, as a crash, a preemption without warning or a lost node would do it. Then both are compared to the last bit.
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

from moe_sweeps.config.schema import RunConfig
from moe_sweeps.config.search import SearchConfig
from moe_sweeps.config.tracking import TrackingConfig
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.freeze import freeze
from moe_sweeps.identity import run_id
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.comparing import Part, compare_folders
from moe_sweeps.sweep.process import Worker, start

# A line of the logs covers two steps and a checkpoint comes after an odd number, so that each is written while sums
# over half a line are open, which have to outlive the kill.
LOG_EVERY = 2
CHECKPOINTS = 6  # about so many in the steps that are tried out
POLL_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Kill:
    """The last step that the process had logged, and the checkpoint from which the next one went on."""

    logged: int
    checkpoint: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `steps` trained twice gave, with these kills the second time."""

    steps: int
    kills: tuple[Kill, ...]
    parts: dict[str, Part]

    @property
    def same(self) -> bool:
        return not any(part.differences for part in self.parts.values())


@dataclass(frozen=True, slots=True)
class Trial:
    """So many steps, a checkpoint after every so many, and the steps after which the process is to be killed."""

    steps: int
    every: int
    moments: tuple[int, ...]

    @classmethod
    def of(cls, run: RunConfig, steps: int, kills: int) -> Trial:
        """Moments that the run's id draws, spread out: after the first checkpoint, or nothing would be resumed, and
        well before the end, or a fast run would be over.

        Raises:
            ConfigError: there are too few steps for that.
        """
        steps = min(steps, run.trainer.steps)
        every = max(1, steps // CHECKPOINTS) | 1
        possible = range(every + 1, 2 * steps // 3 + 1)
        if not possible:
            rule = "a checkpoint, a kill after it and an end need 3 steps at least"
            raise ConfigError("--steps", steps, rule, "Ask for more --steps, of a run that has them.")
        if not 1 <= kills <= len(possible):
            rule = f"a run of {steps} steps can be killed 1 to {len(possible)} times"
            raise ConfigError("--kills", kills, rule, "Ask for more --steps or fewer --kills.")
        draw = random.Random(run_id(run))
        bounds = [len(possible) * i // kills for i in range(kills + 1)]
        return cls(steps, every, tuple(draw.choice(possible[a:b]) for a, b in pairwise(bounds)))


def verify_resume(
    run: RunConfig, trial: Trial, root: Path, step_seen: Callable[[str, int], None] = lambda what, step: None
) -> Comparison:
    """Train the first steps of `run` twice in folders below `root`; `step_seen` hears which of the two is how far.

    Raises:
        MoeSweepsError: a process ended by itself, or before all of the steps.
    """
    calm = _frozen(run, trial, root / "undisturbed")
    _train_on(calm, lambda step: step_seen("undisturbed", step))
    _require_whole(calm, trial)
    killed = _frozen(run, trial, root / "killed")
    kills = tuple(_kill_after(killed, moment, lambda step: step_seen("killed", step)) for moment in trial.moments)
    _train_on(killed, lambda step: step_seen("killed", step))
    return Comparison(trial.steps, kills, compare_folders(calm, killed))


def _frozen(run: RunConfig, trial: Trial, root: Path) -> RunDir:
    """The run with its own logs, checkpoints and end; all of it is infrastructure."""
    settings = dataclasses.replace(
        run.trainer, stop_at=trial.steps, log_every=LOG_EVERY, checkpoint_every=trial.every, checkpoint_minutes=None
    )
    paths = dataclasses.replace(run.paths, runs=str(root))
    changed = dataclasses.replace(run, trainer=settings, paths=paths, tracking=TrackingConfig(), search=SearchConfig())
    return freeze(changed, [], command="moe-sweeps verify-resume")


def _kill_after(folder: RunDir, moment: int, step_seen: Callable[[int], None]) -> Kill:
    """Start the run, and SIGKILL it when it has logged step `moment` and more than the process before it."""
    moment = max(moment, _logged_step(folder) + 1)
    worker = start(folder)
    try:
        while worker.exitcode is None and _logged_step(folder) < moment:
            step_seen(_logged_step(folder))
            time.sleep(POLL_SECONDS)
    finally:
        worker.kill()
        worker.join()
    if worker.exitcode != -signal.SIGKILL:
        raise _ended(folder, worker, f"before it could be killed after step {moment}; more --steps would help")
    return Kill(_logged_step(folder), folder.checkpoint_step())


def _train_on(folder: RunDir, step_seen: Callable[[int], None]) -> None:
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


def _require_whole(folder: RunDir, trial: Trial) -> None:
    status = folder.status()
    if not (status.is_paused or status.state is State.done) or status.step < trial.steps:
        raise MoeSweepsError(
            f"{folder.path} is {status.state.value} after step {status.step} of {trial.steps}, undisturbed: a run that "
            "ends early cannot be tried out. Ask for fewer --steps, or for a run that goes on."
        )


def _ended(folder: RunDir, worker: Worker, how: str) -> MoeSweepsError:
    lines = folder.log.read_text().splitlines() if folder.log.exists() else []
    last = f": {lines[-1]}" if lines else ""
    return MoeSweepsError(f"{folder.path} ended {how} (exit code {worker.exitcode}){last}")


def _logged_step(folder: RunDir) -> int:
    path = folder.path / "metrics.jsonl"
    complete = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return int(json.loads(complete.splitlines()[-1])["step"]) if complete else 0
