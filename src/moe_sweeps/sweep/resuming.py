"""Does a run that is killed and started again end as if nothing had happened? Tried out on the run itself.

Its first steps are trained twice, once undisturbed and once in processes that are killed with SIGKILL and started
again, as a crash, a preemption without warning or a lost node would do it. Then both are compared to the last bit.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.config.schema import RunConfig
from moe_sweeps.config.search import SearchConfig
from moe_sweeps.config.tracking import TrackingConfig
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.freeze import freeze
from moe_sweeps.identity import run_id
from moe_sweeps.rundir import RunDir
from moe_sweeps.sweep.comparing import Part, compare_folders
from moe_sweeps.sweep.process import Worker, start

CHECKPOINTS = 4  # so many in the steps that are tried out
POLL_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Comparison:
    """`steps` trained twice, in `attempts` processes the second time."""

    steps: int
    killed_after: tuple[int, ...]
    attempts: int
    parts: dict[str, Part]

    @property
    def same(self) -> bool:
        return not any(part.differences for part in self.parts.values())


def verify_resume(
    run: RunConfig,
    root: Path,
    *,
    steps: int,
    kills: int,
    step_seen: Callable[[str, int], None] = lambda what, step: None,
) -> Comparison:
    """Train the first `steps` steps of `run` twice in folders below `root`, the second time with `kills` kills.

    `step_seen` hears which of the two has come how far.

    Raises:
        ConfigError: there are not enough steps between which to kill.
        MoeSweepsError: a process ended by itself, or the run was over before it could be killed.
    """
    steps = min(steps, run.trainer.steps)
    early = range(1, max(1, 2 * steps // 3) + 1)  # late kills would come after the end of a fast run
    if not 1 <= kills <= len(early):
        rule = f"a run of {steps} steps can be killed 1 to {len(early)} times"
        raise ConfigError("--kills", kills, rule, "Ask for more --steps or fewer --kills.")
    moments = sorted(random.Random(run_id(run)).sample(early, kills))
    calm = _frozen(run, root / "undisturbed", steps)
    _train_on(calm, lambda step: step_seen("undisturbed", step))
    killed, after = _frozen(run, root / "killed", steps), []
    for moment in moments:
        after.append(_kill_after(killed, moment))
    _train_on(killed, lambda step: step_seen("killed", step))
    return Comparison(steps, tuple(after), killed.status().attempt, compare_folders(calm, killed))


def _frozen(run: RunConfig, root: Path, steps: int) -> RunDir:
    """The run with every step logged, checkpoints on the way, and an end after `steps`; all of it is infrastructure."""
    every = max(1, steps // CHECKPOINTS)
    settings = dataclasses.replace(
        run.trainer, stop_at=steps, log_every=1, checkpoint_every=every, checkpoint_minutes=None
    )
    paths = dataclasses.replace(run.paths, runs=str(root))
    trial = dataclasses.replace(run, trainer=settings, paths=paths, tracking=TrackingConfig(), search=SearchConfig())
    return freeze(trial, [], command="moe-sweeps verify-resume")


def _kill_after(folder: RunDir, moment: int) -> int:
    """Start the run, SIGKILL it when it has logged step `moment`, and return the step that it had logged by then."""
    worker = start(folder)
    try:
        while worker.exitcode is None and _logged_step(folder) < moment:
            time.sleep(POLL_SECONDS)
        if worker.exitcode is not None:
            raise _ended(folder, worker, f"before it could be killed after step {moment}; ask for more --steps")
    finally:
        worker.kill()
        worker.join()
    return _logged_step(folder)


def _train_on(folder: RunDir, step_seen: Callable[[int], None]) -> None:
    worker = start(folder)
    try:
        while worker.exitcode is None:
            worker.join(0.2)
            step_seen(_logged_step(folder))
        if worker.exitcode:
            raise _ended(folder, worker, "with an error")
    finally:
        worker.kill()
        worker.join()


def _ended(folder: RunDir, worker: Worker, how: str) -> MoeSweepsError:
    lines = folder.log.read_text().splitlines() if folder.log.exists() else []
    return MoeSweepsError(f"{folder.path} ended {how} (exit code {worker.exitcode}): {lines[-1] if lines else ''}")


def _logged_step(folder: RunDir) -> int:
    path = folder.path / "metrics.jsonl"
    complete = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return int(json.loads(complete.splitlines()[-1])["step"]) if complete else 0
