"""One sweep on its way to a decision: which runs count, what is open, which runs come next, and when a look is taken.

Runs are added to one sweep until nothing more is worth its cost; then a look is taken, and that sweep is closed. The
next look has a sweep of its own with all those runs and more, so that every reader of manifests counts the same looks
(results/looks.py). A look is recorded before anything is said of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from moe_sweeps.errors import RunFolderError
from moe_sweeps.records.manifest import Manifest, RunRecord, decision_path, load_manifests, manifest_path
from moe_sweeps.records.problem import Problem
from moe_sweeps.records.rundir import FINISHED, SETTLED, State
from moe_sweeps.results.deciding.batches import Batch, Fate, Prospect, Situation, Targets, next_batch
from moe_sweeps.results.deciding.questions import Question, questions
from moe_sweeps.results.looks import level_of_look
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import Row, Runs, read_runs
from moe_sweeps.results.tables import Table, ablation_table
from moe_sweeps.sweep.decide.record import Answer, Look, Record
from moe_sweeps.sweep.decide.seeds import Pool, StagePlan
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.manifest import manifest_of
from moe_sweeps.sweep.plan import PlannedRun

ENDED_BADLY = (State.failed, State.cancelled)


@dataclass(frozen=True, slots=True)
class Standing:
    """An answer of a look. `withdrawn`: why it does not count any more; "" while it stands."""

    answer: Answer
    withdrawn: str = ""

    @classmethod
    def of(cls, answer: Answer, question: Question | None) -> Standing:
        """The answer, and whether it stands; `question` as it is asked today, None where it is not."""
        if question is None:
            return cls(answer, "the sweep does not ask this any more")
        if question.stuck:
            return cls(answer, f"it is not judged now: {question.stuck}")
        return cls(answer)


@dataclass(slots=True)
class Decision:
    """A sweep whose questions are to be decided. `threads` and `estimator` give the core-seconds of a run.

    `width`: runs that train side by side.
    `tried`: runs that were started here and have failed, which are not tried again by this process.
    """

    pool: Pool
    record: Record
    estimator: Estimator
    threads: int
    command: str
    width: int = 1
    tried: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    _runs: Runs | None = None
    _look: int | None = None
    _costs: dict[str, float] = field(default_factory=dict)
    _asked: tuple[Table, list[Question]] | None = None

    @classmethod
    def of(cls, pool: Pool, estimator: Estimator, threads: int, command: str, width: int = 1) -> Decision:
        """The decision as it stands.

        Raises:
            RunFolderError: its record cannot be read.
        """
        path = decision_path(pool.root, pool.key)
        record = Record.load(path, pool.name)
        while not path.exists() and manifest_path(pool.root, stage := pool.stage_id(len(record.closed) + 1)).exists():
            record.closed.append(Look(len(record.closed) + 1, stage, {}))  # it is lost, so what was begun counts
        return cls(pool, record, estimator, threads, command, width)

    # --- looks ----------------------------------------------------------------------------------------------------

    @property
    def stage(self) -> int:
        """The number of the sweep that is open, from 1."""
        return len(self.record.closed) + 1

    def pending(self) -> list[PlannedRun]:
        """Runs that the decision has paid for, and that are not over: those of a batch that was interrupted."""
        found = (self.pool.whole.runs[i] for i in self.record.trained if i in self.pool.whole.runs)
        return [p for p in found if p.state not in SETTLED and p.run_id not in self.tried]

    def begin(self, batch: Collection[str]) -> StagePlan:
        """The plan of the open sweep: what is over, and these runs. It is recorded before anything is trained."""
        over = [i for i, p in self.pool.whole.runs.items() if p.state in SETTLED]
        plan = self.pool.stage(self.stage, [*over, *batch])
        missing = [i for i, p in plan.runs.items() if p.state not in SETTLED]
        needed = [i for i, t in plan.to_train.items() if i in plan.trunks and t.state not in SETTLED]
        paid = [i for i in (*needed, *missing) if i not in self.record.trained]
        self.record.trained += paid
        self.record.save()
        self._written(plan, manifest_of(plan, self.command).created)
        return plan

    def close(self) -> Look:
        """Take the look: record its answers, and return them. Runs that were planned and never begun are left out."""
        plan = self._judged_plan()
        self.record.save()  # a manifest without a record counts as a look whose answers are lost
        self._written(plan, self._now())
        self._forget()
        table, found = self.asked()
        answers = {
            q.key: Answer(q.text, q.answer, q.effect, q.p)
            for q in found if q.answer and not q.stuck and not self._answered(q)
        }  # fmt: skip
        left_open = {q.key: q.effect for q in found if q.effect and not q.answer and not self._answered(q)}
        look = Look(table.looks, plan.sweep_id, answers, tuple(self._ended()), left_open)
        self.record.closed.append(look)
        self.record.save()
        self._forget()
        return look

    @property
    def has_news(self) -> bool:
        """Whether another look can say something: runs have ended since the last one, or a question came later."""
        seen = set(self.record.closed[-1].runs) if self.record.closed else set()
        ended = bool(set(self._ended()) - seen) and any(q.p is not None for q in self.open)
        answered = any(q.answer and not q.stuck for q in self.open)
        return self.level > 0 and (ended or answered)

    def effect_of(self, question: Question) -> str:
        """The effect of an open question as the last look showed it; where runs have ended since, as it is seen now,
        with the wider interval of the look to come."""
        last = self.record.closed[-1] if self.record.closed else None
        if last is None or set(self._ended()) - set(last.runs):
            return question.effect
        return last.left_open.get(question.key, question.effect)

    def _ended(self) -> list[str]:
        return [i for i, p in self.pool.whole.runs.items() if p.state in FINISHED]

    def _judged_plan(self) -> StagePlan:
        """The runs that are over; of an arm without any, those of its first seed, so that its row is there."""
        over = [i for i, p in self.pool.whole.runs.items() if p.state in (*FINISHED, *ENDED_BADLY)]
        there = {self.pool.whole.runs[i].arm for i in over}
        units = self.pool.units()
        first = [
            p.run_id for arm in self.pool.arms if arm not in there for p in units.get((arm, self.pool.seeds[0]), ())
        ]
        return self.pool.stage(self.stage, [*over, *first])

    def _written(self, plan: StagePlan, created: str) -> Manifest:
        manifest = dataclasses.replace(manifest_of(plan, self.command), created=created)
        manifest.write(self.pool.root)
        return manifest

    def _now(self) -> str:
        """Now, and later than every manifest of this name: looks are counted by when they were taken."""
        now = datetime.now().astimezone()
        last = max((m.moment for m in load_manifests(self.pool.root)[0] if m.name == self.pool.name), default=0.0)
        try:
            later = datetime.fromtimestamp(last, now.tzinfo) + timedelta(seconds=1)
        except (OverflowError, ValueError) as error:
            rule = f"a sweep of the name {self.pool.name} in {self.pool.root} was made at the end of time ({error})"
            raise RunFolderError(f"{rule}. Mend `created` in its manifest.json, or move its folder away.") from error
        return max(now, later).isoformat(timespec="seconds")

    # --- what is known --------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the record and the run folders again, and measure what runs cost by those that are finished now."""
        if self.record.path.exists():
            self.record = Record.load(self.record.path, self.pool.name)
        self.pool.refresh()
        self.estimator.update(self.pool.root)
        self._forget()

    def _forget(self) -> None:
        self._runs, self._asked, self._look = None, None, None
        self._costs.clear()

    @property
    def runs(self) -> Runs:
        """All run folders as rows."""
        if self._runs is None:
            self._runs = read_runs(self.pool.root)
        return self._runs

    def asked(self) -> tuple[Table, list[Question]]:
        """The table of the open sweep and its questions."""
        if self._asked is None:
            plan = self._judged_plan()
            manifests, self.problems = load_manifests(self.pool.root)
            manifest = dataclasses.replace(manifest_of(plan, self.command), created=self._now())
            table = ablation_table(manifest, self.runs, noise=Noise.of(self.runs, manifests), first=self._after_looks())
            self._asked = table, questions(table)
        return self._asked

    @property
    def look(self) -> int:
        """The number that a look at further runs has among all looks at these arms."""
        if self._look is None:
            own = self.pool.stage_id(self.stage)
            others = [m for m in load_manifests(self.pool.root)[0] if m.sweep_id != own]
            records = {i: RunRecord("", p.arm, "", p.run.seed) for i, p in self.pool.whole.runs.items()}
            whole = Manifest(own, self.pool.name, records, created=self._now())
            self._look = max(Noise.of(self.runs, others).looks(whole), self._after_looks())
        return self._look

    def _after_looks(self) -> int:
        """The number after the last look that is recorded: its manifest may be lost, or it saw more seeds than now."""
        return self.record.closed[-1].look + 1 if self.record.closed else 1

    @property
    def level(self) -> float:
        """What the coming look is held against."""
        return level_of_look(self.look)

    @property
    def open(self) -> list[Question]:
        """The questions that no look has answered."""
        return [q for q in self.asked()[1] if not self._answered(q)]

    def standing(self) -> list[Standing]:
        """Every answer of a look, with the question as it is asked today."""
        asked = {key: q for q in self.asked()[1] for key in (q.key, q.mirror) if key}
        return [Standing.of(answer, asked.get(key)) for key, answer in self.record.answers.items()]

    def _answered(self, question: Question) -> bool:
        return bool({question.key, question.mirror} & self.record.answers.keys())

    # --- what comes next ------------------------------------------------------------------------------------------

    def situation(self) -> Situation:
        """The arms, their seeds, and what more would cost."""
        most, failing = len(self.pool.seeds), self.failing()
        return Situation(self.open, self.counts(), self.level, self.cost, most, failing, self.width)

    def counts(self) -> dict[str, int]:
        """Seeds of each arm whose runs are over."""
        units = self.pool.units()
        return {
            arm: sum(_is_over(units[arm, seed]) for seed in self.pool.seeds if (arm, seed) in units)
            for arm in self.pool.arms
        }

    def failing(self) -> set[str]:
        """Arms with a run that failed here or was cancelled: another seed would most likely do so too."""
        runs = self.pool.whole.runs.values()
        return {p.arm for p in runs if p.state is State.cancelled or (p.run_id in self.tried and not _is_over([p]))}

    def note_tried(self, runs: Collection[str]) -> None:
        """Remember which of these runs have not ended, although they were started here."""
        everything = self.pool.whole.runs
        self.tried |= {i for i in runs if i in everything and not _is_over([everything[i]])}

    def prospects(self, left: float) -> list[Prospect]:
        """What becomes of every open question, with `left` core-seconds to spend."""
        return self.situation().prospects(left)

    def batch(self, left: float) -> Batch | None:
        """What to train next; None: nothing is worth it, or fits."""
        return next_batch(self.situation(), left) if self.level > 0 else None

    def smallest(self) -> Batch | None:
        """The smallest part of the next batch, whatever the budget; None: nothing is worth it."""
        now = self.situation()
        steps = [now.steps(p)[0] for p in now.prospects(math.inf) if p.fate in (Fate.goes_on, Fate.unseen)]
        offers = [Batch(step, self.cost(step), ()) for step in steps]
        return min(offers, key=lambda offer: offer.cost, default=None)

    def runs_of(self, targets: Targets) -> list[PlannedRun]:
        """The runs that raise arms to so many seeds, the first seeds first."""
        units, counts = self.pool.units(), self.counts()
        found: list[PlannedRun] = []
        for arm, seeds in targets.items():
            own = [units[arm, seed] for seed in self.pool.seeds if (arm, seed) in units]
            missing = [unit for unit in own if not _is_over(unit)]
            found += [p for unit in missing[: max(0, seeds - counts[arm])] for p in unit if p.state not in SETTLED]
        return found

    def cost(self, targets: Targets) -> float:
        """Core-seconds of `runs_of`, with the trunks that they need."""
        return self.cost_of(self.runs_of(targets))

    def cost_of(self, runs: Collection[PlannedRun]) -> float:
        """Core-seconds that these runs still take."""
        trunks = dict.fromkeys(p.run.fork.run for p in runs if p.run.fork.continues)
        needed = [self.pool.whole.trunks[i] for i in trunks if i in self.pool.whole.trunks]
        return sum(self._left_of(p) for p in (*needed, *runs) if p.state not in SETTLED)

    def _left_of(self, planned: PlannedRun) -> float:
        if planned.run_id not in self._costs:
            run = planned.run
            share = (run.last_step - max(planned.step, run.first_step)) / (run.last_step - run.first_step)
            self._costs[planned.run_id] = share * self._whole_cost(planned)
        return self._costs[planned.run_id]

    def _whole_cost(self, planned: PlannedRun) -> float:
        return self.estimator.estimate(planned.run).seconds * (planned.run.launch.threads or self.threads)

    def spent(self) -> float:
        """Core-seconds of the runs that the decision has paid for, as far as they have come; seeds that are not asked
        for now count, too."""
        everything, rows = self.pool.whole.trunks | self.pool.whole.runs, self.runs.rows
        mine = [everything.get(run_id) for run_id in self.record.trained]
        return sum(self._spent_on(p, rows.get(i)) for i, p in zip(self.record.trained, mine, strict=True))

    def _spent_on(self, planned: PlannedRun | None, row: Row | None) -> float:
        if row is not None and row["state"] in FINISHED and (seconds := _positive(row.get("wall_seconds"))):
            return seconds * (_positive(row.get("launch.threads")) or 1.0)
        return self._whole_cost(planned) - self._left_of(planned) if planned and planned.step else 0.0


def _positive(found: object) -> float | None:
    """A number above 0 as a run folder has it; None for anything else."""
    sound = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) and found > 0
    return float(found) if sound else None  # type: ignore[arg-type]


def _is_over(unit: Collection[PlannedRun]) -> bool:
    return all(p.state in FINISHED for p in unit)
