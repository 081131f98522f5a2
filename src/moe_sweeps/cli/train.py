"""`python train.py`: train one run here, or with -m plan a sweep and run it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.logging import RichHandler

from moe_sweeps.cli.follow import SweepView, exit_code, make_console, print_failures, print_tracking
from moe_sweeps.cli.planning import costs, require_budget, show
from moe_sweeps.cli.search import run_search
from moe_sweeps.cli.select import run_label
from moe_sweeps.cli.slurm import submit_plan
from moe_sweeps.cli.views import TrainingBar, print_summary
from moe_sweeps.config.compose import compose, option_help, options
from moe_sweeps.config.frozen import to_dict
from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.batches import TrainBatches, val_batches
from moe_sweeps.data.prepare import prepared
from moe_sweeps.distributed import ALONE, Ranks
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.freeze import default_threads, freeze, snapshot_of
from moe_sweeps.hardware import resolve_device
from moe_sweeps.mirroring import require_tracker
from moe_sweeps.paths import SWEEPS, resolve
from moe_sweeps.provenance import command_line
from moe_sweeps.results.manifest import load_manifest
from moe_sweeps.rundir import FINISHED, SETTLED, RunDir, State
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.file import load_sweep
from moe_sweeps.sweep.follow import duration
from moe_sweeps.sweep.grid import single
from moe_sweeps.sweep.local import LocalSweep, drive
from moe_sweeps.sweep.plan import Plan, PlannedRun, make_plan, unread_settings, write_manifest
from moe_sweeps.sweep.process import fork_server_now
from moe_sweeps.sweep.search.space import asks_for_search
from moe_sweeps.worker import run_worker

EXAMPLES = """examples:
  python train.py scale=smoke
      the smallest run: under 20 s on one core
  python train.py balancer=lossfree balancer.rate=0.01 seed=1
      one proxy run with loss-free balancing
  python train.py -m balancer=aux,lossfree aux.coef=0.1,0.2,0.6 seed=0,1,2
      a sweep with three seeds: 18 combinations, 12 distinct runs
  python -m torch.distributed.run --nproc-per-node 2 train.py trainer.micro_batch_size=4
      one run in two processes, each with half of every batch
  python train.py -m search=tpe search.trials=30 optimizer.base_lr='tag(log,interval(1e-3,3e-2))'
      a search: each trial is suggested from what the ones before it found
  python train.py -m sweep=aux_coef scale=smoke
      the grid of sweeps/aux_coef.yaml; what is typed beside it wins
