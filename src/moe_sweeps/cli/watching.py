"""Following runs to their end, wherever they are trained: heartbeats first, and SLURM where those leave it open."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from moe_sweeps.cli.follow import SweepView, exit_code, headline, print_failures, print_tracking
from moe_sweeps.errors import LaunchError
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.follow import Row
from moe_sweeps.sweep.slurm.agree import Queue

log = logging.getLogger(__name__)

IDLE_SECONDS = 40.0  # following ends when nothing has been trained for so long; SLURM is asked in between
POLL_SECONDS = 0.5


def follow(console: Console, runs: Sequence[tuple[str, RunDir]]) -> int:
    """Show `runs` until all are over, or nobody trains them; returns the exit code. Ctrl-C leaves them alone."""
    with SweepView(console, runs, agreed=agreeing()) as view:
        if not console.is_terminal:
            view.say(headline(view.rows))
        try:
            idle = _to_the_end(view)
        except KeyboardInterrupt:
            idle = False
    print_failures(console, view.rows)
    print_tracking(console, view.rows)
    if idle:
        console.print("Nothing is being trained. The line typed again goes on with what is left.", highlight=False)
    return exit_code(view.rows)


def agreeing() -> Callable[[list[Row]], list[Row]]:
    """What the queue adds to rows. While SLURM does not answer they stay as the folders say."""
    queue = Queue()

    def agreed(rows: list[Row]) -> list[Row]:
        try:
            return queue.with_queue(rows)
        except LaunchError as error:
            log.warning("states are those of the run folders: %s", error)
            return rows

    return agreed


def _to_the_end(view: SweepView) -> bool:
    """Tick until all runs are over (False), or none has been trained for a while (True)."""
    last = time.monotonic()
    while not all(row.is_over for row in view.rows):
        if any(row.state in (State.running, State.queued) for row in view.rows):
            last = time.monotonic()
        if time.monotonic() - last > IDLE_SECONDS:
            return True
        time.sleep(POLL_SECONDS)
        view.tick()
    return False
