"""The canonical line with three seeds in stock Hydra and here: how many jobs, how long, and what a second typing does.

    python benchmarks/vs_stock_hydra.py [scale=smoke trainer.steps=100 schedule.warmup_steps=10]

Both train with the same code, on the same config, on one thread, one run after the other: stock Hydra with its own
`--multirun` and basic launcher, this project with `python train.py -m` and one worker. Data are prepared beforehand.
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

from moe_sweeps.config.compose import compose, register_schemas
from moe_sweeps.config.schema import RunConfig, validate
from moe_sweeps.data.prepare import prepared
from moe_sweeps.freeze import freeze
from moe_sweeps.paths import CONF, REPOSITORY, resolve
from moe_sweeps.rundir import RunDir
from moe_sweeps.worker import run_worker

CANONICAL = ["balancer=aux,lossfree", "aux.coef=0.1,0.2,0.6", "seed=0,1,2"]
SMALL = ["scale=smoke", "trainer.steps=100", "schedule.warmup_steps=10"]
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
    """Measure both, twice each: the first time, and the same line typed again."""
    small = sys.argv[1:] or SMALL
    run = compose([])
    prepared(run.data, resolve(run.paths.data))
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        stock = [__file__, STOCK, "-m", *CANONICAL, *small, "launch.threads=1"]
        here = [str(REPOSITORY / "train.py"), "-m", *CANONICAL, *small, "launch.threads=1", "launch.workers=1"]
        print("| | trained | seconds |\n|---|---|---|")
        for when in ("first", "again"):
            own = f"hydra.sweep.dir={folder}/multirun/{when}"  # as by default: a new folder each time
            seconds, output = timed([*stock, own], runs)
            print(f"| stock Hydra, {when} | {len(re.findall('JOB DONE', output))} | {seconds:.1f} |")
            before = done(runs)
            seconds, _ = timed(here, runs)
            print(f"| moe_sweeps, {when} | {done(runs) - before} | {seconds:.1f} |")


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