"""
OK, REFUSED, STOPPED = 0, 2, 130
BRING_BACK = "`moe-sweeps retry --cancelled {}` goes on with it."


def main(argv: Sequence[str] | None = None, *, fresh: bool = False) -> int:
    """Entry point; returns the process's exit code. `fresh`: nothing has run in this process, so it may be copied."""
    arguments = _parser().parse_intermixed_args(argv)
    ranks, console = ALONE, make_console()
    try:
        ranks = Ranks.from_environment()
        console.quiet = not ranks.is_first
        if arguments.cfg:
            console.out(yaml.safe_dump(to_dict(compose(single(arguments.overrides))), sort_keys=False), end="")
            return OK
        if not arguments.multirun:
            return train_one(console, arguments.overrides, ranks)
        if ranks.size > 1:
            raise MoeSweepsError(f"-m starts processes of its own, and this one is {ranks}. Leave the launcher out.")
        return sweep(console, arguments.overrides, arguments.budget, fresh=fresh)
    except MoeSweepsError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        who = f"{ranks}: " if ranks.size > 1 else ""
        print(f"{who}error: {error}{notes}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("\nstopped; the same line typed again goes on where it stopped", file=sys.stderr)
        return STOPPED


def train_one(console: Console, overrides: Sequence[str], ranks: Ranks = ALONE) -> int:
    """Train one run in this process, or in this and its fellow `ranks`, with a progress bar on the first."""
    handler = RichHandler(console=console, show_path=False, show_time=False, show_level=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    if asks_for_search(overrides):
        raise ConfigError("search", "on", "a search trains many runs, and without -m one is trained", "Add -m.")
    settings = single(overrides)
    run = compose(settings)
    if isinstance(run.launch, SlurmConfig):
        return sweep(console, overrides)  # of one run: a job, not this process, trains it
    for key, why in unread_settings(run, settings).items():
        logging.warning("%s is not read by this run: it has %s, and %s would read it", key, why.by, why.reader)
    ranks.require_even_split(run.trainer.batch_size, run.trainer.micro_batch_size)
    require_tracker(run.tracking.kind)
    if ranks.is_first:
        _check_machine_and_data([run])
    with ranks.joined() as joined:
        folder = _frozen_by_first(run, overrides, joined)
        state = _train_unless_settled(console, run, folder, joined)
    if folder.status().is_paused:
        step, total = folder.status().step, run.trainer.steps
        console.print(f"paused after step {step} of {total}; the line without trainer.stop_at goes on", highlight=False)
        return OK
    if state is State.preempted:
        raise KeyboardInterrupt
    if state is State.cancelled:
        raise MoeSweepsError(f"the run was cancelled; its state is saved. {BRING_BACK.format(folder.run_id)}")
    print_summary(console, folder, folder.summary() or {}, state)
    return OK


def _frozen_by_first(run: RunConfig, overrides: Sequence[str], ranks: Ranks) -> RunDir:
    path = ""
    if ranks.is_first:
        path = str(freeze(run, overrides, command=command_line(), threads=default_threads(ranks.local_size)).path)
    return RunDir(Path(ranks.word_of_first("run folder", path)))


def _train_unless_settled(console: Console, run: RunConfig, folder: RunDir, ranks: Ranks) -> State:
    state = folder.status().state
    if ranks.any(state is State.cancelled):
        raise MoeSweepsError(f"{folder.path.name} was cancelled. {BRING_BACK.format(folder.run_id)}")
    if ranks.any(state in FINISHED):
        console.print(f"{folder.path.name} is already {state}; nothing to train", highlight=False)
        return state
    if snapshot_of(folder) is not None and ranks.size == 1:
        return _train_from_snapshot(console, folder)
    estimate = Estimator(resolve(run.paths.runs), default_threads(ranks.local_size)).estimate(run)
    console.print(f"training takes {duration(estimate.seconds)} ({estimate.source})", highlight=False)
    return _train_with_bar(console, folder, ranks)


def sweep(console: Console, overrides: Sequence[str], budget: str | None = None, *, fresh: bool = False) -> int:
    """Plan, print the plan, run what is missing, and print the result table.

    The workers of a `fresh` process are forked from it as it is now, so that they import nothing.

    Raises:
        OverBudget: it takes longer than `budget`; nothing was started.
    """
    if asks_for_search(overrides):
        return run_search(console, overrides, budget, _check_machine_and_data)
    plan = make_plan(overrides)
    launch = next(iter(plan.runs.values())).run.launch
    if fresh and any(_is_trained_here(p) for p in plan.runs.values()):
        fork_server_now()  # before a probe computes anything
    # A login node is no place to train a probe on.
    cost, estimator = costs(plan, probing=not isinstance(launch, SlurmConfig))
    show(console, plan, cost)
    if budget:
        require_budget(plan, cost, budget, overrides, estimator)
    cost.require_disk()
    todo, workers = [r.planned for r in cost.runs], cost.workers
    if isinstance(launch, SlurmConfig):
        _check_data([p.run for p in todo])
        return submit_plan(console, plan, launch, estimator)
    _check_machine_and_data([p.run for p in todo])
    folders = {run_id: p.frozen(command_line(), default_threads(workers)) for run_id, p in plan.runs.items()}
    path = write_manifest(plan, command_line())
    manifest = load_manifest(path)
    view = SweepView(console, [(run_label(manifest, run_id), folder) for run_id, folder in folders.items()], workers)
    if todo:
        with view:
            drive(path.parent, list(folders.values()), workers, view.tick, view.say)
    _show_table(console, plan)
    print_failures(console, view.rows)
    print_tracking(console, view.rows)
    return exit_code(view.rows)


def _is_trained_here(planned: PlannedRun) -> bool:
    launch = planned.run.launch
    return not isinstance(launch, SlurmConfig) and not launch.snapshot and planned.state not in SETTLED


def _show_table(console: Console, plan: Plan) -> None:
    # pandas and scipy take longer to import than a plan does, so they come when there is a table to make.
    from moe_sweeps.results.terminal import print_table
    from moe_sweeps.results.write import write_tables

    for table in write_tables(plan.runs_root, plan.reports_root, only=plan.sweep_id).tables:
        print_table(table, console)


def _check_machine_and_data(runs: Sequence[RunConfig]) -> None:
    """Refuse what this machine or the text cannot do before any run has a folder."""
    for run in {r.engine.device: r for r in runs}.values():
        resolve_device(run.engine.device)
    _check_data(runs)


def _check_data(runs: Sequence[RunConfig]) -> None:
    """Refuse what the text is too short for; prepare it on first use."""
    for run in {repr((r.data, r.trainer)): r for r in runs}.values():
        data = prepared(run.data, resolve(run.paths.data))
        TrainBatches(data.train, run.trainer.seq_len, run.trainer.batch_size, data_seed=0)
        val_batches(data.val, run.trainer.seq_len, run.trainer.eval_batch_size)


def _train_with_bar(console: Console, folder: RunDir, ranks: Ranks) -> State:
    status = folder.status()
    bar = TrainingBar(console, status.total_steps, completed=status.step)
    try:
        with bar.progress:
            return run_worker(folder, bar if ranks.is_first else None, ranks)
    except MoeSweepsError:
        raise
    except Exception as error:
        failure = folder.status().failure  # of several processes that of the first one to fail
        reason = f"{failure.type}: {failure.message}" if failure else f"{type(error).__name__}: {error}"
        raise MoeSweepsError(f"the run failed: {reason}\n  see {folder.path / 'traceback.txt'}") from error


def _train_from_snapshot(console: Console, folder: RunDir) -> State:
    """This process has imported the sources of now, so a worker of its own trains from the snapshot."""
    with SweepView(console, [(folder.path.name, folder)], workers=1) as view:
        LocalSweep([folder], workers=1).run(view.tick)
    if print_failures(console, view.rows):
        raise MoeSweepsError(f"the run failed; see {folder.path / 'traceback.txt'}")
    return folder.status().state


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
