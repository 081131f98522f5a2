"""Follow runs to their end, wherever they are trained: by heartbeats, and by SLURM where those do not tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from moe_sweeps.cli.follow import SweepView, exit_code, headline, print_failures, print_tracking
from moe_sweeps.errors import LaunchError
from moe_sweeps.launch.follow import RunRow
from moe_sweeps.launch.slurm.agree import Queue
from moe_sweeps.records.rundir import RunDir, State

log = logging.getLogger(__name__)

IDLE_SECONDS = 40.0  # following ends when nothing has been trained for this long; SLURM is asked in between
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
        console.print("Nothing is being trained. Run the sweep's command again to train what is left.", highlight=False)
    return exit_code(view.rows)


def agreeing() -> Callable[[list[RunRow]], list[RunRow]]:
    """A function that corrects rows by SLURM's queue. While SLURM does not answer, rows stay as the folders say."""
    queue = Queue()

    def agreed(rows: list[RunRow]) -> list[RunRow]:
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
