"""The mirror: what it sends to a tracker and when, also to one that fails or hangs."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run, fake_sweep

from moe_sweeps.records.mirror import Mirror, Record, destination_of, records
from moe_sweeps.records.rundir import MetricsLog, RunDir, State
from moe_sweeps.tracking import handover
from moe_sweeps.tracking.handover import Ending, hand_over
from moe_sweeps.tracking.rows import Row
from moe_sweeps.tracking.tracker import Facts, Results, Tracker


class Fake:
    """Remembers what it was told."""

    def __init__(self, held: int = 0) -> None:
        self.held, self.steps, self.told = held, list[int](), list[object]()
        self.facts: Facts | None = None

    def begin(self, facts: Facts) -> int:
        self.facts = facts
        return self.held

    def log(self, row: Row) -> None:
        self.steps.append(row.step)

    def add_results(self, last: Row | None, results: Results) -> None:
        self.told += [last.step if last else None, results.summary]

    def end(self, state: State | None) -> None:
        self.told.append(state)


class Unreachable(Fake):
    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def begin(self, facts: Facts) -> int:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError("nobody answers\nand more")
        return super().begin(facts)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    folder = fake_run(tmp_path / "runs", 1, State.running, attempt=1)
    (folder.path / "tracking").mkdir()
    log = MetricsLog(folder.path / "metrics.jsonl")
    for step in (4, 8, 12):
        log.append({"step": step, "split": "train", "loss": 1 / step})
    return folder


def over(state: State | None) -> Ending:
    ending = Ending()
    ending.set(state)
    return ending


def mirrored(run: RunDir, tracker: Tracker, state: State | None) -> Record:
    record = Record("fake")
    hand_over(run, lambda _: tracker, record, over(state))
    assert Record.read(run, "fake") == record
    return record


def test_a_run_that_is_over_is_handed_over_whole(run: RunDir) -> None:
    run.write_summary({"val_loss": 1.5})
    tracker = Fake()
    record = mirrored(run, tracker, State.done)
    assert tracker.steps == [4, 8]
    assert tracker.told == [12, {"val_loss": 1.5}, State.done]  # the last row comes with the results
    assert (record.last_step, record.complete, record.problem) == (12, True, None)


@pytest.mark.parametrize("state", [State.preempted, State.failed, State.cancelled, None])
def test_a_run_that_may_go_on_keeps_its_last_step_for_then(run: RunDir, state: State | None) -> None:
    tracker = Fake()
    record = mirrored(run, tracker, state)
    assert (tracker.steps, tracker.told) == ([4, 8], [state])
    assert (record.last_step, record.complete) == (8, False)


@pytest.mark.parametrize(("held", "steps", "last"), [(4, [8], 12), (8, [], 12), (12, [], None)])
def test_only_what_the_tracker_does_not_hold(run: RunDir, held: int, steps: list[int], last: int | None) -> None:
    tracker = Fake(held)
    record = mirrored(run, tracker, State.done)
    assert (tracker.steps, tracker.told[0], record.last_step) == (steps, last, 12)


def test_rows_come_while_the_run_is_trained(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "POLL_SECONDS", 0.01)
    tracker, ending, record = Fake(), Ending(), Record("fake")
    thread = threading.Thread(target=hand_over, args=(run, lambda _: tracker, record, ending))
    thread.start()
    deadline = time.monotonic() + 30
    while Record.read(run, "fake").last_step != 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert tracker.steps == [4, 8]
    MetricsLog(run.path / "metrics.jsonl").append({"step": 16, "split": "train", "loss": 0.0})
    ending.set(State.failed)
    thread.join()
    assert tracker.steps == [4, 8, 12]


def test_a_tracker_that_cannot_be_reached_is_tried_again_and_it_is_said(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str | None] = []
    tracker, record, ending = Unreachable(2), Record("fake"), Ending()

    def wait(seconds: float) -> bool:
        said.append(Record.read(run, "fake").problem)
        if len(said) == 3:
            ending.set(State.failed)
        return ending._over.is_set()

    monkeypatch.setattr(ending, "wait", wait)
    hand_over(run, lambda _: tracker, record, ending)
    assert said == ["fake: nobody answers", "fake: nobody answers", None]
    assert tracker.steps == [4, 8]


def test_when_training_is_over_there_is_no_other_attempt(run: RunDir) -> None:
    tracker, record = Unreachable(1), Record("fake")
    with pytest.raises(ConnectionError):
        hand_over(run, lambda _: tracker, record, over(State.done))
    assert Record.read(run, "fake").problem == "fake: nobody answers"
    assert not Record.read(run, "fake").complete


def test_what_a_tracker_is_told_of_the_run(run: RunDir) -> None:
    tracker = Fake()
    mirrored(run, tracker, State.failed)
    assert tracker.facts is not None
    assert (tracker.facts.run_id, tracker.facts.name, tracker.facts.group) == (run.run_id, run.path.name, None)
    assert tracker.facts.config == run.config() | {"run_id": run.run_id, "arm": "a"}

    fake_sweep(run.path.parent, [run], name="coefs")
    mirrored(run, tracker, State.failed)
    assert (tracker.facts.name, tracker.facts.group) == ("arm=0 seed=0", "coefs-aaaaaaaaaaaa")


def test_where_a_config_mirrors_to() -> None:
    modes = {mode: destination_of({"kind": "wandb", "mode": mode}) for mode in ("online", "offline", "disabled")}
    assert modes == {"online": "wandb", "offline": "wandb-offline", "disabled": None}
    assert destination_of({"kind": "tensorboard"}) == "tensorboard"
    assert destination_of({"kind": "none"}) is None
    assert destination_of({}) is None  # of the first version


def test_a_damaged_record_is_an_empty_one(run: RunDir) -> None:
    (run.path / "tracking" / "wandb.json").write_text("{")
    assert records(run) == [Record("wandb")]


def test_a_process_that_cannot_work_is_a_problem_and_no_error(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"kind": "tensorboard", "finish_seconds": 5}
    monkeypatch.setattr("sys.executable", "/no/such/python")
    broken = Mirror(run, settings)
    assert "could not be started" in (broken.problem() or "")
    assert broken.end(State.done) == broken.problem()
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert "exit code 1; see " in (Mirror(run, settings).end(State.done) or "")
