"""Start-up: imports, from a command to its first training step, and from one run of a sweep to the next one's.

    python benchmarks/start_up.py [--save]

A run's first step is detected by the first line of its metrics (`trainer.log_every=1`), polled every few milliseconds;
the end of its predecessor by its status. The rival of a sweep's worker is one that starts in an interpreter of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from record import Row, bounded, compared, record, wants_saving

from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.grid import single

IMPORTS = ("moe_sweeps.cli.manage", "torch", "moe_sweeps.cli.train")
RUN = ["scale=smoke", "trainer.steps=2", "trainer.log_every=1", "trainer.final_eval_sequences=8", "launch.threads=1"]
RUN += ["schedule.warmup_steps=1"]
REPEATS, RUNS = 3, 5
FIRST_STEP_SECONDS = 1.5  # after the predecessor's end


def main() -> None:
    """Measure, print, and with --save keep."""
    save = wants_saving()
    rows = [_imports(name) for name in IMPORTS]
    with tempfile.TemporaryDirectory() as folder:
        rows += [_one_run(Path(folder)), *_in_a_sweep(Path(folder))]
    record("start_up", "Start-up", rows, threads=1, save=save)


def _imports(name: str) -> Row:
    wall, cpu = zip(*(timed([sys.executable, "-c", f"import {name}"]) for _ in range(REPEATS)), strict=True)
    return bounded(f"import {name}", median(wall), None, "s", cpu_seconds=median(cpu))


def timed(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu


def _one_run(root: Path) -> Row:
    seconds = []
    for seed in range(REPEATS):
        runs, started = root / f"one-{seed}", time.time()
        process = _train([*RUN, f"seed={seed}"], runs)
        seconds.append(_first_lines(process, runs, 1)[0][1] - started)
    return bounded("one run: command to first step", median(seconds), None, "s")


def _in_a_sweep(root: Path) -> list[Row]:
    """The first run of a sweep, and the later ones with one worker, against workers in fresh interpreters."""
    runs, started = root / "sweep", time.time()
    process = _train(["-m", *RUN, f"seed={','.join(map(str, range(RUNS)))}", "launch.workers=1"], runs)
    lines = _first_lines(process, runs, RUNS)
    ends = [(folder.path / "status.json").stat().st_mtime for folder, _ in lines]
    between = median(line - end for (_, line), end in zip(lines[1:], ends, strict=False))
    fresh = median(_fresh(root / f"fresh-{seed}", seed) for seed in range(REPEATS))
    return [
        bounded("sweep: command to first step (with plan and probe)", lines[0][1] - started, None, "s"),
        compared("sweep: predecessor's end to first step, against a fresh interpreter", between, fresh, "s",
                 limit=FIRST_STEP_SECONDS, held="yes" if between <= FIRST_STEP_SECONDS else "no"),
    ]  # fmt: skip


def _fresh(runs: Path, seed: int) -> float:
    folder = freeze(compose(single([*RUN, f"seed={seed}", f"paths.runs={runs}"])), [], command="benchmark")
    started = time.time()
    process = subprocess.Popen([sys.executable, "-m", "moe_sweeps.launch.work", str(folder.path)])
    return _first_lines(process, runs, 1)[0][1] - started


def _train(line: list[str], runs: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"MOE_SWEEPS_RUNS": str(runs), "MOE_SWEEPS_REPORTS": f"{runs}-reports"}
    return subprocess.Popen([sys.executable, str(REPOSITORY / "train.py"), *line], env=environment,
                            stdout=subprocess.DEVNULL)  # fmt: skip


def _first_lines(process: subprocess.Popen[bytes], runs: Path, count: int) -> list[tuple[RunDir, float]]:
    """When the first line of each run's metrics appeared, in that order; waits for the process."""
    seen: dict[Path, float] = {}
    while process.poll() is None:
        for path in set(runs.glob("*/metrics.jsonl")) - set(seen):
            if path.stat().st_size:
                seen[path] = path.stat().st_mtime
        time.sleep(0.005)
    if process.returncode or len(seen) != count:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}; {len(seen)} of {count} runs began")
    return [(RunDir(path.parent), when) for path, when in sorted(seen.items(), key=lambda item: item[1])]


if __name__ == "__main__":
    main()
