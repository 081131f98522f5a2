"""Forks: what a run takes from its trunk, and that without a change it is the run that was never forked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, TINY, compose_run, records, trainer, without_times

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import MoeSweepsError, RunFolderError
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.sweep.plan import PlannedRun, make_plan
from moe_sweeps.training.checkpoint import Checkpoints
from moe_sweeps.training.forking import perturbed
from moe_sweeps.training.trainer import Trainer
from moe_sweeps.training.worker import run_worker

STEP = 10  # between two lines of the log, so that the trunk's checkpoint holds an open interval
FORK = f"fork.step={STEP}"
KEPT = "trainer.keep_checkpoints=10"


def forks(*line: str) -> tuple[list[RunDir], list[RunDir]]:
    """Frozen trunks and arms of a line."""
    plan = make_plan([*TINY, KEPT, FORK, *line])

    def frozen(planned: dict[str, PlannedRun]) -> list[RunDir]:
        return [freeze(p.run, [], command="test") for p in planned.values()]

    return frozen(plan.trunks), frozen(plan.runs)


def state_of(folder: RunDir, step: int) -> dict[str, Any]:
    state = Checkpoints(folder.checkpoints, 9).load(step, CPU)
    return {name: part for name, part in state.items() if name not in ("clock", "timer")}


def require_equal(one: Any, other: Any, place: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            require_equal(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            require_equal(*pair, f"{place}[{number}]")
    else:
        assert one == other, place


def trained(run: RunConfig) -> RunDir:
    folder = freeze(run, [], command="test")
    assert run_worker(folder) is State.done
    return folder


@pytest.mark.parametrize(
    "recipe",
    [
        ["balancer=lossfree", "router.noise=fixed"],
        ["balancer=aux", "lr_split=batch_fraction", "lr_split.ema=0.5", "router.input_jitter=0.1"],
        ["balancer=quantile", "optimizer=muon"],
        ["optimizer=shampoo", "optimizer.precondition_frequency=3"],
        ["optimizer=soap", "aux.scope=global"],
        ["experts=dense"],
    ],
    ids=" ".join,
)
def test_a_fork_that_changes_nothing_is_the_unforked_run(
    folders: Path, real_data: TokenData, recipe: list[str]
) -> None:
    """State and every line after the fork, to the last bit: weights, moments, biases, random streams, open sums."""
    whole = trained(compose_run(*TINY, KEPT, *recipe))
    (trunk,), (fork,) = forks(*recipe)
    assert run_worker(fork) is State.done  # it trains its trunk first
    assert trunk.status().state is State.done
    assert trunk.status().step == trunk.status().total_steps == STEP
    for step in (15, 20, 24):
        require_equal(state_of(fork, step), state_of(whole, step))
    for name in ("metrics.jsonl", "routing.jsonl"):
        if (whole.path / name).exists():
            lines = [line for line in records(whole, name) if line["step"] > STEP]
            assert records(fork, name) == lines
            assert lines
    assert without_times(fork.summary()) == without_times(whole.summary())


# --- what each kind of change takes over ------------------------------------------------------------------------------


def begun(real_data: TokenData, *line: str) -> tuple[Trainer, dict[str, Any]]:
    """The trainer of the second arm of a line at the moment of the fork, and the state of its trunk."""
    (trunk,), (_, fork) = forks(*line)
    if trunk.status().state is not State.done:
        run_worker(trunk)
    run = make_plan([*TINY, KEPT, FORK, *line]).runs[fork.run_id].run
    found = trainer(run, real_data)
    found._start_or_resume()
    assert found.step == STEP
    return found, Checkpoints(trunk.checkpoints, 1).load(STEP, CPU)


def test_a_bias_begins_at_zero_where_the_trunk_has_none(folders: Path, real_data: TokenData) -> None:
    found, state = begun(real_data, "balancer=aux,lossfree")
    assert not state["balancer"]
    assert not found.balancer.state_dict()["bias_LE"].any()
    require_equal(found.model.state_dict(), state["model"])
    require_equal(found.stepper.state_dict()["optimizer"]["state"], state["stepper"]["optimizer"]["state"])


def test_a_bias_is_dropped_where_the_arm_has_none(folders: Path, real_data: TokenData) -> None:
    found, state = begun(real_data, "balancer=lossfree,aux")
    assert state["balancer"]["bias_LE"].any()
    assert found.balancer.state_dict() == {}


def test_a_bias_is_kept_where_its_rate_changes(folders: Path, real_data: TokenData) -> None:
    found, state = begun(real_data, "balancer=lossfree", "balancer.rate=0.01,0.1")
    assert state["balancer"]["bias_LE"].any()
    require_equal(found.balancer.state_dict(), state["balancer"])


@pytest.mark.parametrize(
    ("change", "of_the_trunk"),
    [
        (["optimizer.base_lr=6e-3,3e-3"], {"norm": 2.0, "dense": 2.0, "expert": 2.0}),
        (["lr_split=static", "lr_split.expert=1.0,0.25"], {"norm": 1.0, "dense": 1.0, "expert": 4.0}),
    ],
)
def test_learning_rates_are_the_arms_own(
    folders: Path, real_data: TokenData, change: list[str], of_the_trunk: dict[str, float]
) -> None:
    found, state = begun(real_data, *change)
    groups = zip(found.stepper.optimizer.param_groups, state["stepper"]["optimizer"]["param_groups"], strict=True)
    ratios = {own["role"]: trunk["peak_lr"] / own["peak_lr"] for own, trunk in groups}
    assert {role: ratios[role] for role in of_the_trunk} == pytest.approx(of_the_trunk)
    require_equal(found.stepper.state_dict()["optimizer"]["state"], state["stepper"]["optimizer"]["state"])


def test_other_settings_of_the_optimizer_are_the_arms_own(folders: Path, real_data: TokenData) -> None:
    found, _ = begun(real_data, "optimizer.beta2=0.95,0.9", "optimizer.weight_decay=0.3")
    assert {group["betas"] for group in found.stepper.optimizer.param_groups} == {(0.9, 0.9)}


def test_a_moving_average_of_ratios_begins_where_the_split_does(folders: Path, real_data: TokenData) -> None:
    line = ["lr_split=ideal_normalized,batch_fraction", "lr_split.ema=0.9"]
    found, state = begun(real_data, *line)
    assert state["stepper"]["ratios"]["steps"] == STEP
    assert found.stepper.state_dict()["ratios"] == {"average_LE": None, "steps": 0}
    kept, state = begun(real_data, "lr_split=batch_fraction", "lr_split.ema=0.9,0.8")
    require_equal(kept.stepper.state_dict()["ratios"], state["stepper"]["ratios"])


def test_the_first_step_of_an_arm_is_that_of_a_plain_loop(folders: Path, real_data: TokenData) -> None:
    """Trunk's weights and moments, the arm's own rate, coefficient and schedule, the batch of step N: by hand."""
    line = ["aux.coef=0.1,0.7", "optimizer.weight_decay=0", "trainer.grad_clip=0", "trainer.micro_batch_size=4"]
    found, state = begun(real_data, *line)
    name = next(n for n in state["model"] if "attention" in n)
    before = state["model"][name].clone()
    found._train_step()
    own = dict(found.model.named_parameters())[name]
    moments = found.stepper.optimizer.state[own]
    assert int(moments["step"]) == STEP + 1
    rate = found.run.optimizer.base_lr * found.run.schedule.factor(STEP, 24)
    corrected = moments["exp_avg"] / (1 - 0.9 ** (STEP + 1))
    size = (moments["exp_avg_sq"] / (1 - 0.95 ** (STEP + 1))).sqrt() + 1e-8
    torch.testing.assert_close(own.detach(), before - rate * corrected / size, rtol=1e-5, atol=1e-7)


def test_arms_of_one_trunk_see_the_same_first_batch_with_the_same_weights(folders: Path, real_data: TokenData) -> None:
    _, arms = forks("aux.coef=0.1,0.7", "fork.replicates=2")
    for arm in arms:
        run_worker(arm)
    starts = [arm.provenance()["pairing"] for arm in arms]
    assert starts[0] == starts[2]  # replicate 0 of both
    assert starts[1] == starts[3]  # and replicate 1
    assert starts[0] != starts[1]
    assert starts[0]["batches"] == starts[1]["batches"]
    assert len({arm.summary()["val_loss"] for arm in arms}) == 4  # type: ignore[index]


def test_a_perturbation_has_its_size_and_is_that_of_its_replicate(folders: Path, real_data: TokenData) -> None:
    plan = make_plan([*TINY, FORK, "fork.replicates=3", "fork.noise=0.01"])
    kept, one, two = (planned.run for planned in plan.runs.values())
    weights = {"a": torch.full((200, 200), 2.0), "b": torch.zeros(5), "n": torch.arange(3)}
    assert perturbed(weights, kept) == weights
    found, other = perturbed(weights, one), perturbed(weights, two)
    change = found["a"] / 2.0 - 1
    assert change.std().item() == pytest.approx(0.01, rel=0.02)
    assert abs(change.mean().item()) < 2e-4
    assert torch.equal(perturbed(weights, one)["a"], found["a"])
    assert not torch.equal(other["a"], found["a"])
    assert not found["b"].any()
    assert torch.equal(found["n"], weights["n"])
    assert not torch.equal(perturbed(weights, dataclasses.replace(one, seed=1))["a"], found["a"])


# --- trunks that die, are lost, or are others -------------------------------------------------------------------------


def test_a_damaged_trunk_is_trained_again_and_gives_the_same_fork(folders: Path, real_data: TokenData) -> None:
    (trunk,), (first, second) = forks("aux.coef=0.1,0.7")
    run_worker(first)
    before = trunk.summary()
    state = trunk.checkpoints / f"step-{STEP:08d}.pt"
    whole = state.read_bytes()
    state.write_bytes(whole[:-100] + bytes(100))
    assert run_worker(second) is State.done
    assert trunk.status().attempt == 2
    assert without_times(trunk.summary()) == without_times(before)
    again = Checkpoints(trunk.checkpoints, 1).load(STEP, CPU)
    assert again["step"] == STEP
    assert second.provenance()["trunk"]["checkpoint"] != first.provenance()["trunk"]["checkpoint"]  # other clocks


def test_a_trunk_without_any_checkpoint_is_trained_again(folders: Path, real_data: TokenData) -> None:
    (trunk,), (first, second) = forks("aux.coef=0.1,0.7")
    run_worker(first)
    for path in trunk.checkpoints.iterdir():
        path.unlink()
    assert run_worker(second) is State.done


def test_a_trunk_whose_worker_died_is_resumed(folders: Path, real_data: TokenData) -> None:
    (trunk,), (fork,) = forks()
    status = trunk.status()
    status.state, status.attempt, status.step, status.pid = State.running, 1, 3, 1
    trunk.write_status(status)
    assert run_worker(fork) is State.done
    assert trunk.status().state is State.done


@pytest.mark.parametrize("state", [State.failed, State.diverged, State.cancelled])
def test_nothing_continues_from_a_trunk_that_ended_otherwise(folders: Path, state: State) -> None:
    (trunk,), (fork,) = forks()
    status = trunk.status()
    status.state = state
    trunk.write_status(status)
    with pytest.raises(MoeSweepsError, match=rf"its trunk .* is {state}"):
        run_worker(fork)
    assert fork.status().state is State.failed
    assert "trunk" in str(fork.status().failure)


def test_a_trunk_that_is_gone_or_another_is_refused(folders: Path) -> None:
    (trunk,), (fork,) = forks()
    away = trunk.path.rename(folders / "away")
    with pytest.raises(RunFolderError, match=r"has no folder here. Type the line"):
        run_worker(fork)
    away.rename(trunk.path)
    (other,), _ = forks("seed=1")
    config = (fork.path / "config.yaml").read_text().replace(trunk.run_id, other.run_id)
    (fork.path / "config.yaml").write_text(config)
    with pytest.raises(RunFolderError, match="is not the trunk that this run was planned with"):
        run_worker(fork)


def test_a_fork_remembers_what_it_began_with(folders: Path, real_data: TokenData) -> None:
    (trunk,), (fork,) = forks()
    run_worker(fork)
    kept = fork.provenance()["trunk"]
    assert (kept["run_id"], kept["folder"], kept["step"]) == (trunk.run_id, trunk.path.name, STEP)
    assert kept["checkpoint"] == Checkpoints(trunk.checkpoints, 1).stamp(STEP)["sha256"]
    assert kept["attempts"][0]["source_hash"] == trunk.provenance()["source_hash"]


def test_an_interrupted_fork_resumes_from_its_own_checkpoint(folders: Path, real_data: TokenData) -> None:
    whole = trained(compose_run(*TINY, KEPT))
    (trunk,), (fork,) = forks()
    run_worker(trunk)
    run = make_plan([*TINY, KEPT, FORK]).runs[fork.run_id].run
    stopped = trainer(run, real_data)
    with pytest.raises(Exception, match="stopped after step 17"):
        stopped.train(lambda: stopped.step >= 17)
    for path in trunk.checkpoints.iterdir():
        path.unlink()  # not needed any more
    assert run_worker(fork) is State.done
    assert trunk.status().attempt == 1
    require_equal(state_of(fork, 24), state_of(whole, 24))
