"""A whole search without training: a worker that writes into run folders what training would have written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, compose_run

from moe_sweeps.cli.manage import main as manage
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.host.files import read_json
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.rundir import Failure, MetricsLog, RunDir, State
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import Table, ablation_table
from moe_sweeps.sweep.search.drive import Search
from moe_sweeps.sweep.search.plan import make_search_plan
from moe_sweeps.sweep.search.stop import request_stop
from moe_sweeps.sweep.search.trials import Outcome

STEPS, RUNGS = 24, (4, 8, 16)
SPACE = ("optimizer.base_lr=tag(log,interval(1e-4,1e-1))", "balancer=aux,lossfree", "aux.coef=0.1,0.2,0.6")
HALVING = ("search.min_steps=4", "search.reduction=2")
Objective = Callable[[dict[str, Any], int], float]


def lowest_at_a_hundredth(config: dict[str, Any], step: int) -> float:
    """A validation loss that falls with the steps; the second seed is always worse by 0.5."""
    distance = abs(math.log10(config["optimizer"]["base_lr"]) + 2)
    return float(distance + (config["balancer"]["kind"] == "aux") + 0.5 * config["seed"] + 1 / step)


@dataclass
class FakeWorker:
    """Trains a folder to where its config says; `trained` lists (run id, from step, to step)."""

    objective: Objective = lowest_at_a_hundredth
    trained: list[tuple[str, int, int]] = field(default_factory=list)

    def train(self, folder: RunDir, killed_at: int | None = None) -> None:
        config, status, start = folder.config(), folder.status(), folder.checkpoint_step()
        total = config["trainer"]["steps"]
        asked = config["trainer"]["stop_at"] or total
        end = asked if killed_at is None else min(killed_at, asked)
        self.trained.append((folder.run_id, start, end))
        value = self.objective(config, end)
        status.attempt, status.step, status.paused_at = status.attempt + 1, end, None
        if math.isinf(value):
            status.state = State.diverged
            folder.write_summary({"diverged_at_step": end})
        elif end < asked:
            status.state = State.preempted
        else:
            MetricsLog(folder.path / "metrics.jsonl").append({"step": end, "split": "val", "loss": value})
            status.state, status.paused_at = (State.preempted, end) if end < total else (State.done, None)
        if status.state is State.done:
            folder.write_summary({"val_loss": value, "tokens": 1})
        if end > start:
            (folder.checkpoints / f"step-{end:08d}.json").write_text("{}")
        folder.write_status(status)

    def fail(self, folder: RunDir) -> None:
        status = folder.status()
        status.state, status.failure = State.failed, Failure("ValueError", "no", "ValueError in x")
        folder.write_status(status)


def new_search(*arguments: str, kind: str = "tpe") -> Search:
    search = Search(make_search_plan((f"search={kind}", *TINY, *SPACE, *arguments)), "typed")
    search.load()
    return search


def run(search: Search, worker: FakeWorker, most: int | None = None) -> Search:
    """One worker until nothing is left, or for `most` runs."""
    while most is None or most > 0:
        folder = search.next_run()
        if folder is None:
            search.save(over=True)
            break
        worker.train(folder)
        most = None if most is None else most - 1
    return search


def suggestions(search: Search) -> list[dict[str, Any]]:
    return [trial.params for trial in search.trials]


def table(search: Search) -> Table:
    manifest = Manifest.load(search.plan.folder / "manifest.json")
    return ablation_table(manifest, read_runs(search.plan.runs_root))


def test_an_interrupted_search_trains_nothing_twice_and_finds_the_same(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after every sixth run and once in the middle of one, each time with nothing but the folders left."""
    line = ("search.trials=5", "seed=0,1", "search.startup_trials=2", *HALVING)
    undisturbed, disturbed = FakeWorker(), FakeWorker()
    whole = run(new_search(*line), undisturbed)
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(tmp_path / "again"))
    run(new_search(*line), disturbed, most=4)
    torn = new_search(*line).next_run()
    assert torn is not None
    disturbed.train(torn, killed_at=torn.checkpoint_step() + 1)
    for _ in range(40):
        again = run(new_search(*line), disturbed, most=6)
        if again.is_complete:
            break
    assert again.is_complete
    assert suggestions(again) == suggestions(whole)
    assert [t.target for t in again.trials] == [t.target for t in whole.trials]
    for one in (undisturbed, disturbed):
        assert all(start < end for _, start, end in one.trained)
        for run_id in {run_id for run_id, _, _ in one.trained}:
            parts = [(start, end) for name, start, end in one.trained if name == run_id]
            assert [start for start, _ in parts] == [0, *(end for _, end in parts[:-1])], run_id
    assert sum(end - start for _, start, end in disturbed.trained) == sum(e - s for _, s, e in undisturbed.trained)


