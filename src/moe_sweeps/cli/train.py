"""`python train.py`: train one run here, or with -m plan a sweep and run it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import yaml
from rich.console import Console
from rich.logging import RichHandler

from moe_sweeps.cli.planning import costs, require_budget, show
from moe_sweeps.cli.views import SweepView, TrainingBar, print_failures, print_summary
from moe_sweeps.config.compose import compose, option_help, options, to_dict
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.batches import TrainBatches, val_batches
from moe_sweeps.data.prepare import prepared
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.freeze import default_threads, freeze
from moe_sweeps.hardware import resolve_device
from moe_sweeps.paths import SWEEPS, resolve
from moe_sweeps.provenance import command_line
from moe_sweeps.rundir import FINISHED, RunDir, State
from moe_sweeps.sweep.budget import duration
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.file import load_sweep
from moe_sweeps.sweep.grid import single
from moe_sweeps.sweep.local import LocalSweep
from moe_sweeps.sweep.plan import Plan, make_plan, unread_settings, write_manifest
from moe_sweeps.worker import run_worker

EXAMPLES = """examples:
  python train.py scale=smoke
      the smallest run: under 20 s on one core
  python train.py balancer=lossfree balancer.rate=0.01 seed=1
      one proxy run with loss-free balancing
  python train.py -m balancer=aux,lossfree aux.coef=0.1,0.2,0.6 seed=0,1,2
      a sweep with three seeds: 18 combinations, 12 distinct runs
  python train.py -m sweep=aux_coef scale=smoke
      the grid of sweeps/aux_coef.yaml; what is typed beside it wins
"""
OK, FAILED, REFUSED, STOPPED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the process's exit code."""
    arguments = _parser().parse_intermixed_args(argv)
    console = Console()
    try:
        if arguments.cfg:
            console.out(yaml.safe_dump(to_dict(compose(single(arguments.overrides))), sort_keys=False), end="")
            return OK
        if arguments.multirun:
            return sweep(console, arguments.overrides, arguments.budget)
        return train_one(console, arguments.overrides)
    except MoeSweepsError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        print(f"error: {error}{notes}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("\nstopped; the same line typed again goes on where it stopped", file=sys.stderr)
        return STOPPED


def train_one(console: Console, overrides: Sequence[str]) -> int:
    """Train one run in this process, with a progress bar."""
    handler = RichHandler(console=console, show_path=False, show_time=False, show_level=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    settings = single(overrides)
    run = compose(settings)
    for key, why in unread_settings(run, settings).items():
        logging.warning("%s is not read by this run: it has %s, and %s would read it", key, why.by, why.reader)
    _check_machine_and_data([run])
    folder = freeze(run, overrides, command=command_line())
    state = folder.status().state
    if state in FINISHED:
        console.print(f"{folder.path.name} is already {state}; nothing to train", highlight=False)
    else:
        estimate = Estimator(resolve(run.paths.runs), default_threads(1)).estimate(run)
        console.print(f"training takes {duration(estimate.seconds)} ({estimate.source})", highlight=False)
        state = _train_with_bar(console, folder)
    if state is State.preempted:
        raise KeyboardInterrupt
    print_summary(console, folder, folder.summary() or {}, state)
    return OK


def sweep(console: Console, overrides: Sequence[str], budget: str | None = None) -> int:
    """Plan, print the plan, run what is missing, and print the result table.

    Raises:
        OverBudget: it takes longer than `budget`; nothing was started.
    """
    plan = make_plan(overrides)
    cost, estimator = costs(plan)
    show(console, plan, cost)
    if budget:
        require_budget(plan, cost, budget, overrides, estimator)
    cost.require_disk()
    todo, workers = [r.planned for r in cost.runs], cost.workers
    _check_machine_and_data([p.run for p in todo])
    folders = {run_id: p.frozen(command_line(), workers) for run_id, p in plan.runs.items()}
    write_manifest(plan, command_line())
    rows = [(plan.runs[run_id].label, folder) for run_id, folder in folders.items()]
    if todo:
        with SweepView(console, rows) as view:
            LocalSweep([folders[p.run_id] for p in todo], workers).run(view.tick)
    _show_table(console, plan)
    print_failures(console, rows)
    return OK if all(folder.status().state in FINISHED for _, folder in rows) else FAILED


def _show_table(console: Console, plan: Plan) -> None:
    # pandas and scipy take longer to import than a plan does, so they come when there is a table to make.
    from moe_sweeps.results.terminal import print_table
    from moe_sweeps.results.write import write_tables

    for table in write_tables(plan.runs_root, plan.reports_root, only=plan.sweep_id).tables:
        print_table(table, console)


def _check_machine_and_data(runs: Sequence[RunConfig]) -> None:
    """Refuse what this machine or the text cannot do before any run has a folder; prepare the data on first use."""
    for run in {repr((r.engine, r.data, r.trainer)): r for r in runs}.values():
        resolve_device(run.engine.device)
        data = prepared(run.data, resolve(run.paths.data))
        TrainBatches(data.train, run.trainer.seq_len, run.trainer.batch_size, data_seed=0)
        val_batches(data.val, run.trainer.seq_len, run.trainer.eval_batch_size)


def _train_with_bar(console: Console, folder: RunDir) -> State:
    status = folder.status()
    bar = TrainingBar(console, status.total_steps, completed=status.step)
    try:
        with bar.progress:
            return run_worker(folder, bar)
    except MoeSweepsError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MoeSweepsError(f"the run failed: {reason}\n  see {folder.path / 'traceback.txt'}") from error


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python train.py",
        description="Train one Mixture-of-Experts language model, or plan and run a sweep of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep: key=value1,value2 asks for a run of each")
    parser.add_argument("--budget", metavar="TIME", help="with -m: refuse a sweep that takes longer than 2h, 30m, ...")
    parser.add_argument("--cfg", action="store_true", help="print the resolved config instead of training")
    parser.add_argument("overrides", nargs="*", help="group=option or key=value")
    return parser


class _Parser(argparse.ArgumentParser):
    """Reads conf/ and sweeps/ only when help is asked for, so that a broken file stops nothing else."""

    def format_help(self) -> str:
        self.epilog = f"{EXAMPLES}\n{_groups_help()}"
        return super().format_help()


def _groups_help() -> str:
    lines = ["config groups and their options:"]
    for group, names in options().items():
        lines.append(f"  {group}")
        lines += [f"    {name:<16} {option_help(group, name)}" for name in names]
    lines.append("  sweep (with -m)")
    lines += [f"    {p.stem:<18} {load_sweep(p.stem).question}" for p in sorted(SWEEPS.glob("*.yaml"))]
    lines.append("every key with its value: python train.py --cfg")
    return "\n".join(lines)
