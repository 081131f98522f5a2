"""`moe-sweeps decide`: what it trains, when it looks, and what it says, on runs that end at once."""

from __future__ import annotations

import json
import threading
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import TINY
from rich.console import Console
from unit.cli.documents.test_commands import held

from moe_sweeps.cli import decide as command
from moe_sweeps.cli.manage import main
from moe_sweeps.errors import ConfigError, RunFolderError
from moe_sweeps.host.locks import locked
from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.rundir import SETTLED, Failure, RunDir, State, Status
from moe_sweeps.results.deciding.questions import questions
from moe_sweeps.results.looks import LATER
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.runs import read_runs
from moe_sweeps.results.tables import ablation_table
from moe_sweeps.sweep.decide.decision import Decision
from moe_sweeps.sweep.decide.record import Record
from moe_sweeps.sweep.decide.seeds import Pool, StagePlan
from moe_sweeps.sweep.estimate import Estimator, RunEstimate, tokens_of
from moe_sweeps.sweep.manifest import write_manifest
from moe_sweeps.sweep.plan import PlannedRun, make_plan

LINE = ("sweep=aux_coef", *TINY, "launch.workers=1")
SECONDS = 10.0  # of one run
LOSS = {"0.01": 4.1, "0.1": 4.0, "0.2": 3.8, "0.4": 4.3, "0.6": 4.6}  # by aux.coef; 4.0 for lossfree
NOISE = 0.02
Trained = list[tuple[str, int]]


def end(planned: PlannedRun, state: State = State.done) -> None:
    """Leave the folder of a run that has ended."""
    run = planned.run
    folder = planned.frozen("test", 1)
    coef = planned.shown.get("aux.coef", "")
    random = np.random.default_rng([run.seed, int(planned.arm[:6], 16)])
    loss = LOSS.get(coef, 4.0) + NOISE * random.standard_normal()
    maxvio = 0.2 / (1 + float(coef or 0.3)) * np.exp(0.1 * random.standard_normal())
    if state is State.done:
        numbers = {"wall_seconds": SECONDS, "tokens": tokens_of(run), "val_loss": loss, "val_maxvio_global": maxvio}
        folder.write_summary(numbers)
    failure = Failure("ValueError", "no luck", "ValueError in x") if state is State.failed else None
    folder.write_status(Status(state, step=run.last_step, total_steps=run.last_step, failure=failure))


Outcome = Callable[[PlannedRun, int], State]