def test_runs_stop_at_rungs_and_the_best_goes_on_to_its_end(folders: Path) -> None:
    worker = FakeWorker()
    search = run(new_search("search.trials=8", *HALVING, kind="random"), worker)
    own = [t for t in search.trials if t.same_as is None]
    stands = {t.number: search.standing(t) for t in own}
    assert {s.step for s in stands.values()} <= {*RUNGS, STEPS}
    finished = [n for n, s in stands.items() if s.outcome is Outcome.done]
    assert finished
    assert all(stands[n].rung_values.keys() == set(RUNGS) for n in finished)
    paused = [s for s in stands.values() if s.outcome is Outcome.paused]
    assert len(paused) == len(own) - len(finished) > 0
    best = search.ranked()[0][0].number
    assert best == min(finished, key=lambda n: stands[n].final or math.inf)
    # At each rung no trial that was left is better than the best third of those that were promoted.
    for rung in RUNGS:
        there = {n: s.rung_values[rung] for n, s in stands.items() if rung in s.rung_values}
        assert min(there, key=lambda n: there[n]) in {n for n in there if stands[n].step > rung}


def test_a_trial_is_worth_the_mean_over_its_seeds(folders: Path) -> None:
    search = run(new_search("search.trials=2", "seed=0,1"), FakeWorker())
    for trial in search.trials:
        found = search.standing(trial)
        lr = float(trial.point["optimizer.base_lr"])
        expected = abs(math.log10(lr) + 2) + (trial.point["balancer"] == "aux") + 0.25 + 1 / STEPS
        assert found.final == pytest.approx(expected, abs=1e-12)
        assert found.seeds_done == 2


def test_equivalent_suggestions_are_one_run(folders: Path) -> None:
    """Two points, of which lossfree reads no aux.coef: at most 4 of 6 combinations are trained in 12 trials."""
    worker = FakeWorker()
    search = new_search("search.trials=12", "optimizer.base_lr=0.01", kind="random")
    assert search.plan.distinct_points == 4
    assert search.plan.most_trained == 4
    run(search, worker)
    assert len(search.trials) == 12
    assert len(worker.trained) == len({run_id for run_id, _, _ in worker.trained}) <= 4
    lossfree = [t for t in search.trials if t.point["balancer"] == "lossfree"]
    assert len(lossfree) > 1
    assert len({*lossfree[0].runs}) == 1
    assert all(t.runs.keys() == lossfree[0].runs.keys() for t in lossfree)
    assert all(search.standing(t).final == search.standing(lossfree[0]).final for t in lossfree)


def test_a_run_of_another_sweep_is_not_trained_again(folders: Path) -> None:
    worker = FakeWorker()
    first = run(new_search("search.trials=1"), worker)
    (run_id,) = first.trials[0].runs
    assert worker.trained == [(run_id, 0, STEPS)]
    pruned = new_search("search.trials=1", *HALVING)  # another search, whose first suggestion is the same
    assert pruned.plan.search_id != first.plan.search_id
    run(pruned, worker)
    assert worker.trained == [(run_id, 0, STEPS)]
    assert pruned.standing(pruned.trials[0]).outcome is Outcome.done


