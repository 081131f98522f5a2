"""The search itself: a free worker gets the next run of a trial, a promotion, or a new suggestion.

No worker waits for the slowest run. All state is in the manifest and the run folders, so an interrupted search reads
them again and resumes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from moe_sweeps.errors import NotWritable
from moe_sweeps.experiment.freeze import default_threads, freeze
from moe_sweeps.host.files import NOT_ALLOWED, make_folder
from moe_sweeps.host.locks import Busy, locked
from moe_sweeps.launch.local import POLL_SECONDS, LocalSweep, Tick
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.sweep.search.halving import Rung, next_promotion
from moe_sweeps.sweep.search.plan import SearchPlan
from moe_sweeps.sweep.search.record import load_trials, path_of, save
from moe_sweeps.sweep.search.stop import drop_stop_request, stop_requested
from moe_sweeps.sweep.search.suggest import suggest
from moe_sweeps.sweep.search.trials import Outcome, RunFacts, Standing, Trial, read_facts, standing, told

Seen = Callable[[str, RunDir], None]
MOST_STARTS = 3  # in a row, of a worker that ends before it begins an attempt; its log says why
GIVEN_UP = (Outcome.failed, Outcome.cancelled)
LOST = (*GIVEN_UP, Outcome.diverged)
NOT_RUN_AGAIN = (State.done, State.diverged, State.cancelled)


@dataclass(slots=True)
class Search:
    """The trials of a search, as its manifest and the run folders know them.

    `seen` is called with the label and folder of every run. A failed run is retried at most once by each such object.
    """

    plan: SearchPlan
    command: str
    workers: int = 1
    seen: Seen = lambda label, folder: None
    trials: list[Trial] = field(default_factory=list)
    folders: dict[str, RunDir] = field(default_factory=dict)
    _loaded: int = -1
    # Run id -> its attempt number when last started here, and how many starts in a row left that number unchanged.
    _starts: dict[str, tuple[int, int]] = field(default_factory=dict)
    _facts: dict[str, tuple[tuple[int, ...], RunFacts]] = field(default_factory=dict)

    def load(self) -> None:
        """Read the trials suggested so far from the manifest."""
        self._loaded = _changed(path_of(self.plan))
        self.trials = load_trials(self.plan)
        for trial in self.trials:
            self._find_folders(trial)

    def load_if_changed(self) -> None:
        """The same, if the manifest has changed since."""
        if _changed(path_of(self.plan)) != self._loaded:
            self.load()

    def next_run(self, in_hand: Collection[RunDir] = ()) -> RunDir | None:
        """A run for a free worker, frozen to stop at its trial's target. `in_hand`: runs that are training.

        None: there is nothing to train now, and if nothing is training either, the search is over.
        """
        while True:
            for trial in self._own_trials():
                for run_id in trial.runs:
                    if self._needs_training(run_id, trial.target, in_hand):
                        return self._frozen(trial, run_id)
            if stop_requested(self.plan.folder):
                return None
            if not (self._promote() or self._suggest() or (not in_hand and self._promote(at_the_end=True))):
                return None

    def standing(self, trial: Trial) -> Standing:
        """Where a trial stands, by its run folders."""
        owner = trial if trial.same_as is None else self.trials[trial.same_as]
        return standing(owner, [self._fact(run_id) for run_id in owner.runs], self.plan.rungs)

    def labelled_folders(self) -> list[tuple[str, RunDir]]:
        """(label, run folder) of every run of the search so far."""
        own = [(trial, run_id) for trial in self._own_trials() for run_id in trial.runs if run_id in self.folders]
        return [(_run_label(trial, run_id), self.folders[run_id]) for trial, run_id in own]

    def save(self, *, over: bool = False) -> None:
        """Write the manifest."""
        save(self.plan, self.trials, self.command, self.folders, self.ranked() if over else None)

    def ranked(self) -> list[tuple[Trial, Standing]]:
        """The trials with their standing, best first: those that were trained to their end, then by steps reached.

        A suggestion that repeats an earlier one is left out.
        """
        found = [(trial, self.standing(trial)) for trial in self.trials if trial.same_as is None]
        return sorted(found, key=_order)

    @property
    def is_complete(self) -> bool:
        """Whether every trial was suggested and trained as far as it gets, so that nothing is left to train."""
        if len(self.trials) < self.plan.search.trials:
            return False
        stands = [self.standing(trial) for trial in self._own_trials()]
        if any(found.outcome in (Outcome.open, Outcome.failed) for found in stands):
            return False
        return next_promotion(self._rungs(), self.plan.search.reduction, at_the_end=True) is None

    # --- the three things that give a worker something to do ------------------------------------------------------

    def _promote(self, *, at_the_end: bool = False) -> bool:
        """Promote the best trial of a rung to the next rung; returns whether there was one."""
        self._skip_rungs_without_value()
        found = next_promotion(self._rungs(), self.plan.search.reduction, at_the_end=at_the_end)
        if found is None:
            return False
        level, number = found
        self.trials[number].target = self._stop_after(self.plan.rungs[level])
        self.save()
        return True

    def _suggest(self) -> bool:
        """Add the next suggestion; returns whether one was left."""
        plan = self.plan
        if len(self.trials) >= plan.search.trials:
            return False
        history = [told(trial, self.standing(trial), plan.search) for trial in self.trials]
        params = suggest(plan.space.axes, plan.search, history)
        trial = plan.trial(len(self.trials), params, self.trials)
        self.trials.append(trial)
        self._find_folders(trial)
        self.save()
        return True

    def _frozen(self, trial: Trial, run_id: str) -> RunDir:
        run, settings = trial.runs[run_id], self._settings(trial, run_id)
        run = dataclasses.replace(run, trainer=dataclasses.replace(run.trainer, stop_at=trial.target))
        attempt, (before, starts) = self._fact(run_id).attempt, self._starts.get(run_id, (-1, 0))
        folder = freeze(run, settings, command=self.command, threads=default_threads(self.workers))
        self._starts[run_id] = attempt, starts + 1 if before == attempt else 1
        self._note_folder(trial, run_id, folder)
        return folder

    # --- what is known --------------------------------------------------------------------------------------------

    def _own_trials(self) -> list[Trial]:
        """Trials with runs of their own: neither refused nor the same as an earlier one."""
        return [trial for trial in self.trials if trial.same_as is None and trial.refused is None]

    def _stop_after(self, rung: int) -> int | None:
        """The target of a trial after a rung: the next rung, or None for its end."""
        return next((r for r in self.plan.rungs if r > rung), None)

    def _rungs(self) -> list[Rung]:
        stands = {trial.number: self.standing(trial) for trial in self._own_trials()}
        lost = {n for n, found in stands.items() if found.outcome in LOST}
        return [
            Rung(
                {n: found.rung_values[rung] for n, found in stands.items() if rung in found.rung_values},
                {n for n, found in stands.items() if self.trials[n].goes_beyond(rung) or found.outcome in GIVEN_UP},
                lost,
            )
            for rung in self.plan.rungs
        ]

    def _skip_rungs_without_value(self) -> None:
        """Raise the target of a trial that another sweep trained beyond it without an evaluation up to there."""
        for trial in self._own_trials():
            facts = [self._fact(run_id) for run_id in trial.runs]
            while trial.target is not None and all(_is_beyond_without_value(f, trial.target) for f in facts):
                trial.target = self._stop_after(trial.target)

    def _needs_training(self, run_id: str, target: int | None, in_hand: Collection[RunDir]) -> bool:
        folder, facts = self.folders.get(run_id), self._fact(run_id)
        if facts.state in NOT_RUN_AGAIN or (folder is not None and folder in in_hand):
            return False
        attempt, starts = self._starts.get(run_id, (-1, 0))
        if (facts.state is State.failed and starts) or (starts >= MOST_STARTS and attempt == facts.attempt):
            return False
        return not facts.has_reached(target)

    def _fact(self, run_id: str) -> RunFacts:
        """What the folder says; read again when its status, checkpoints or metrics changed."""
        folder = self.folders.get(run_id)
        if folder is None:
            return RunFacts()
        stamp = tuple(_changed(folder.path / name) for name in ("status.json", "checkpoints", "metrics.jsonl"))
        seen, facts = self._facts.get(run_id, (None, RunFacts()))
        if seen != stamp:
            facts = read_facts(folder, self.plan.search.number)
            self._facts[run_id] = (stamp, facts)
        return facts

    def _find_folders(self, trial: Trial) -> None:
        for run_id in trial.runs:
            found = RunDir.find(self.plan.runs_root, run_id) if run_id not in self.folders else None
            if found is not None:
                self._note_folder(trial, run_id, found)

    def _note_folder(self, trial: Trial, run_id: str, folder: RunDir) -> None:
        if run_id not in self.folders:
            self.folders[run_id] = folder
            self.seen(_run_label(trial, run_id), folder)

    def _settings(self, trial: Trial, run_id: str) -> list[str]:
        seed = self.plan.space.seeds[list(trial.runs).index(run_id)]
        return [str(setting) for setting in self.plan.space.settings(trial.point, seed)]


def drive(search: Search, tick: Tick, say: Callable[[str], None]) -> None:
    """Search to the end; while another process does so, follow it, and take over when it is gone.

    Raises:
        KeyboardInterrupt: the process was asked to stop, and its workers have saved their state and ended.
    """
    try:
        _drive(search, tick, say)
    except (OSError, NotWritable) as error:
        is_closed = isinstance(error, NotWritable) or error.errno in NOT_ALLOWED
        if not (is_closed and search.is_complete):  # a complete search of somebody else needs no writing
            raise


def _drive(search: Search, tick: Tick, say: Callable[[str], None]) -> None:
    make_folder(search.plan.folder)
    following = False
    while True:
        try:
            with locked(search.plan.folder / ".lock"):
                drop_stop_request(search.plan.folder)
                search.load()
                if following and not search.is_complete:
                    say("the process that ran this search is gone; resuming here")
                LocalSweep([], search.workers, feed=search.next_run).run(tick)
                search.save(over=not stop_requested(search.plan.folder))
                return
        except Busy:
            if not following:
                say("another process runs this search; following it (Ctrl-C leaves it alone)")
            following = True
            search.load_if_changed()
            time.sleep(POLL_SECONDS)
            tick()


def _order(item: tuple[Trial, Standing]) -> tuple[bool, bool, int, float, int]:
    trial, found = item
    value = found.best_known
    bad = value is None or value == float("inf")
    step = 0 if found.outcome is Outcome.done else -found.step  # a longer run is no better one
    return bad, found.outcome is not Outcome.done, step, 0.0 if value is None else value, trial.number


def _run_label(trial: Trial, run_id: str) -> str:
    several = f" seed={trial.runs[run_id].seed}" if len(trial.runs) > 1 else ""
    return f"trial {trial.number}: {trial.label}{several}"


def _is_beyond_without_value(facts: RunFacts, rung: int) -> bool:
    return facts.step > rung and facts.value_at(rung) is None and facts.state is not State.failed


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
