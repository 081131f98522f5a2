"""`python train.py`: train one run here, or with -m plan a sweep and run it."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.logging import RichHandler

from moe_sweeps.cli.code_view import AS_THEY_ARE, code_lines, exit_code_by_code
from moe_sweeps.cli.follow import SweepView, exit_code, print_failures, print_tracking
from moe_sweeps.cli.freezing import frozen_runs, print_refused
from moe_sweeps.cli.machine import check_data, check_machine_and_data, check_memory_machine_and_data
from moe_sweeps.cli.next_view import print_next
from moe_sweeps.cli.planning import costs, require_budget, show
from moe_sweeps.cli.roots import command_at
from moe_sweeps.cli.search import run_search
from moe_sweeps.cli.select import run_label
from moe_sweeps.cli.slurm import show_scripts, submit_plan
from moe_sweeps.cli.version import HELP, OPTION, version_line
from moe_sweeps.cli.views import TrainingBar, print_summary
from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.config.registry import doc_of
from moe_sweeps.credentials import hide_keys_in_logs
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.distributed.rendezvous import variables
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.freeze import default_threads, freeze, snapshot_of
from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.experiment.options import option_help, options
from moe_sweeps.experiment.provenance import command_line
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.consoles import make_console, say
from moe_sweeps.host.files import NOT_ALLOWED
from moe_sweeps.host.locks import not_writable
from moe_sweeps.host.output import guarded
from moe_sweeps.host.program import run_program, stopped
from moe_sweeps.launch.follow import duration
from moe_sweeps.launch.local import LocalSweep, drive
from moe_sweeps.launch.process import fork_server_now
from moe_sweeps.launch.slurm.queue import require_slurm
from moe_sweeps.paths import SWEEPS, TRAIN, missing_folders, require_given_folders, resolve
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.mirror import require_tracker
from moe_sweeps.records.rundir import FINISHED, SETTLED, RunDir, State
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.file import load_sweep
from moe_sweeps.sweep.fitting import require_memory
from moe_sweeps.sweep.grid import ONE_RUN, single
from moe_sweeps.sweep.manifest import sweep_folder, write_manifest
from moe_sweeps.sweep.other_code import other_code
from moe_sweeps.sweep.plan import Plan, PlannedRun, make_plan, unread_settings
from moe_sweeps.sweep.search.space import asks_for_search
from moe_sweeps.training.worker import run_worker

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
      a search: each trial is suggested from the results so far
  python train.py -m sweep=aux_coef scale=smoke
      the grid of sweeps/aux_coef.yaml; settings on the command line win
"""
OK, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None, *, fresh: bool = False) -> int:
    """Entry point; returns the exit code. `fresh`: this process has computed nothing yet, so it may be forked."""
    with guarded(may_be_lost=True):
        return _run(argv, fresh=fresh)


def _run(argv: Sequence[str] | None, *, fresh: bool) -> int:
    ranks, console = ALONE, make_console()  # before the help, which has characters that stdout may lack
    arguments = _parser().parse_intermixed_args(argv)
    try:
        require_given_folders()
        ranks = Ranks.from_environment()
        console.quiet = not ranks.is_first
        if arguments.cfg:
            console.out(
                yaml.safe_dump(to_dict(compose(single(arguments.overrides, *ONE_RUN))), sort_keys=False), end=""
            )
            return OK
        if not arguments.multirun:
            return train_one(console, arguments.overrides, ranks, arguments.as_they_are)
        if ranks.size > 1:
            fix = f"Leave the launcher out, or unset {' '.join(variables())}."
            raise MoeSweepsError(f"-m starts its own processes, and this process is {ranks} already. {fix}")
        return sweep(console, arguments.overrides, arguments.budget, fresh=fresh, as_they_are=arguments.as_they_are)
    except MoeSweepsError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        who = f"{ranks}: " if ranks.size > 1 else ""
        say(f"{who}error: {error}{notes}", stderr=True)
        return REFUSED
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            raise
        say(f"error: {not_writable(error)}", stderr=True)
        return REFUSED
    except KeyboardInterrupt:
        return stopped("run the same command again to resume")