def test_a_diverged_trial_is_told_as_infinity_and_never_goes_on(folders: Path) -> None:
    def diverging(config: dict[str, Any], step: int) -> float:
        return math.inf if config["balancer"]["kind"] == "aux" else lowest_at_a_hundredth(config, step)

    search = run(new_search("search.trials=8", *HALVING, kind="random"), FakeWorker(diverging))
    aux = [t for t in search.trials if t.point["balancer"] == "aux"]
    assert aux
    for trial in aux:
        found = search.standing(trial)
        assert (found.outcome, found.final, found.step) == (Outcome.diverged, math.inf, 4)
    assert search.ranked()[0][1].outcome is Outcome.done
    assert search.ranked()[-1][1].outcome is Outcome.diverged
    assert search.is_complete


def test_the_best_trial_is_not_the_longest(folders: Path) -> None:
    line = ("search.trials=6", "trainer.steps=24,30", "optimizer.base_lr=0.01", "balancer=aux", "aux.coef=0.1")
    search = run(new_search(*line, kind="random"), FakeWorker(lambda config, step: config["trainer"]["steps"] / 10))
    assert {trial.point["trainer.steps"] for trial, _ in search.ranked()} == {"24", "30"}
    assert search.ranked()[0][0].point["trainer.steps"] == "24"


def test_a_search_ends_with_a_complete_run_though_its_best_trial_diverges_after_a_rung(folders: Path) -> None:
    def diverging(config: dict[str, Any], step: int) -> float:
        return math.inf if config["aux"]["coef"] == 0.1 and step > 4 else config["aux"]["coef"]

    line = ("search.trials=6", "search.min_steps=4", "search.reduction=20", "optimizer.base_lr=0.01", "balancer=aux")
    search = run(new_search(*line, kind="random"), FakeWorker(diverging))
    outcomes = {trial.point["aux.coef"]: found.outcome for trial, found in search.ranked()}
    assert outcomes["0.1"] is Outcome.diverged
    assert [coef for coef, outcome in outcomes.items() if outcome is Outcome.done] == ["0.2"]
    assert search.is_complete


def test_a_failed_run_is_seen_and_tried_again_when_the_line_is(folders: Path) -> None:
    search, worker = new_search("search.trials=2"), FakeWorker()
    folder = search.next_run()
    assert folder is not None
    worker.fail(folder)
    run(search, worker)
    assert [search.standing(t).outcome for t in search.trials] == [Outcome.failed, Outcome.done]
    assert not search.is_complete
    again = run(new_search("search.trials=2"), worker)
    assert [again.standing(t).outcome for t in again.trials] == [Outcome.done, Outcome.done]
    assert again.is_complete


def test_a_worker_that_never_begins_does_not_keep_the_search_for_ever(folders: Path) -> None:
    """Its run stays open, the search goes through the others and is not complete."""
    search, worker = new_search("search.trials=2"), FakeWorker()
    first = search.next_run()
    assert first is not None
    for _ in range(2):
        assert search.next_run() == first
    run(search, worker)
    assert [search.standing(t).outcome for t in search.trials] == [Outcome.open, Outcome.done]
    assert not search.is_complete


def test_free_workers_do_not_wait_for_slow_runs(folders: Path) -> None:
    """Three workers, one of which never ends its run: the others go through all the other trials."""
    search, worker = new_search("search.trials=6", *HALVING, kind="random"), FakeWorker()
    slow = search.next_run()
    assert slow is not None
    while (folder := search.next_run([slow])) is not None:
        worker.train(folder)
    others = [t for t in search.trials if t.same_as is None and slow.run_id not in t.runs]
    assert len(search.trials) == 6
    assert all(search.standing(t).outcome in (Outcome.paused, Outcome.done) for t in others)
    assert any(t.goes_beyond(RUNGS[0]) for t in others)
    assert not search.is_complete
    worker.train(slow)
    assert run(search, worker).is_complete


