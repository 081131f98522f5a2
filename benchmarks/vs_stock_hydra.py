"""Sweep throughput: results an hour here and in stock Hydra training by this project's own function, on the same cores.

    python benchmarks/vs_stock_hydra.py [--save] [scale=proxy trainer.steps=60 ...]

Stock Hydra is `--multirun` with its basic launcher: one job after the other in one process, with the threads that a
single run takes by default. Here it is `python train.py -m` as it stands: workers, threads, plan, probe and the result
table with it. The two lines are the canonical one with three seeds (18 combinations, 12 runs) and twelve
runs without duplicates. Data are prepared beforehand.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from record import Row, record, wants_saving

from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.fast_compose import register_schemas
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.schema import RunConfig, validate
from moe_sweeps.host.hardware import available_cores
from moe_sweeps.paths import CONF, REPOSITORY, resolve
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.worker import run_worker

CANONICAL = ["balancer=aux,lossfree", "aux.coef=0.1,0.2,0.6", "seed=0,1,2"]
TWELVE = ["balancer=aux", "aux.coef=0.1,0.2,0.4,0.6", "seed=0,1,2"]
SMALL = ["scale=smoke", "trainer.steps=50", "schedule.warmup_steps=5", "trainer.eval_every=50"]
SMALL += ["trainer.final_eval_sequences=64"]
STOCK = "--stock"  # this file is also the stock Hydra application


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def stock_job(config: DictConfig) -> None:
    """What a careful user of stock Hydra writes: a job that trains the config in Hydra's own folder."""
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    run.paths.runs = HydraConfig.get().runtime.output_dir
    run_worker(freeze(validate(run), [], command="stock Hydra"))
    print("JOB DONE")


def main() -> None:
    """Measure both lines in turn, print, and with --save keep."""
    save = wants_saving()
    small = sys.argv[1:] or SMALL
    run = compose([])
    prepared(run.data, resolve(run.paths.data))
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            _line("the canonical line with three seeds", CANONICAL, small, Path(folder) / "canonical", 1.8, again=True),
            _line("twelve runs without duplicates", TWELVE, small, Path(folder) / "twelve", 1.25),
        ]
    note = f"Each run: `{' '.join(small)}`. An hour's results are those that differ; stock Hydra trains some twice."
    title = "Sweep throughput against stock Hydra"
    record("vs_stock_hydra", title, rows, threads=available_cores(), save=save, note=note)


def _line(what: str, line: list[str], small: list[str], runs: Path, target: float, again: bool = False) -> Row:
    stock = [__file__, STOCK, "-m", *line, *small, f"hydra.sweep.dir={runs}/multirun"]
    theirs, output = timed(stock, runs)
    ours, _ = timed([str(REPOSITORY / "train.py"), "-m", *line, *small], runs)
    results = done(runs)
    seconds_again = _typed_again([*line, *small], runs, results) if again else None
    jobs = len(re.findall("JOB DONE", output))
    return {"what": what, "runs here": results, "jobs of stock Hydra": jobs, "seconds here": ours,
            "seconds stock": theirs, "results an hour here": results / ours * 3600,
            "results an hour stock": results / theirs * 3600, "ratio": theirs / ours, "target": target,
            "typed again, seconds here": seconds_again}  # fmt: skip


def _typed_again(line: list[str], runs: Path, results: int) -> float:
    seconds, _ = timed([str(REPOSITORY / "train.py"), "-m", *line], runs)
    if done(runs) != results:
        raise RuntimeError("the line typed again trained something")
    return seconds


def timed(command: list[str], runs: Path) -> tuple[float, str]:
    """Seconds and output of a command."""
    environment = os.environ | {"MOE_SWEEPS_RUNS": str(runs), "MOE_SWEEPS_REPORTS": f"{runs}-reports"}
    started = time.perf_counter()
    finished = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, finished.stdout


def done(runs: Path) -> int:
    """Finished runs in a folder."""
    return sum(1 for folder in RunDir.all(runs) if folder.summary())


if __name__ == "__main__":
    if STOCK in sys.argv:
        sys.argv.remove(STOCK)
        register_schemas()
        stock_job()
    else:
        main()