@pytest.fixture
def trained(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The runs that were trained, in order; training takes no time."""
    return instead_of_training(monkeypatch, lambda planned, number: State.done)


def instead_of_training(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> Trained:
    found: Trained = []

    def train(screen: Console, plan: StagePlan, runs: Sequence[PlannedRun], threads: int) -> bool:
        for planned in [p for p in plan.to_train.values() if p.state not in SETTLED]:
            state = outcome(planned, len(found))
            found.append((planned.label, planned.run.seed))
            end(planned, state)
        return False

    monkeypatch.setattr(command, "_train", train)
    monkeypatch.setattr(Estimator, "estimate", lambda self, run: RunEstimate(SECONDS, "a test", 0))
    return found


def data(capsys: pytest.CaptureFixture[str], *words: str, code: int | None = None) -> dict[str, Any]:
    capsys.readouterr()
    found = main(["decide", *LINE, *words, "--json"])
    printed = capsys.readouterr()
    assert code is None or found == code, printed.err
    return held(printed.out, "moe-sweeps/decide")


def answers(found: dict[str, Any]) -> dict[str, str]:
    return {a["question"]: a["answer"] for a in found["answered"]}


def test_what_is_far_apart_is_decided_with_few_seeds(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "--budget", "30m", "--max-seeds", "8", code=12)
    said = answers(found)
    assert said["val loss: balancer=aux aux.coef=0.2 against balancer=aux aux.coef=0.1"] == "better"
    assert said["val loss: balancer=aux aux.coef=0.6 against balancer=aux aux.coef=0.1"] == "worse"
    assert said["A coefficient of 0.2 gives the lowest loss; 0.6 is too strong and 0.1 too weak."] == "reproduced"
    assert [look["look"] for look in found["looks"]] == [1]
    assert found["spent"] == pytest.approx(SECONDS * len(trained))
    seeds = {label: [s for other, s in trained if other == label] for label, _ in trained}
    assert all(own == list(range(len(own))) for own in seeds.values())  # the first seeds first
    undecided = [q for q in found["open"] if "lossfree" in q["question"]]
    assert undecided  # it is like the baseline
    assert all(q["why"] for q in found["open"])


def test_typed_again_it_trains_nothing_and_takes_no_look(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    first = data(capsys, "--budget", "8m", "--max-seeds", "6")
    count = len(trained)
    again = data(capsys, "--budget", "8m", "--max-seeds", "6")
    assert len(trained) == count
    assert answers(again) == answers(first)
    assert again["looks"] == first["looks"]


def test_intervals_of_open_questions_are_those_of_the_table_of_the_look(
    trained: Trained, capsys: pytest.CaptureFixture[str], folders: Path
) -> None:
    """They had been those of the look to come, which nobody has taken, and wider than the table's."""
    found = data(capsys, "--budget", "8m", "--max-seeds", "6")
    runs, (manifests, _) = read_runs(folders), load_manifests(folders)
    table = ablation_table(manifests[0], runs, noise=Noise.of(runs, manifests))
    expected = {q.text: q.effect for q in questions(table)}
    assert any(" to " in q["effect"] for q in found["open"])
    assert {q["question"]: q["effect"] for q in found["open"]} == {
        q["question"]: expected[q["question"]] for q in found["open"]
    }
    (path,) = (folders / "sweeps").glob("decide-*/decide.json")
    content = json.loads(path.read_text())
    del content["closed"][0]["left_open"]  # a record of an older version
    path.write_text(json.dumps(content))
    again = data(capsys, "--budget", "8m", "--max-seeds", "6")
    assert [q["question"] for q in again["open"]] == [q["question"] for q in found["open"]]


def test_a_larger_budget_is_a_second_look(trained: Trained, capsys: pytest.CaptureFixture[str], folders: Path) -> None:
    first = data(capsys, "--budget", "3m", "--max-seeds", "8")
    assert first["spent"] <= 180
    later = Decision.of(Pool.of(LINE, 8), Estimator(folders), 1, "test")
    assert (later.look, later.level) == (2, LATER)
    second = data(capsys, "--budget", "40m", "--max-seeds", "12")
    assert [look["look"] for look in second["looks"]] == [1, 2]
    assert answers(first).items() <= answers(second).items()
    newest, oldest = load_manifests(folders)[0]
    assert oldest.runs.keys() < newest.runs.keys()


def test_a_sweep_that_was_looked_at_before_counts(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan([*LINE, "seed=0,1,2"])
    write_manifest(plan, "test")
    for planned in plan.runs.values():
        end(planned)
    decision = Decision.of(Pool.of(LINE, 6), Estimator(plan.runs_root), 1, "test")
    assert decision.level == LATER
    found = data(capsys, "--budget", "30m", "--max-seeds", "6")
    assert [look["look"] for look in found["looks"]] == [2]
    assert found["spent"] == pytest.approx(SECONDS * len(trained))  # what was there costs nothing


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 20])
def test_interrupted_and_typed_again_it_continues(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after: int
) -> None:
    def stop(planned: PlannedRun, number: int) -> State:
        if number == after:
            raise KeyboardInterrupt
        return State.done

    words = ("--budget", "8m", "--max-seeds", "6")
    begun = instead_of_training(monkeypatch, stop)
    assert main(["decide", *LINE, *words]) == 130
    assert "decided" not in capsys.readouterr().out  # nothing is said of half a batch
    rest = instead_of_training(monkeypatch, lambda planned, number: State.done)
    found = data(capsys, *words)
    assert not set(begun) & set(rest)
    assert [look["look"] for look in found["looks"]] == [1]
    assert found["spent"] == pytest.approx(SECONDS * (len(begun) + len(rest)))
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(folders.parent / "other"))
    whole = instead_of_training(monkeypatch, lambda planned, number: State.done)
    assert answers(data(capsys, *words)) == answers(found)
    assert sorted(whole) == sorted([*begun, *rest])


