"""Large sweeps: planning 1,000 and 10,000 combinations, freezing, `status` and tables of 1,000 runs.

    python benchmarks/at_scale.py [--save]

Each is a command in a process of its own, imports included. CPU seconds are held against the limits, because each
of them is bound by one core. The rival of planning composes every combination by Hydra, as a stock Hydra sweep
does; that is measured on a few and multiplied. Runs are frozen by the project's own code and then filled with the files
that a finished run of 500 metric lines leaves.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from record import Row, bounded, compared, record, wants_saving
from results_frame import curve_text
from start_up import timed

from moe_sweeps.experiment.fast_compose import register_schemas
from moe_sweeps.host.files import write_json
from moe_sweeps.paths import CONF
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.sweep.manifest import write_manifest
from moe_sweeps.sweep.plan import make_plan

COMMAND = [sys.executable, "-c", "import sys; from moe_sweeps.cli.manage import main; sys.exit(main())"]
TABLES = [sys.executable, "-m", "moe_sweeps.cli.tables"]
COEFFICIENTS = ",".join(f"{n / 100:.2f}" for n in range(1, 11))
PLAN_SECONDS, STATUS_SECONDS, TABLES_SECONDS = 5.0, 2.0, 10.0
METRIC_LINES = 500
CPU = "CPU s"


def main() -> None:
    """Measure, print, and with --save keep."""
    save = wants_saving()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MOE_SWEEPS_RUNS": f"{folder}/runs", "MOE_SWEEPS_REPORTS": f"{folder}/reports"}
        by_hydra = _seconds_by_hydra()
        rows = [
            _planning(1000, by_hydra, PLAN_SECONDS),
            _planning(10_000, by_hydra, None),
            _freezing(1000),
            _command("`moe-sweeps status`, 1,000 runs", [*COMMAND, "status"], STATUS_SECONDS, repeats=3),
            _command("`make tables`, 1,000 runs", TABLES, TABLES_SECONDS, repeats=1),
        ]
    record("at_scale", "Large sweeps", rows, threads=1, save=save)


def line(combinations: int) -> list[str]:
    """Two balancers, ten coefficients and so many seeds that there are `combinations`; all are distinct runs."""
    seeds = ",".join(map(str, range(combinations // 20)))
    return ["balancer=aux,aux_lossfree", f"aux.coef={COEFFICIENTS}", f"seed={seeds}"]


def _planning(combinations: int, by_hydra: float, limit: float | None) -> Row:
    wall, cpu = timed([*COMMAND, "plan", "--no-probe", *line(combinations)])
    held: Row = {} if limit is None else {"limit": limit, "held": "yes" if cpu <= limit else "no"}
    what = f"`moe-sweeps plan`, {combinations:,} combinations, against composing each by Hydra"
    return compared(what, cpu, by_hydra * combinations, CPU, wall_seconds=wall) | held


def _seconds_by_hydra() -> float:
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return median(_seconds(partial(hydra_compose, "config", overrides=[f"seed={n}"])) for n in range(8))


def _freezing(combinations: int) -> Row:
    """Make the folders, as a sweep does before its first run starts; then fill them."""
    plan = make_plan(line(combinations))
    cpu, started = time.process_time(), time.perf_counter()
    folders = {run_id: planned.frozen("benchmark", threads=2) for run_id, planned in plan.runs.items()}
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    frozen = replace(plan, runs={i: replace(p, folder=folders[i]) for i, p in plan.runs.items()})
    write_manifest(frozen, "benchmark")
    for number, folder in enumerate(folders.values()):
        _finish(folder, number)
    return bounded(f"run folders of {combinations:,} runs", cpu, None, CPU, wall_seconds=wall)


def _finish(folder: RunDir, number: int) -> None:
    """The files of a run that is done, with numbers that differ from run to run."""
    status = folder.status()
    status.state, status.attempt, status.step = State.done, 1, status.total_steps
    folder.write_status(status)
    loss = 4.5 + number % 97 / 1000
    folder.write_summary({"val_loss": loss, "val_perplexity": 90.0, "val_accuracy": 0.25, "val_maxvio_global": 0.3,
                          "train_maxvio_batch": 0.4, "tokens": 2_048_000, "train_seconds": 190.0, "wall_seconds": 200.0,
                          "tokens_per_second": 1e4, "params_total": 10**6, "params_active": 10**5})  # fmt: skip
    (folder.path / "metrics.jsonl").write_text(curve_text(METRIC_LINES))
    attempt = {"host": "a", "source_hash": folder.provenance()["source_hash"], "data_fingerprint": "da7a", "threads": 1}
    write_json(folder.path / "provenance.json", folder.provenance() | {"attempts": [attempt], "pairing": {}})


def _command(what: str, command: list[str], limit: float, repeats: int) -> Row:
    wall, cpu = zip(*(timed([*command]) for _ in range(repeats)), strict=True)
    return bounded(what, median(cpu), limit, CPU, wall_seconds=median(wall))


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
