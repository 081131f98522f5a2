"""`moe-sweeps decide`: train what the open questions of sweeps need, within a budget, and say what was decided."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console

from moe_sweeps.cli.decide_view import print_batch, print_decisions, print_dry_run
from moe_sweeps.cli.documents.decide import decide_document
from moe_sweeps.cli.documents.document import print_document
from moe_sweeps.cli.follow import print_failures
from moe_sweeps.cli.freezing import print_refused
from moe_sweeps.cli.machine import check_data
from moe_sweeps.cli.planning import costs
from moe_sweeps.cli.roots import command_at
from moe_sweeps.cli.slurm import submit_plan, threads_of_job
from moe_sweeps.cli.train import train_here
from moe_sweeps.config.groups import LaunchConfig, SlurmConfig
from moe_sweeps.errors import ConfigError, RunFolderError
from moe_sweeps.experiment.freeze import default_threads
from moe_sweeps.experiment.provenance import command_line
from moe_sweeps.host.consoles import make_console
from moe_sweeps.host.files import make_folder
from moe_sweeps.host.locks import Busy, locked
from moe_sweeps.launch.follow import duration
from moe_sweeps.launch.gpus import side_by_side
from moe_sweeps.launch.slurm.queue import require_slurm
from moe_sweeps.paths import SWEEPS
from moe_sweeps.records.code_record import name_files
from moe_sweeps.results.deciding.batches import FIRST_SEEDS, MOST_SEEDS, Batch
from moe_sweeps.sweep.budget import parse_duration
from moe_sweeps.sweep.decide.decision import Decision
from moe_sweeps.sweep.decide.seeds import Pool, StagePlan
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.file import load_sweep
from moe_sweeps.sweep.fitting import require_memory
from moe_sweeps.sweep.grid import SWEEP
from moe_sweeps.sweep.other_code import other_code
from moe_sweeps.sweep.plan import PlannedRun

DECIDED, FAILED, UNDECIDED = 0, 1, 12  # as those of judge
LARGEST = 1000  # seeds
POLL_SECONDS = 2.0


def decide(arguments: argparse.Namespace, console: Console) -> int:
    """Decide what the budget allows, and report; the exit code says whether everything is decided."""
    screen = make_console(stderr=True) if arguments.json else console
    budget = parse_duration(arguments.budget)
    decisions = open_decisions(arguments)
    if arguments.dry_run:
        first = best_batch(decisions, budget)
        require_one_code(decisions, first is not None)
        print_dry_run(screen, decisions, first, budget - spent(decisions))
        if arguments.json:
            print_document(console, decide_document(decisions, budget, first))
        return DECIDED if first is None and not any(d.open for d in decisions) else UNDECIDED
    with held(decisions, screen):
        for decision in decisions:
            decision.reload()
        require_first(decisions, budget)
        require_one_code(decisions, best_batch(decisions, budget) is not None)
        submitted = _train_all(screen, decisions, budget)
        if not submitted:
            for decision in decisions:
                if decision.has_news:
                    decision.close()
    if arguments.json:
        print_document(console, decide_document(decisions, budget))
    else:
        print_decisions(console, decisions, budget, submitted=submitted)
    still = [decision for decision in decisions if decision.open]
    if any(decision.failing() for decision in still):
        return FAILED
    return UNDECIDED if submitted or still else DECIDED


# --- what is to be decided --------------------------------------------------------------------------------------------


def open_decisions(arguments: argparse.Namespace) -> list[Decision]:
    """The decision of each sweep that was named; with --all, of every file that does not say `all: false`.

    Raises:
        ConfigError: an unknown sweep, or one that cannot be planned or decided.
    """
    most = arguments.max_seeds if arguments.max_seeds is not None else MOST_SEEDS
    if not FIRST_SEEDS <= most <= LARGEST:
        rule = f"a decision needs {FIRST_SEEDS} to {LARGEST} seeds an arm"
        raise ConfigError("--max-seeds", most, rule, f"Write --max-seeds {MOST_SEEDS}.")
    pools = [Pool.of(line, most) for line in lines_of(arguments.overrides, all_sweeps=arguments.all)]
    return [_opened(pool) for pool in {pool.key: pool for pool in pools}.values() if _asks(pool)]


def _asks(pool: Pool) -> bool:
    """Whether there is something to decide.

    Raises:
        ConfigError: there is one arm and no claim, or job scripts are asked for.
    """
    launch = next(iter(pool.whole.runs.values())).run.launch
    if isinstance(launch, SlurmConfig) and launch.dry_run:
        rule = "which jobs come next depends on what earlier ones find, so there are no scripts to print"
        raise ConfigError("launch.dry_run", True, rule, "Write --dry-run, which shows the first batch.")
    file = pool.whole.grid.file
    if len(pool.arms) < 2 and not (file and file.expect):
        rule = "one arm without a claim leaves nothing to decide"
        fix = "Give a key two values (aux.coef=0.1,0.2), or a sweep file with claims."
        raise ConfigError(SWEEP, pool.name, rule, fix)
    return True


def lines_of(overrides: Sequence[str], *, all_sweeps: bool) -> list[list[str]]:
    """The overrides of each sweep: `sweep=a,b` is two, --all every file of sweeps/ that does not say `all: false`."""
    rest = [word for word in overrides if word.partition("=")[0] != SWEEP]
    named = [word.partition("=")[2] for word in overrides if word.partition("=")[0] == SWEEP]
    if all_sweeps and named:
        raise ConfigError(SWEEP, named[-1], "--all means every sweep", "Leave one of them out.")
    if not all_sweeps:
        names = [name for name in (named[-1] if named else "").split(",") if name]
        if named and not names:
            raise ConfigError(SWEEP, named[-1], "it names no sweep", "Write sweep=aux_coef, or --all.")
        return [[*rest, f"{SWEEP}={name}"] for name in dict.fromkeys(names)] or [rest]
    files = (load_sweep(path.stem) for path in sorted(SWEEPS.glob("*.yaml")))
    return [[*rest, f"{SWEEP}={file.name}"] for file in files if file.in_all]


def _opened(pool: Pool) -> Decision:
    run = next(iter(pool.whole.runs.values())).run
    launch = run.launch
    at_hand = 1 if isinstance(launch, SlurmConfig) else side_by_side(run.engine.device, launch.pack)
    workers = launch.workers or at_hand
    threads = launch.threads or _threads(launch, workers)
    estimator = Estimator(pool.root, threads, probing=not isinstance(launch, SlurmConfig))
    width = 1 if isinstance(launch, SlurmConfig) else workers
    return Decision.of(pool, estimator, threads, command_line(), width)


def _threads(launch: LaunchConfig, workers: int) -> int:
    """What a run is trained with: on SLURM what its job asks for, here as many as a full batch leaves to each."""
    return threads_of_job(launch) if isinstance(launch, SlurmConfig) else default_threads(workers)


def require_first(decisions: Sequence[Decision], budget: float) -> None:
    """Refuse a budget that buys nothing, where there is nothing to judge either.

    Raises:
        ConfigError: it is smaller than the smallest batch.
    """
    if best_batch(decisions, budget) or any(d.pending() or d.has_news or d.record.closed for d in decisions):
        return
    cheapest = [found.cost for d in decisions if (found := d.smallest()) is not None]
    if cheapest:
        rule = f"the smallest batch, {FIRST_SEEDS} seeds of the arms of one question, takes {duration(min(cheapest))}"
        fix = f"Give at least --budget {round(min(cheapest)) + 1}s (core time), or a smaller scale."
        raise ConfigError("--budget", duration(budget), rule, fix)


def require_one_code(decisions: Sequence[Decision], trains: bool) -> None:
    """Refuse to train beside runs of other code, which could not be compared with them.

    Raises:
        ConfigError: some of the runs that count were trained by other code, and further ones would be trained.
    """
    for decision in decisions if trains else ():
        found = other_code((p.run, p.folder) for p in decision.pool.whole.runs.values())
        if found.trained:
            files = name_files(found.files)
            rule = (
                f"{len(found.trained)} of its runs were trained by other code ({files}), and no new run can be compared"
            )
            again = command_at(decision.pool.root, "retry", "--done", "--other-code")
            fix = f"Train them again ({again}), or begin with an empty folder: MOE_SWEEPS_RUNS=runs_new."
            raise ConfigError(SWEEP, decision.pool.name, rule, fix)


@contextmanager
def held(decisions: Sequence[Decision], screen: Console) -> Iterator[None]:
    """Hold every decision, so that no other shell takes the same looks; while one does, wait for it."""
    waiting = False
    while True:
        with ExitStack() as stack:
            try:
                for decision in decisions:
                    make_folder(decision.record.path.parent)
                    stack.enter_context(locked(decision.record.path.parent / ".lock"))
            except Busy:
                stack.close()
            except OSError as error:
                fix = "Move it away; it is a file that holds nothing."
                raise RunFolderError(f"the lock of a decision cannot be taken ({error}). {fix}") from error
            else:
                yield
                return
        if not waiting:
            screen.print("another process decides this; waiting for it (Ctrl-C leaves it alone)", highlight=False)
        waiting = True
        time.sleep(POLL_SECONDS)


# --- training ---------------------------------------------------------------------------------------------------------


def best_batch(decisions: Sequence[Decision], budget: float) -> tuple[Decision, Batch] | None:
    """The batch that promises the most decisions a core-second, and whose it is."""
    left = budget - spent(decisions)
    offers = [(decision, batch) for decision in decisions if (batch := decision.batch(left)) is not None]
    return max(offers, key=lambda offer: (offer[1].worth, -offer[1].cost), default=None)


def spent(decisions: Sequence[Decision]) -> float:
    """Core-seconds that these decisions have paid for, in this call and in earlier ones."""
    return sum(decision.spent() for decision in decisions)


def _train_all(screen: Console, decisions: Sequence[Decision], budget: float) -> bool:
    """Train batch after batch until nothing is worth it; returns whether jobs were submitted that are not over."""
    while True:
        left = budget - spent(decisions)
        begun = next(((d, p) for d in decisions if (p := d.pending()) and d.cost_of(p) <= left), None)
        if begun is not None:
            decision, runs = begun
            screen.print(
                f"{decision.pool.name}: resuming {len(runs)} runs that were begun", highlight=False, markup=False
            )
        elif (found := best_batch(decisions, budget)) is not None:
            print_batch(screen, found)
            decision, runs = found[0], found[0].runs_of(found[1].targets)
        else:
            return False
        plan = decision.begin([p.run_id for p in runs])
        if _train(screen, plan, runs, decision.threads):
            return True
        for one in decisions:
            one.reload()
        decision.note_tried([p.run_id for p in runs])


def _train(screen: Console, plan: StagePlan, runs: Sequence[PlannedRun], threads: int) -> bool:
    """Train as `python train.py -m` does, each run with the threads that it was priced with; returns whether jobs were
    submitted and not waited for."""
    launch = runs[0].run.launch
    on_slurm = isinstance(launch, SlurmConfig)
    if not on_slurm:
        require_memory([p.run for p in runs])
    cost, estimator = costs(plan, probing=not on_slurm)
    cost.require_disk()
    todo = [found.planned for found in cost.runs]
    if isinstance(launch, SlurmConfig):
        require_slurm()
        check_data([p.run for p in todo])
        submit_plan(screen, plan, launch, estimator)
        return not launch.wait
    view, _, refused = train_here(screen, plan, todo, cost.workers, threads)
    print_failures(screen, view.rows)
    print_refused(screen, plan, refused)
    return False
