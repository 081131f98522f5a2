"""What this machine cannot hold is refused, and what it could not hold at once is not trained at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import compose_run
from unit.cli.test_plan_view import printed

from moe_sweeps.cli import machine as checks
from moe_sweeps.cli import manage, train
from moe_sweeps.errors import ConfigError
from moe_sweeps.host.machine_memory import Limit
from moe_sweeps.sweep import fitting
from moe_sweeps.sweep.cost import plan_cost
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.fitting import Machine
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.training.memory import run_memory

TALK = ("scale=talk", "data=corpus", "trainer.micro_batch_size=1", "trainer.eval_batch_size=1", "engine.device=cpu")
E128 = ("experts=e128", "model.layers=12")
GB = 10**9


def machine(ram: float, gpu: int | None = None, gpus: int = 0) -> Machine:
    return Machine(Limit(int(ram), "this machine has"), None, gpu, gpus)


def test_a_byte_less_than_is_certain_is_refused_and_no_more() -> None:
    run = compose_run(*TALK)
    certain = run_memory(run).certain
    machine(certain).require(run)
    with pytest.raises(
        ConfigError, match=r"scale=talk is refused: talk-aux needs at least 15\.4 GB of memory .*weights"
    ):
        machine(certain - 1).require(run)


def test_processes_on_one_machine_share_its_memory() -> None:
    run = compose_run(*TALK)
    machine(40 * GB).require(run, processes=2, here=2)
    with pytest.raises(ConfigError, match=r"at least 46\.3 GB of memory in 3 processes"):
        machine(40 * GB).require(run, processes=3, here=3)
    machine(20 * GB).require(run, processes=3, here=1)  # one on each of three machines


def test_a_gpu_is_asked_for_the_training_and_the_host_for_the_weights() -> None:
    run = compose_run(*TALK)
    machine(8 * GB, gpu=24 * GB, gpus=1).require(run)
    with pytest.raises(ConfigError, match=r"the smallest GPU here has 12\.0 GB"):
        machine(64 * GB, gpu=12 * GB, gpus=2).require(run)
    machine(0.2 * GB, gpu=24 * GB, gpus=1).require(run)  # the host holds a layer at a time
    with pytest.raises(ConfigError, match=r"this machine has 100 MB"):
        machine(0.1 * GB, gpu=24 * GB, gpus=1).require(run)


def test_as_many_workers_as_fit_whichever_runs_meet() -> None:
    large, small = run_memory(compose_run(*TALK)), run_memory(compose_run("scale=smoke"))
    assert machine(25 * GB).side_by_side([small, large, small], 3) == 3
    assert machine(25 * GB).side_by_side([large, small, large], 3) == 1
    assert machine(36 * GB).side_by_side([large, small, large], 3) == 3
    assert machine(1).side_by_side([large], 4) == 1  # whether it fits at all is another question
    on_gpu = run_memory(compose_run(*TALK), on_gpu=True)
    assert machine(500 * GB, gpu=80 * GB, gpus=2).side_by_side([on_gpu] * 20, 20) == 2 * (80 * GB // on_gpu.estimate)


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "memory_limit", lambda: Limit(25 * GB, "this machine has"))
    monkeypatch.setattr(fitting, "available_memory", lambda: 3 * GB)


@pytest.mark.usefixtures("small_machine")
def test_the_plan_says_what_a_run_needs_and_how_many_fit(folders: Path) -> None:
    plan = make_plan([*TALK, "seed=0,1"])
    cost = plan_cost(plan, Estimator(folders), 2)
    shown = printed(plan, cost)
    assert cost.workers == 1
    assert "(weights 3.9 GB, gradients 3.9 GB, optimizer 7.7 GB, a micro-batch and the process about" in shown
    assert "saving adds up to 101 MB); this machine has 25.0 GB" in shown
    assert "fewer workers: 1 instead of 2, since no more fit into memory at once" in shown
    assert "will be needed, and 3.0 GB can be had now" in shown


@pytest.mark.usefixtures("small_machine", "folders")
@pytest.mark.parametrize("sweep", [True, False])
def test_what_cannot_fit_is_refused_before_anything_is_prepared(
    sweep: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "prepared", lambda *_: pytest.fail("the data were asked for"))
    line = [*TALK, *E128]
    assert train.main(["-m", *line, "seed=0,1"] if sweep else line) == train.REFUSED
    assert "scale=talk is refused: talk-aux needs at least" in capsys.readouterr().err


REFUSAL = "error: scale=talk is refused: talk-aux needs at least"


@pytest.mark.usefixtures("small_machine", "folders")
def test_a_plan_that_this_machine_cannot_hold_is_shown_and_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert manage.main(["plan", "--no-probe", *TALK, *E128]) == 2
    said = capsys.readouterr()
    assert "too large: the largest run does not fit into this machine" in said.out
    assert REFUSAL in said.err


@pytest.mark.usefixtures("small_machine", "folders")
def test_a_plan_for_another_machine_is_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert manage.main(["plan", "--no-probe", *TALK, *E128, "launch=slurm"]) == 0
    said = capsys.readouterr()
    assert "too large" not in said.out
    assert said.err == ""


@pytest.mark.usefixtures("small_machine", "folders")
@pytest.mark.parametrize(("launch", "on_gpu"), [("slurm", True), ("slurm_cpu", False)])
def test_memory_is_that_of_what_the_job_has(folders: Path, launch: str, on_gpu: bool) -> None:
    plan = make_plan(["scale=smoke", f"launch={launch}"])
    assert [cost.memory.on_gpu for cost in plan_cost(plan, Estimator(folders), 1).runs] == [on_gpu]


def test_a_search_that_this_machine_cannot_hold_is_refused_when_it_is_planned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = [*TALK, *E128, "search=random", "search.trials=2", "optimizer.base_lr=interval(1e-3,1e-2)"]
    assert manage.main(["plan", "--no-probe", *line]) == 2
    assert REFUSAL in capsys.readouterr().err


@pytest.mark.usefixtures("small_machine")
def test_a_run_that_cannot_fit_is_shown_as_such_and_never_probed(folders: Path) -> None:
    plan = make_plan([*TALK, *E128])
    cost = plan_cost(plan, Estimator(folders, probing=True), 1)
    assert "too large: the largest run does not fit into this machine" in printed(plan, cost)


def test_nothing_is_refused_where_nothing_is_known() -> None:
    nothing, run = Machine(None, None), compose_run(*TALK)
    nothing.require(run)
    assert nothing.side_by_side([run_memory(run)] * 3, 3) == 3