def train_one(console: Console, overrides: Sequence[str], ranks: Ranks = ALONE, as_they_are: bool = False) -> int:
    """Train one run in this process, or in all `ranks` together, with a progress bar on the first.

    `as_they_are`: accept a result that other code left.
    """
    _log_to(console)
    if asks_for_search(overrides):
        raise ConfigError("search", "on", "a search trains many runs, and without -m one is trained", "Add -m.")
    settings = single(overrides)
    run = compose(settings)
    if isinstance(run.launch, SlurmConfig):
        return sweep(console, overrides, as_they_are=as_they_are)  # of one run: a job, not this process, trains it
    for key, why in unread_settings(run, settings).items():
        logging.warning("%s is not read by this run: it has %s, and %s would read it", key, why.by, why.reader)
    trunks = list(make_plan(overrides).to_train.values())[:-1] if run.fork.continues else []
    _require_possible(run, ranks)
    with ranks.joined(_say_aloud) as joined:
        if joined.is_first:  # the others wait for the folder's name while the first prepares data
            check_machine_and_data([run])
        shared = [(trunk.run, _frozen_by_first(trunk.run, _typed(trunk), joined)) for trunk in trunks]
        folder = _frozen_by_first(run, overrides, joined)
        found = other_code([*shared, (run, folder)])
        for line in code_lines(found, None, as_they_are) if joined.is_first else ():
            console.print(line.strip(), highlight=False, soft_wrap=True, markup=True)
        for one, last in (*shared, (run, folder)):
            state = _train_unless_settled(console, one, last, joined)
            if state not in FINISHED:
                break
    if folder.status().is_paused:
        step, total = folder.status().step, run.trainer.steps
        console.print(f"paused after step {step} of {total}; run it without trainer.stop_at to resume", highlight=False)
        return OK
    _require_finished(last, state)  # of a fork, perhaps its trunk
    print_summary(console, folder, folder.summary() or {}, state)
    return exit_code_by_code(console, found, OK, as_they_are)


def _typed(trunk: PlannedRun) -> list[str]:
    return [str(setting) for setting in trunk.typed]


