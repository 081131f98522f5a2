"""Estimates: from finished runs of the same cost, else a probe, else a guess that is called one."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, compose_run
from unit.cli.test_plan_view import printed

from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.identity import canonical_form
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.launch.probe import PROBE_STEPS, Probe, probe
from moe_sweeps.launch.probe_process import ProbeFailed
from moe_sweeps.records.rundir import RunDir, State, Status
from moe_sweeps.sweep import estimate as estimating
from moe_sweeps.sweep.cost import count_text, flops_text, plan_cost, size_text
from moe_sweeps.sweep.estimate import Estimator, RunEstimate, cost_key, tokens_of, wall_time
from moe_sweeps.sweep.fitting import Machine
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.training.checkpoint_size import checkpoint_bytes


def finish(*line: str, seconds: float, tokens: int, host: str | None = None, checkpoint: int = 0) -> RunDir:
    """A run folder that says it is done."""
    folder = freeze(compose_run(*line), [], command="test")
    folder.write_summary({"val_loss": 3.0, "wall_seconds": seconds, "tokens": tokens})
    folder.write_status(Status(State.done, host=host))
    (folder.checkpoints / "step-1.pt").write_bytes(b"x" * checkpoint)
    return folder


def test_estimates_are_the_median_of_finished_runs_scaled_by_tokens(folders: Path) -> None:
    run = compose_run(*TINY, "seed=2")
    assert "a guess" in Estimator(folders).estimate(run).source
    tokens = tokens_of(run)
    for seed, seconds in ((0, 10.0), (1, 20.0)):
        finish(*TINY, f"seed={seed}", seconds=seconds, tokens=tokens // 2, checkpoint=100 * (seed + 1))
    estimate = Estimator(folders).estimate(run)
    assert estimate.seconds == pytest.approx(30.0)  # median of 10 and 20, for twice the tokens
    assert estimate.source == "from 2 finished runs of this size"
    assert estimate.checkpoint_bytes == 200


def test_runs_of_this_machine_come_before_others(folders: Path) -> None:
    run = compose_run(*TINY, "seed=2")
    finish(*TINY, seconds=50.0, tokens=tokens_of(run), host="another")
    assert Estimator(folders).estimate(run).source == "from 1 finished run of this size elsewhere"
    finish(*TINY, "seed=1", seconds=5.0, tokens=tokens_of(run))
    assert Estimator(folders).estimate(run).seconds == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("seed=5", True),
        ("aux.coef=0.7", True),
        ("balancer=lossfree", True),
        ("trainer.steps=48", True),
        ("optimizer.base_lr=1", True),
        ("experts.num_experts=16", False),  # FLOPs are the same, time is not
        ("model.layers=3", False),
        ("trainer.seq_len=64", False),
        ("trainer.micro_batch_size=4", False),
        ("data.vocab_size=1024", False),
        ("aux.scope=global", False),
    ],
)
def test_what_makes_two_runs_cost_the_same(override: str, same: bool) -> None:
    keys = {cost_key(canonical_form(compose_run(*line))) for line in (TINY, (*TINY, override))}
    assert (len(keys) == 1) == same


def test_a_damaged_folder_does_not_stop_a_plan(folders: Path) -> None:
    folder = finish(*TINY, seconds=1.0, tokens=10)
    (folder.path / "summary.json").write_text("{")
    assert RunDir.all(folders) == [folder]
    assert "a guess" in Estimator(folders).estimate(compose_run(*TINY)).source


def test_a_probe_measures_steps(folders: Path) -> None:
    run = compose_run(*TINY)
    estimate = Estimator(folders, probing=True).estimate(run)
    assert estimate.source == f"from a probe of {PROBE_STEPS} steps"
    assert 0.02 < estimate.seconds < 60
    assert estimate.checkpoint_bytes == checkpoint_bytes(run)
    assert not folders.exists()  # a probe leaves nothing behind


@pytest.mark.parametrize("steps", [2, 3])  # with one step no warm-up could end
def test_a_run_that_is_shorter_than_a_probe_is_probed(folders: Path, steps: int) -> None:
    run = compose_run(*TINY, f"trainer.steps={steps}", "schedule.warmup_steps=1")
    assert probe(run, threads=1).seconds_per_step > 0


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A server is there, and every probe on it dies; the names of the runs that were tried."""
    tried: list[str] = []

    def die(run: RunConfig, threads: int) -> Probe:
        tried.append(run.run_name)
        raise ProbeFailed(f"the probe of {run.run_name} died")

    monkeypatch.setattr(estimating, "probe_apart", die)
    monkeypatch.setattr(estimating, "has_server", lambda: True)
    return tried