def test_a_longer_search_goes_on_from_a_shorter_one(folders: Path) -> None:
    worker = FakeWorker()
    short = run(new_search("search.trials=3", *HALVING), worker)
    begun = {run_id for run_id, start, _ in worker.trained if start == 0}
    longer = run(new_search("search.trials=6", *HALVING), worker)
    assert suggestions(longer)[:3] == suggestions(short)
    assert len(longer.trials) == 6
    restarted = [run_id for run_id, start, _ in worker.trained if start == 0]
    assert len(restarted) == len(set(restarted)) > len(begun)


def test_a_request_to_stop_ends_the_suggestions(folders: Path) -> None:
    search = run(new_search("search.trials=5"), FakeWorker(), most=1)
    request_stop(search.plan.folder)
    assert search.next_run() is None
    assert len(search.trials) == 1


def test_pruned_is_shown_and_averaged_by_nobody(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = run(new_search("search.trials=4", "seed=0,1", *HALVING, kind="random"), FakeWorker(), most=4)
    before = table(search)
    assert before.counts["paused"] > 0
    assert not before.clean  # the search is not over, so what is paused is a gap
    run(search, FakeWorker())
    found = table(search)
    assert found.clean or not found.one_version
    pruned = [arm for arm in found.arms if arm.counts["pruned"] == 2]
    assert pruned
    assert all(arm.cells["val_loss"].mean is None and arm.complete for arm in pruned)
    best = search.ranked()[0][0]
    assert found.baseline == best.arm
    assert found.arm(best.arm).cells["val_loss"].mean == pytest.approx(search.ranked()[0][1].final)
    assert manage(["status", search.plan.search_id, "--all"]) == 0
    shown = capsys.readouterr().out
    assert f"{2 * len(pruned)} pruned" in shown
    assert "paused" not in shown


def test_a_run_trained_past_a_rung_by_somebody_else_is_judged_by_what_came_before(folders: Path) -> None:
    """Its last evaluation before the rung counts, as a disadvantage; without any it is not judged there."""
    worker, line = FakeWorker(), ("search.trials=3", *HALVING)
    trial = new_search(*line)
    trial._suggest()
    (run_id, config), = trial.trials[0].runs.items()  # fmt: skip
    alone = freeze(config, [], command="alone")
    worker.train(alone, killed_at=6)
    search = new_search(*line)
    assert search.standing(search.trials[0]).rung_values == {}
    search._promote()
    assert search.trials[0].target == 8
    MetricsLog(alone.path / "metrics.jsonl").append({"step": 3, "split": "val", "loss": 7.0})
    search = new_search(*line)
    search._facts.clear()
    assert search.standing(search.trials[0]).rung_values == {4: 7.0}
    run(search, worker)
    assert [part for part in worker.trained if part[0] == run_id][:2][0] == (run_id, 0, 6)


def test_a_point_that_the_rules_refuse_is_an_outcome(folders: Path) -> None:
    """Corners are valid, and a width in between is not divisible by the heads."""
    line = ("search.trials=6", "model.width=int(interval(16,32))", "optimizer.base_lr=0.01")
    search = run(new_search(*line, kind="random"), FakeWorker())
    refused = [t for t in search.trials if t.refused]
    assert refused
    assert len(refused) < 6
    assert all(search.standing(t).outcome is Outcome.refused for t in refused)
    assert "must be divisible by" in str(refused[0].refused)
    assert search.is_complete
    content = read_json(search.plan.folder / "manifest.json")
    assert [t["refused"] is not None for t in content["search"]["trials"]] == [bool(t.refused) for t in search.trials]


def test_typing_a_paused_runs_line_trains_it_to_its_end(folders: Path) -> None:
    folder = freeze(compose_run(*TINY, "trainer.stop_at=4"), [], command="x")
    assert folder.config()["trainer"]["stop_at"] == 4
    again = freeze(compose_run(*TINY), [], command="x")
    assert again == folder
    assert folder.config()["trainer"]["stop_at"] is None