def _log_to(console: Console) -> None:
    handler = RichHandler(console=console, show_path=False, show_time=False, show_level=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    hide_keys_in_logs()


def _require_possible(run: RunConfig, ranks: Ranks) -> None:
    """Refuse a run that these processes cannot train, before they wait for each other."""
    try:
        ranks.require_even_split(run.trainer.batch_size, run.trainer.micro_batch_size)
    except ConfigError as error:
        error.add_note(f"If you did not start {ranks.size} processes, unset {' '.join(variables())}.")
        raise
    require_tracker(run.tracking.kind)
    require_memory([run], ranks.size, ranks.local_size)


def _require_finished(folder: RunDir, state: State) -> None:
    if state is State.preempted:
        raise KeyboardInterrupt
    if state is State.cancelled:
        raise MoeSweepsError(f"{folder.path.name} was cancelled; its state is saved. {_resume_cancelled(folder)}")


def _resume_cancelled(folder: RunDir) -> str:
    return f"`{command_at(folder.path.parent, 'retry', '--cancelled', folder.run_id)}` resumes it."


def _say_aloud(sentence: str) -> None:
    """Print in every process: only the first one has a console, and the first may be the one that is missing."""
    say(sentence, stderr=True)


def _frozen_by_first(run: RunConfig, overrides: Sequence[str], ranks: Ranks) -> RunDir:
    path = ""
    if ranks.is_first:
        path = str(freeze(run, overrides, command=command_line(), threads=default_threads(ranks.local_size)).path)
    return RunDir(Path(ranks.broadcast_text("run folder", path)))


def _train_unless_settled(console: Console, run: RunConfig, folder: RunDir, ranks: Ranks) -> State:
    state = folder.status().state
    if ranks.any(state is State.cancelled):
        raise MoeSweepsError(f"{folder.path.name} was cancelled. {_resume_cancelled(folder)}")
    if ranks.any(state in FINISHED):
        console.print(f"{folder.path.name} is already {state}; nothing to train", highlight=False)
        return state
    if snapshot_of(folder) is not None and ranks.size == 1:
        return _train_from_snapshot(console, folder)
    estimate = Estimator(resolve(run.paths.runs), default_threads(ranks.local_size)).estimate(run)
    console.print(f"training takes {duration(estimate.seconds)} ({estimate.source})", highlight=False)
    return _train_with_bar(console, folder, ranks)


def sweep(
    console: Console,
    overrides: Sequence[str],
    budget: str | None = None,
    *,
    fresh: bool = False,
    as_they_are: bool = False,
) -> int:
    """Plan, print the plan, train what is missing, and print the result table.

    `fresh`: workers are forked from this process as it is now, so that they import nothing. `as_they_are`: accept
    results that other code left.

    Raises:
        OverBudget: the sweep takes longer than `budget`; nothing was started.
    """
    if asks_for_search(overrides):
        return run_search(console, overrides, budget, check_memory_machine_and_data, as_they_are)
    plan = make_plan(overrides)
    launch = next(iter(plan.runs.values())).run.launch
    if fresh and any(_is_trained_here(p) and not p.run.launch.snapshot for p in plan.to_train.values()):
        fork_server_now()  # before a probe computes anything
    require_memory([p.run for p in plan.to_train.values() if _is_trained_here(p)])
    # A login node is no place to train a probe on.
    cost, estimator = costs(plan, probing=not isinstance(launch, SlurmConfig))
    code = show(console, plan, cost, sweeping=True, as_they_are=as_they_are)
    if budget:
        require_budget(plan, cost, budget, overrides, estimator)
    if isinstance(launch, SlurmConfig) and launch.dry_run:
        return show_scripts(console, plan, launch, estimator)
    cost.require_disk()
    todo = [r.planned for r in cost.runs]
    if isinstance(launch, SlurmConfig) and todo:
        require_slurm()
        check_data([p.run for p in todo])
        return exit_code_by_code(console, code, submit_plan(console, plan, launch, estimator), as_they_are)
    return exit_code_by_code(console, code, _run_here(console, plan, todo, cost.workers), as_they_are)


def _run_here(console: Console, plan: Plan, todo: Sequence[PlannedRun], workers: int) -> int:
    """Train `todo`, the runs of `plan` without a result, here, and print the table. Returns the exit code."""
    view, sweep_manifest, refused = train_here(console, plan, todo, workers)
    page = _show_table(console, plan, sweep_manifest)
    print_failures(console, view.rows)
    print_tracking(console, view.rows)
    print_refused(console, plan, refused)
    print_next(console, sweep_manifest, page, view.rows)
    return 1 if refused else exit_code(view.rows)


def train_here(
    console: Console, plan: Plan, todo: Sequence[PlannedRun], workers: int, threads: int | None = None
) -> tuple[SweepView, Manifest, dict[str, MoeSweepsError]]:
    """Freeze the runs of `plan`, write its manifest, and train `todo` on this machine.

    `threads` of a run; None: as many as so many workers leave to each.

    Returns what was seen of the runs, the manifest, and why runs were refused.
    """
    check_machine_and_data([p.run for p in todo])
    folders, refused = frozen_runs(plan, lambda p: p.frozen(command_line(), threads or default_threads(workers)))
    sweep_manifest = write_manifest(plan, command_line())
    labelled = [(run_label(sweep_manifest, run_id), folder) for run_id, folder in folders.items()]
    view = SweepView(console, labelled, workers)
    if any(p.run_id not in refused for p in todo):
        with view:
            drive(sweep_folder(plan), list(folders.values()), workers, view.tick, view.say)
    return view, sweep_manifest, refused


def _is_trained_here(planned: PlannedRun) -> bool:
    launch = planned.run.launch
    return not isinstance(launch, SlurmConfig) and planned.state not in SETTLED


def _show_table(console: Console, plan: Plan, own: Manifest) -> Path | None:
    """Write and print the table; returns where its page is."""
    # pandas and scipy take longer to import than a plan does, so they come when there is a table to make.
    from moe_sweeps.reports.terminal import print_table
    from moe_sweeps.reports.write import write_tables

    written = write_tables(plan.runs_root, plan.reports_root, only=plan.sweep_id, own=own)
    for table in written.tables:
        print_table(table, console)
    for problem in dict.fromkeys(problem for table in written.tables for problem in table.problems):
        console.print(f"problem: {problem}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    for problem in written.problems:
        console.print(f"could not be read: {problem}", highlight=False, markup=False, soft_wrap=True)
    return written.page


def _train_with_bar(console: Console, folder: RunDir, ranks: Ranks) -> State:
    status = folder.status()
    bar = TrainingBar(console, status.total_steps, completed=status.step)
    try:
        with bar.progress:
            return run_worker(folder, bar if ranks.is_first else None, ranks, show_progress=ranks.is_first)
    except MoeSweepsError:
        raise
    except Exception as error:
        failure = folder.status().failure  # where several processes failed: of the first
        reason = f"{failure.type}: {failure.message}" if failure else f"{type(error).__name__}: {error}"
        raise MoeSweepsError(f"the run failed: {reason}\n  see {folder.path / 'traceback.txt'}") from error


def _train_from_snapshot(console: Console, folder: RunDir) -> State:
    """Train in a worker that imports the snapshot: this process has imported the current sources."""
    with SweepView(console, [(folder.path.name, folder)], workers=1) as view:
        LocalSweep([folder], workers=1).run(view.tick)
    if print_failures(console, view.rows):
        raise MoeSweepsError(f"the run failed; see {folder.path / 'traceback.txt'}")
    return folder.status().state


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=TRAIN,
        description="Train one Mixture-of-Experts language model, or plan and run a sweep of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="sweep: key=value1,value2 trains one run for each value"
    )
    parser.add_argument("--budget", metavar="TIME", help="with -m: refuse a sweep that takes longer than 2h, 30m, ...")
    parser.add_argument(
        AS_THEY_ARE,
        action="store_true",
        help="accept results that other code left (without it they make the exit code 3)",
    )
    parser.add_argument("--cfg", action="store_true", help="print the resolved config instead of training")
    parser.add_argument(OPTION, action="version", version=version_line(), help=HELP)
    parser.add_argument("overrides", nargs="*", help="group=option or key=value")
    return parser


class _Parser(argparse.ArgumentParser):
    """Reads conf/ and sweeps/ only for the help text, so that a broken file there stops nothing else."""

    def format_help(self) -> str:
        self.epilog = f"{EXAMPLES.replace('python train.py', TRAIN)}\n{_groups_help()}"
        return super().format_help()


def _groups_help() -> str:
    if missing_folders():
        return "the config groups cannot be shown: `moe-sweeps doctor` says what is missing"
    single = [f.name for f in dataclasses.fields(RunConfig) if f.name not in {*options(), "paths"}]
    lines = ["keys without a group:"]
    lines += [f"  {key:<18} {doc_of(RunConfig, key)}" for key in single]
    lines.append("config groups and their options:")
    for group, names in options().items():
        lines.append(f"  {group:<18} {doc_of(RunConfig, group)}")
        lines += [f"    {name:<16} {option_help(group, name)}" for name in names]
    lines.append("  sweep (with -m)")
    lines += [f"    {p.stem:<18} {load_sweep(p.stem).question}" for p in sorted(SWEEPS.glob("*.yaml"))]
    lines.append(f"every key with its value: {TRAIN} --cfg; what each is for: moe-sweeps knobs")
    return "\n".join(lines)


if __name__ == "__main__":
    run_program(lambda: main(fresh=True))