def test_half_a_batch_that_the_budget_no_longer_holds_is_left(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(planned: PlannedRun, number: int) -> State:
        if number == 9:
            raise KeyboardInterrupt
        return State.done

    instead_of_training(monkeypatch, stop)
    assert main(["decide", *LINE, "--budget", "10m", "--max-seeds", "6"]) == 130
    rest = instead_of_training(monkeypatch, lambda planned, number: State.done)
    found = data(capsys, "--budget", "95s", "--max-seeds", "6")
    assert rest == []
    assert found["spent"] == pytest.approx(90)
    assert len(found["looks"]) == 1  # at what is there
    newest = load_manifests(folders)[0][0]
    ended = [i for i in newest.runs if (f := RunDir.find(folders, i)) and f.status().state is State.done]
    assert len(ended) == 9
    more = data(capsys, "--budget", "20m", "--max-seeds", "6")
    assert [look["look"] for look in more["looks"]] == [1, 2]


def test_a_budget_below_the_smallest_batch_is_refused(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide", *LINE, "--budget", "1s"]) == 2
    error = capsys.readouterr().err
    assert "--budget" in error
    assert "the smallest batch, 3 seeds" in error
    assert "Give at least --budget" in error
    assert trained == []


def test_an_arm_whose_run_fails_gets_no_more(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "balancer=aux aux.coef=0.4"
    found = instead_of_training(
        monkeypatch, lambda p, n: State.failed if p.label == bad and p.run.seed == 1 else State.done
    )
    shown = data(capsys, "--budget", "30m", "--max-seeds", "6", code=1)
    assert [seed for label, seed in found if label == bad] == [0, 1, 2]
    why = {q["question"]: q["fate"] for q in shown["open"]}
    assert why.get("A coefficient of 0.2 gives the lowest loss; 0.6 is too strong and 0.1 too weak.") in (
        "failing",
        None,
    )
    assert any(label == "balancer=lossfree" and seed > 2 for label, seed in found)
    again = instead_of_training(monkeypatch, lambda p, n: State.done)
    data(capsys, "--budget", "30m", "--max-seeds", "6")
    assert (bad, 1) in again  # typed again, it is tried again


def test_a_diverged_run_leaves_its_arm_without_a_verdict(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "balancer=aux aux.coef=0.6"
    found = instead_of_training(monkeypatch, lambda p, n: State.diverged if p.label == bad else State.done)
    shown = data(capsys, "--budget", "30m", "--max-seeds", "6", code=12)
    assert [seed for label, seed in found if label == bad] == [0, 1, 2]
    stuck = [q for q in shown["open"] if q["fate"] == "stuck"]
    assert any("diverged" in q["why"] for q in stuck)


def test_a_hostile_folder_stops_nothing(trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "x-0123456789ab").mkdir(parents=True)
    (folders / "x-0123456789ab" / "identity.json").write_text('{"run_id": "\\u001b[31m"')
    (folders / "sweeps" / "y").mkdir(parents=True)
    (folders / "sweeps" / "y" / "manifest.json").write_text("[" * 100_000)
    found = data(capsys, "--budget", "30m", "--max-seeds", "4")
    assert len(found["problems"]) == 2
    assert answers(found)


def test_a_damaged_record_is_refused_and_a_lost_one_is_no_free_look(
    trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--budget", "5m", "--max-seeds", "5")
    data(capsys, *words)
    (record,) = (folders / "sweeps").glob("decide-*/decide.json")
    record.write_text("{}")
    assert main(["decide", *LINE, *words]) == 2
    error = capsys.readouterr().err
    assert str(record) in error
    assert "Move it away" in error
    record.unlink()
    found = data(capsys, *words)
    assert [look["look"] for look in found["looks"]] == [1, 2]


def test_a_dry_run_leaves_nothing(trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "--budget", "1h", "--dry-run", code=12)
    assert len(found["next"]["runs"]) == 18
    assert found["next"]["questions"]
    assert trained == []
    assert not folders.exists()
    main(["decide", *LINE, "--budget", "1h", "--dry-run"])
    assert "18 runs next" in capsys.readouterr().out


def test_typed_seeds_come_first(folders: Path) -> None:
    assert Pool.of([*LINE, "seed=7,3"], 4).seeds == (7, 3, 8, 9)
    assert Pool.of([*LINE], 5).seeds == (0, 1, 2, 3, 4)
    assert Pool.of([*TINY, "balancer=aux,lossfree"], 3).seeds == (0, 1, 2)
    with_few, with_many = (Pool.of([*LINE], most) for most in (3, 6))
    assert with_few.key == with_many.key


def test_a_second_shell_waits(trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str],
                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    folder = folders / "sweeps" / f"decide-{Pool.of(LINE, 4).key}"
    folder.mkdir(parents=True)
    released = threading.Event()

    def hold() -> None:
        with locked(folder / ".lock"):
            holding.set()
            released.wait(20)

    holding, thread = threading.Event(), threading.Thread(target=hold)
    thread.start()
    holding.wait(20)

    def hear_it_wait(seconds: float) -> None:
        """In the place of a pause: by now it has said that it waits."""
        released.set()
        thread.join()

    monkeypatch.setattr(command, "time", SimpleNamespace(sleep=hear_it_wait))
    assert main(["decide", *LINE, "--budget", "30m", "--max-seeds", "4"]) == 12
    assert "another process decides this" in capsys.readouterr().out
    assert trained


def test_claims_without_their_arms_are_stuck(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "aux.coef=0.1,0.4", "--budget", "30m", "--max-seeds", "4")
    stuck = {q["question"]: q["why"] for q in found["open"] if q["fate"] == "stuck"}
    assert stuck["With a coefficient of 0.01 the experts are at least five times as unbalanced as with 0.1."]
    assert {label for label, _ in trained} == {"balancer=aux aux.coef=0.1", "balancer=aux aux.coef=0.4",
                                               "balancer=lossfree"}  # fmt: skip


def test_several_sweeps_share_the_budget_and_the_runs(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["decide", *TINY, "sweep=aux_coef,lossfree_vs_aux,aux_coef", "--budget", "20m", "--max-seeds", "4"]
    assert main([*words, "--json"]) in (0, 12)
    found = json.loads(capsys.readouterr().out)
    assert {look["sweep"] for look in found["looks"]} == {"aux_coef", "lossfree_vs_aux"}
    assert found["spent"] <= 1200
    assert len(set(trained)) >= len(trained) - 4  # labels differ between sweeps; no run twice


def test_forks_train_their_trunks_first_and_pay_for_them(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, "balancer=aux", "aux.coef=0.1,0.4", "fork.step=8", "fork.replicates=2"]
    assert main(["decide", *words, "--budget", "30m", "--max-seeds", "3", "--json"]) in (0, 12)
    found = json.loads(capsys.readouterr().out)
    assert len(trained) == 3 + 3 * 2 * 2
    assert found["spent"] == pytest.approx(SECONDS * 15)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=aux_cof", "--budget", "1h"], "Did you mean sweep=aux_coef?"),
        (["sweep=", "--budget", "1h"], "it names no sweep"),
        (["sweep=aux_coef", "--all", "--budget", "1h"], "--all means every sweep"),
        (["sweep=aux_coef", "--budget", "soon"], "Write 90s, 30m"),
        (["sweep=aux_coef", "--budget", "1h", "--max-seeds", "2"], "a decision needs 3 to 1000 seeds"),
        (["sweep=aux_coef", "data_seed=0,1", "--budget", "1h"], "Give one data_seed"),
        (["search=tpe", "--budget", "1h"], "a search chooses its own runs"),
        (["sweep=aux_coef", "seed=abc", "--budget", "1h"], "Write seed=0,1,2"),
        (["sweep=aux_coef", "seed=1.5", "--budget", "1h"], "Write seed=0,1,2"),
        (["sweep=aux_coef", "seed=null", "--budget", "1h"], "Write seed=0,1,2"),
        (["sweep=aux_coef", "seed=true", "--budget", "1h"], "Write seed=0,1,2"),
        (["sweep=aux_coef", "seed='${data_seed}'", "--budget", "1h"], "seed"),
        (["sweep=aux_coef", "seed=-1,2", "--budget", "1h"], "Write seed=0,1,2"),
        (["sweep=aux_coef", "seed=0,1,2,3", "--budget", "1h", "--max-seeds", "3"], "Give --max-seeds 4"),
        (["balancer=aux", "--budget", "1h"], "one arm without a claim"),
        (["sweep=aux_coef", "launch=slurm", "launch.dry_run=true", "--budget", "1h"], "Write --dry-run"),
        (["sweep=aux_coef", "aux.coef=-1", "--budget", "1h", "--max-seeds", "3"], "aux.coef"),
    ],
)
def test_what_is_refused(trained: Trained, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["decide", *words]) == 2
    assert message in capsys.readouterr().err
    assert trained == []


def test_names_of_sweeps() -> None:
    assert command.lines_of(["a=1", "sweep=x,y"], all_sweeps=False) == [["a=1", "sweep=x"], ["a=1", "sweep=y"]]
    every = command.lines_of([], all_sweeps=True)
    assert ["sweep=aux_coef"] in every
    assert not any("proxy" in word for line in every for word in line)  # a search for sizes is no question of recipes
    with pytest.raises(ConfigError, match="--all"):
        command.lines_of(["sweep=x"], all_sweeps=True)


@pytest.mark.parametrize("wait", [False, True])
def test_on_slurm_a_batch_is_submitted_as_a_sweep_is(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wait: bool
) -> None:
    submitted: list[int] = []

    def submit(console: Console, plan: StagePlan, launch: Any, estimator: Any) -> int:
        todo = [p for p in plan.runs.values() if p.state not in SETTLED]
        submitted.append(len(todo))
        for planned in todo if launch.wait else ():
            end(planned)
        return 0

    monkeypatch.setattr(Estimator, "estimate", lambda self, run: RunEstimate(SECONDS, "a test", 0))
    monkeypatch.setattr(command, "submit_plan", submit)
    monkeypatch.setattr(command, "require_slurm", lambda: None)
    monkeypatch.setattr(command, "check_data", lambda runs: None)
    words = ["launch=slurm", f"launch.wait={str(wait).lower()}", "--budget", "30m", "--max-seeds", "3"]
    line = [word for word in LINE if not word.startswith("launch.")]
    assert main(["decide", *line, *words]) == 12
    assert submitted == [18]
    out = capsys.readouterr().out
    assert ("jobs are submitted; type the same line again" in out) is not wait
    assert ("look 1 was taken" in out) is wait
    if not wait:  # the jobs still wait in the queue
        assert main(["decide", *line, *words]) == 12
        assert submitted == [18, 18]  # the submission leaves out what is queued


def test_what_an_interrupted_batch_left_is_trained_as_far_as_the_budget_reaches(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(planned: PlannedRun, number: int) -> State:
        if number == 3:
            raise KeyboardInterrupt
        return State.done

    instead_of_training(monkeypatch, stop)
    assert main(["decide", *LINE, "--budget", "10m", "--max-seeds", "6"]) == 130
    rest = instead_of_training(monkeypatch, lambda planned, number: State.done)
    found = data(capsys, "--budget", "100s", "--max-seeds", "6")
    assert found["spent"] == SECONDS * (3 + len(rest))
    assert found["spent"] <= 100
    assert rest


def test_failed_runs_of_others_are_no_part_of_a_batch(
    trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for planned in make_plan([*LINE, "seed=10,11,12"]).runs.values():
        end(planned, State.failed)
    found = data(capsys, "--budget", "185s", "--max-seeds", "20")
    assert {seed for _, seed in trained} == {0, 1, 2}
    assert found["spent"] <= 185


def test_a_failed_run_that_is_tried_again_costs_a_look(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--budget", "10m", "--max-seeds", "3")
    bad = ("balancer=aux aux.coef=0.4", 1)
    instead_of_training(monkeypatch, lambda p, n: State.failed if (p.label, p.run.seed) == bad else State.done)
    data(capsys, *words, code=1)
    instead_of_training(monkeypatch, lambda p, n: State.done)
    found = data(capsys, *words)
    assert [look["look"] for look in found["looks"]] == [1, 2]
    assert Decision.of(Pool.of(LINE, 3), Estimator(folders), 1, "test").look == 3


def test_no_look_is_spent_where_nothing_can_be_tested(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--budget", "10m", "--max-seeds", "3")
    instead_of_training(monkeypatch, lambda p, n: State.failed if n else State.done)
    assert data(capsys, *words, code=1)["looks"] == []
    instead_of_training(monkeypatch, lambda p, n: State.done)
    assert [look["look"] for look in data(capsys, *words)["looks"]] == [1]


def test_a_point_at_an_end_that_leads_buys_nothing(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "balancer=aux", "aux.coef=0.1,0.2", "--budget", "1h", "--max-seeds", "40", code=12)
    fates = {q["question"]: q["fate"] for q in found["open"]}
    claim = "A coefficient of 0.2 gives the lowest loss; 0.6 is too strong and 0.1 too weak."
    assert fates[claim] == "dropped"
    assert len(trained) < 60  # it was 74: to the last seed, for this claim


def test_other_seeds_of_one_decision_are_paid_from_one_budget(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    data(capsys, "--budget", "190s", "--max-seeds", "3")
    count = len(trained)
    found = data(capsys, "seed=100,101,102", "--budget", "190s", "--max-seeds", "3")
    assert found["spent"] == SECONDS * len(trained)
    assert len(trained) == count


BAD_NUMBERS: list[tuple[str, str, object]] = [
    ("config.yaml", "launch.threads", "abc"), ("config.yaml", "launch.threads", [1]),
    ("config.yaml", "launch.threads", -4), ("config.yaml", "launch.threads", float("nan")),
    ("summary.json", "wall_seconds", -1e6), ("summary.json", "wall_seconds", "long"),
    ("summary.json", "wall_seconds", float("inf")),
]  # fmt: skip


def test_a_bad_number_of_one_run_neither_stops_it_nor_frees_the_budget(
    trained: Trained, capsys: pytest.CaptureFixture[str], folders: Path
) -> None:
    words = ("--budget", "190s", "--max-seeds", "6")
    data(capsys, *words)
    folder = next(folders.glob("*-*/config.yaml")).parent
    for name, key, value in BAD_NUMBERS:
        path = folder / name
        before = path.read_text()
        content = yaml.safe_load(before)
        group, _, own = key.rpartition(".")
        (content[group] if group else content)[own] = value
        path.write_text(yaml.safe_dump(content) if name.endswith("yaml") else json.dumps(content))
        found = data(capsys, *words)
        assert SECONDS * (len(trained) - 1) <= found["spent"] <= SECONDS * (len(trained) + 1), (key, value)
        path.write_text(before)


OTHER_TYPES: list[tuple[str, object]] = [
    ("trained", {}), ("trained", "abc"), ("trained", ["zz"]), ("trained", [7]), ("closed", {}),
    ("look", -5), ("look", 0), ("look", 1e300), ("look", True), ("look", "1"), ("runs", [["a"]]),
    ("left_open", []), ("left_open", 7),
]  # fmt: skip


def test_a_record_of_other_types_is_refused_and_stays(
    trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--budget", "190s", "--max-seeds", "3")
    data(capsys, *words)
    (path,) = (folders / "sweeps").glob("decide-*/decide.json")
    sound = path.read_text()
    for key, value in OTHER_TYPES:
        content = json.loads(sound)
        (content if key in content else content["closed"][0])[key] = value
        path.write_text(json.dumps(content))
        with pytest.raises(RunFolderError, match="Move it away"):
            Record.load(path, "aux_coef")
    before = path.read_bytes()
    assert main(["decide", *LINE, *words]) == 2
    assert "Move it away" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_lock_that_is_none_is_one_message(
    trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    lock = folders / "sweeps" / f"decide-{Pool.of(LINE, 4).key}" / ".lock"
    lock.parent.mkdir(parents=True)
    lock.mkdir() if kind == "folder" else lock.symlink_to("elsewhere")
    assert main(["decide", *LINE, "--budget", "30m", "--max-seeds", "4"]) == 2
    assert ".lock" in capsys.readouterr().err
    assert trained == []


def test_a_sweep_from_the_end_of_time_is_named(
    trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data(capsys, "--budget", "190s", "--max-seeds", "3")
    path = next(folders.glob("sweeps/*/manifest.json"))
    content = json.loads(path.read_text()) | {"created": "9999-12-31T23:59:59+00:00"}
    path.write_text(json.dumps(content))
    assert main(["decide", *LINE, "--budget", "10m", "--max-seeds", "4"]) == 2
    assert "made at the end of time" in capsys.readouterr().err


def test_a_cancelled_seed_that_nobody_needs_leaves_it_decided(
    trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["balancer=aux", "aux.coef=0.1,0.6", *TINY, "--max-seeds", "8", "--budget", "30m"]
    assert main(["decide", *line]) == 0
    (plan,) = [make_plan([*line[:-4], "seed=7", "aux.coef=0.6"])]
    end(next(iter(plan.runs.values())), State.cancelled)
    assert main(["decide", *line]) == 0


def test_a_cancelled_run_that_is_needed_says_how_to_take_it_back(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    instead_of_training(monkeypatch, lambda p, n: State.cancelled if p.run.seed == 1 else State.done)
    found = data(capsys, "--budget", "30m", "--max-seeds", "4", code=1)
    assert any("retry --cancelled" in q["why"] for q in found["open"])


def test_a_number_that_an_arm_never_has_is_stuck(
    trained: Trained, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RunDir.write_summary

    def without_maxvio(folder: RunDir, numbers: dict[str, Any]) -> None:
        write(folder, {key: value for key, value in numbers.items() if key != "val_maxvio_global"})

    monkeypatch.setattr(RunDir, "write_summary", without_maxvio)
    found = data(capsys, "--budget", "30m", "--max-seeds", "4")
    fates = {q["question"]: (q["fate"], q["why"]) for q in found["open"] if q["question"].startswith("MaxVio")}
    assert fates
    assert all(fate == "stuck" and "no such number" in why for fate, why in fates.values())


def test_a_job_is_priced_with_its_own_cores(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [word for word in LINE if not word.startswith("launch.")]
    on_slurm = command.open_decisions(
        Namespace(overrides=[*line, "launch=slurm", "launch.cpus_per_task=16", "launch.pack=2"],
                        all=False, max_seeds=3)
    )  # fmt: skip
    assert [decision.threads for decision in on_slurm] == [8]


def test_runs_are_trained_with_the_threads_that_they_are_priced_with(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[int | None] = []

    def train(screen: Console, plan: StagePlan, todo: list[PlannedRun], workers: int, threads: int | None) -> Any:
        given.append(threads)
        for planned in todo:
            end(planned)
        return SimpleNamespace(rows=[]), None, {}

    monkeypatch.setattr(Estimator, "estimate", lambda self, run: RunEstimate(SECONDS, "a test", 0))
    monkeypatch.setattr(command, "train_here", train)
    line = [word for word in LINE if not word.startswith("launch.")]
    assert main(["decide", *line, "launch.threads=null", "--budget", "190s", "--max-seeds", "3"]) == 12
    (decision,) = command.open_decisions(Namespace(overrides=line, all=False, max_seeds=3))
    assert set(given) == {decision.threads}


def test_fewer_seeds_than_a_look_has_seen_are_no_first_look(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    data(capsys, "--budget", "20m", "--max-seeds", "8")
    later = data(capsys, "--budget", "20m", "--max-seeds", "3")
    assert [look["look"] for look in later["looks"]] in ([1], [1, 2])
    assert Decision.of(Pool.of(LINE, 3), _estimator(), 1, "test").level == LATER


def _estimator() -> Estimator:
    return Estimator(make_plan(LINE).runs_root)


def test_a_kill_before_the_look_is_recorded_costs_no_look(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a decision that trains nothing itself: its manifest was there without a record, and counted as lost."""
    plan = make_plan([*LINE, "seed=0,1,2,3"])
    for planned in plan.runs.values():
        end(planned)
    save, calls = Record.save, []

    def dies(self: Record) -> None:
        if self.closed:
            raise Killed
        calls.append(self.path)
        save(self)

    monkeypatch.setattr(Record, "save", dies)
    with pytest.raises(Killed):
        main(["decide", *LINE, "--budget", "1s", "--max-seeds", "4"])
    monkeypatch.setattr(Record, "save", save)
    assert calls
    found = data(capsys, "--budget", "1s", "--max-seeds", "4")
    assert [look["look"] for look in found["looks"]] == [1]
    assert found["answered"]


def test_the_other_order_of_values_asks_nothing_again(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["decide", *TINY, "launch.workers=1", "balancer=aux"]
    words = ["--budget", "20m", "--max-seeds", "6", "--json"]
    main([*line, "aux.coef=0.1,0.6", *words])
    first = held(capsys.readouterr().out, "moe-sweeps/decide")
    assert len(first["answered"]) == 2
    count = len(trained)
    main([*line, "aux.coef=0.6,0.1", *words])
    again = held(capsys.readouterr().out, "moe-sweeps/decide")
    assert (again["answered"], again["looks"], len(trained)) == (first["answered"], first["looks"], count)
    assert again["open"] == []


def test_runs_of_other_code_are_not_mixed(trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data(capsys, "--budget", "3m", "--max-seeds", "8")
    for folder in RunDir.all(folders):
        content = json.loads((folder.path / "provenance.json").read_text())
        content["sources"] = {**content["sources"], "training/trainer.py": "0" * 64}
        (folder.path / "provenance.json").write_text(json.dumps(content))
    count = len(trained)
    for more in ([], ["--dry-run"]):
        assert main(["decide", *LINE, "--budget", "40m", "--max-seeds", "12", *more]) == 2
        error = capsys.readouterr().err
        assert "of its runs were trained by other code (training/trainer.py)" in error
        assert "retry --done --other-code" in error
    assert len(trained) == count


def test_an_answer_to_what_is_not_asked_any_more_does_not_count(
    trained: Trained, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = data(capsys, "--budget", "20m", "--max-seeds", "8")
    (path,) = (folders / "sweeps").glob("decide-*/decide.json")
    content = json.loads(path.read_text())
    (answers_of_look,) = [look["answers"] for look in content["closed"]]
    answers_of_look["0" * 16] = {"text": "An old claim.", "answer": "reproduced", "effect": "ratio 2", "p": 0.01}
    path.write_text(json.dumps(content))
    again = data(capsys, "--budget", "20m", "--max-seeds", "8")
    assert answers(again) == answers(first)
    (gone,) = again["withdrawn"]
    assert (gone["question"], gone["why"]) == ("An old claim.", "the sweep does not ask this any more")
    main(["decide", *LINE, "--budget", "20m", "--max-seeds", "8"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"{len(first['answered'])} decided" in out
    assert "no longer counted: An old claim. (reproduced): the sweep does not ask this any more" in out


def test_seeds_that_a_decision_does_not_count_do_not_hide_its_arm(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeds beyond --max-seeds gave the arm a chance of 0%, so that it never got any."""
    for planned in make_plan([*LINE, "seed=5,6,7"]).runs.values():
        if "0.4" in planned.label:
            end(planned)
    found = data(capsys, "--budget", "30m", "--max-seeds", "5")
    seeds = sorted(seed for label, seed in trained if "0.4" in label)
    assert seeds[:3] == [0, 1, 2]
    assert any("0.4" in question for question in answers(found))


def test_a_dry_run_names_the_look_that_would_come(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Decision, "close", lambda self: None)
    main(["decide", *LINE, "--budget", "8m", "--max-seeds", "6"])
    capsys.readouterr()
    main(["decide", *LINE, "--budget", "8m", "--max-seeds", "6", "--dry-run"])
    out = " ".join(capsys.readouterr().out.split())
    assert "nothing to train: no open question has a chance of 40% within the about" in out
    assert "aux_coef: look 1 would be taken; " in out
