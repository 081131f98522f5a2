"""What a worker process does: train one run, and tell by its exit code how that ended.

`python -m moe_sweeps.launch.work FOLDER` is a worker in an interpreter of its own.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from moe_sweeps.credentials import hide_keys_in_logs
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.errors import RunBusyError
from moe_sweeps.host.consoles import log_plainly
from moe_sweeps.host.output import log_to
from moe_sweeps.records.rundir import RunDir

FAILED = 1
BUSY = 75  # exit code of a worker whose run another worker trains
# Seconds that the tasks of a job wait for each other: a node's file system may be slow to load Python.
JOB_PATIENCE = 1800.0


def work(folder: RunDir, ranks: Ranks = ALONE) -> None:
    """The body of a worker process: train one run, alone or together with `ranks`; the first rank writes the run's
    log."""
    if ranks.is_first:
        log_to(folder.make_log())
    log_plainly()
    hide_keys_in_logs()
    from moe_sweeps.training.worker import run_worker

    try:
        with ranks.joined(patience=JOB_PATIENCE) as joined:
            run_worker(folder, ranks=joined)
    except RunBusyError as error:
        logging.info("%s", error)
        os._exit(BUSY)
    except Exception:
        logging.exception("the run failed")
        sys.exit(FAILED)


if __name__ == "__main__":
    work(RunDir(Path(sys.argv[1])))
