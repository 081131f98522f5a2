"""Finished runs with planted spreads, for tests of what plans promise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from helpers import TINY

from moe_sweeps.records.rundir import State, Status
from moe_sweeps.sweep.plan import make_plan

SD, FORK_SD = 0.02, 0.004


def finish(line: Sequence[str], sd: float = SD, seconds: float = 1.0) -> None:
    """Runs of `line` that have ended; trunks move all of their arms."""
    plan = make_plan([*TINY, *line])
    for planned in (plan.trunks | plan.runs).values():
        random = np.random.default_rng([planned.run.seed, int(planned.arm[:6], 16), planned.run.fork.replicate])
        trunk = 0.05 * np.random.default_rng(planned.run.seed).standard_normal() if plan.trunks else 0.0
        folder = planned.frozen("test", 1)
        summary = {"wall_seconds": seconds, "tokens": 1000, "val_loss": 4.0 + trunk + sd * random.standard_normal()}
        folder.write_summary(summary)
        folder.write_status(Status(State.done))