def test_a_probe_that_dies_leaves_a_guess_and_no_other_is_tried(folders: Path, failing: list[str]) -> None:
    estimator, runs = Estimator(folders, probing=True), [compose_run(*TINY, f"model.layers={n}") for n in (1, 2, 1)]
    found = [estimator.estimate(run) for run in runs]
    assert failing == ["smoke_v1-aux"]
    assert [one.problem for one in found] == ["the probe of smoke_v1-aux died", "", "the probe of smoke_v1-aux died"]
    assert not any(one.measured for one in found)
    assert all("a guess" in one.source for one in found)


def test_the_plan_says_why_a_probe_gave_nothing_and_goes_on(folders: Path, failing: list[str]) -> None:
    plan = make_plan([*TINY, "seed=0,1"])
    shown = printed(plan, plan_cost(plan, Estimator(folders, probing=True), 2))
    assert shown.count("no probe: the probe of smoke_v1-aux died") == 1
    assert "a guess: 20% of this machine's matrix-product peak" in shown


def test_a_gpu_is_probed_from_a_process_of_its_own(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(run: RunConfig, threads: int) -> Probe:
        return Probe(3.0)

    monkeypatch.setattr(estimating, "probe_apart", elsewhere)
    monkeypatch.setattr(estimating, "probe", lambda *_: pytest.fail("in this process"))
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls, device: Machine(None, None, 10**11, 1)))
    found: RunEstimate = Estimator(folders, probing=True).estimate(compose_run(*TINY))
    assert found.seconds >= 24 * 3.0


def test_what_is_too_large_is_not_probed(folders: Path) -> None:
    estimate = Estimator(folders, probing=True).estimate(compose_run("scale=talk"))
    assert "a guess" in estimate.source
    assert not estimate.measured


def test_a_probe_counts_evaluations_when_data_are_prepared(folders: Path, real_data: object) -> None:
    run = compose_run(*TINY, "trainer.eval_every=8")  # 2 of 32 windows before the end, 64 at the end, 32 tokens each
    steps = 24 + 0.35 * (2 * 32 + 64) * 32 / (4 * 32)
    assert Probe(2.0).seconds_of(run) == pytest.approx(2.0 * steps)


def test_cost_of_a_plan_counts_what_is_left(folders: Path) -> None:
    plan = make_plan([*TINY, "seed=0,1,2"])
    first = next(iter(plan.runs.values())).frozen("test", threads=1)
    first.write_status(Status(State.preempted, step=18, total_steps=24))
    finish(*TINY, "seed=7", seconds=8.0, tokens=tokens_of(compose_run(*TINY)), checkpoint=10)
    cost = plan_cost(make_plan([*TINY, "seed=0,1,2,7"]), Estimator(folders), workers=2)
    assert [r.seconds for r in cost.runs] == pytest.approx([2.0, 8.0, 8.0])
    assert cost.seconds == pytest.approx(9.0)
    assert cost.disk == 3 * 2 * 10
    one = cost.runs[0]
    assert one.flops == one.size.flops_per_token * 24 * 4 * 32


def test_a_full_disk_is_refused_before_anything_starts(folders: Path) -> None:
    finish(*TINY, "seed=7", seconds=8.0, tokens=100, checkpoint=1000)
    cost = plan_cost(make_plan(TINY), Estimator(folders), workers=1)
    cost.require_disk()
    full = type(cost)(cost.runs, 1, free_disk=1999)
    with pytest.raises(ConfigError, match=r"checkpoints would take 2 kB, and 2 kB are free\. Keep fewer"):
        full.require_disk()


def test_wall_time_of_a_sweep() -> None:
    assert wall_time([10, 10, 10, 10], workers=2) == 20
    assert wall_time([30, 1, 1], workers=4) == 30
    assert wall_time([], workers=2) == 0


def test_numbers_for_people() -> None:
    assert size_text(0) == "0 B"
    assert size_text(999) == "999 B"
    assert size_text(24_100_000) == "24.1 MB"
    assert count_text(1_001_400_000) == "1 B"
    assert count_text(512) == "512"
    assert flops_text(3.4e15) == "3.4 PFLOP"
