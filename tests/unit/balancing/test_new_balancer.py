"""A new balancer is a class and a YAML file: everything else picks it up.

One is the example of CONTRIBUTING.md, word for word; the other, with a loss, is written here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from contracts import balancers, components, training
from helpers import TINY, compose_run, forget_compositions, trainer
from newcomers import example

import moe_sweeps.balancing
from moe_sweeps.cli.train import main
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.paths import CONF
from moe_sweeps.records.rundir import State
from moe_sweeps.training.worker import run_worker

WITH_A_LOSS = """
from dataclasses import dataclass

from moe_sweeps.balancing.base import Balancer, BalancerConfig
from moe_sweeps.config.registry import component, knob


@component("balancer", "squared")
@dataclass(slots=True)
class SquaredConfig(BalancerConfig):
    kind: str = "squared"
    coef: float = knob(0.1, ge=0, doc="coefficient of the loss")

    def build(self, run, num_layers, num_experts):
        return Squared(self.coef)


class Squared(Balancer):
    def __init__(self, coef):
        super().__init__()
        self.coef = coef

    def loss(self, routings, *, num_sequences=1, step_load_LE=None):
        return self.coef * sum(r.probs_TE.mean(0).square().sum() for r in routings)
"""
YAML = """# Use to keep the mean probabilities apart from their squares.
defaults:
  - /schema/balancer/squared@_here_
  - _self_
"""
NEW = {"sqrt": (example("python"), example("yaml")), "squared": (WITH_A_LOSS, YAML)}


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], str]]:
    """Adds a balancer as a user would, a module in the package and a file in conf/, until the test ends."""
    sources, conf = tmp_path / "sources", tmp_path / "conf"
    sources.mkdir()
    shutil.copytree(CONF, conf)
    monkeypatch.setattr(moe_sweeps.balancing, "__path__", [*moe_sweeps.balancing.__path__, str(sources)])
    monkeypatch.setattr("moe_sweeps.experiment.options.CONF", conf)
    monkeypatch.setitem(REGISTRY, "balancer", dict(REGISTRY["balancer"]))

    def write(kind: str, source: str, yaml: str) -> str:
        name = f"{kind}_{tmp_path.name}"  # a module is imported once a process
        (sources / f"{name}.py").write_text(source)
        (conf / "balancer" / f"{kind}.yaml").write_text(yaml)
        import_module(f"moe_sweeps.balancing.{name}")
        forget_compositions()
        return kind

    yield write
    forget_compositions()


@pytest.fixture(params=NEW)
def kind(request: pytest.FixtureRequest, add: Callable[[str, str, str], str]) -> str:
    return add(request.param, *NEW[request.param])


def test_the_tests_of_all_components_pick_it_up(kind: str) -> None:
    assert kind in REGISTRY["balancer"]
    components.composes_and_survives_freezing("balancer", kind)
    components.file_is_short_and_says_when_to_use_it("balancer", kind)
    components.every_knob_is_active_infrastructure_or_unread("balancer", kind)
    components.every_knob_is_documented("balancer", kind)
    for check in balancers.CHECKS:
        for router in ("topk_softmax", "softmax_topk", "sigmoid"):
            check(balancers.run_with(kind, f"router={router}"))


def test_it_trains_is_saved_and_resumed_bit_for_bit(folders: Path, real_data: TokenData, kind: str) -> None:
    run = compose_run(*TINY, f"balancer={kind}")
    training.evaluation_changes_no_state(run, real_data)
    shutil.rmtree(folders)
    training.stopped_and_resumed_is_bit_identical(run, real_data, folders)


def test_its_frozen_run_is_trained_by_a_worker(folders: Path, real_data: TokenData, kind: str) -> None:
    folder = trainer(compose_run(*TINY, f"balancer={kind}"), real_data).folder
    assert folder.config()["balancer"]["kind"] == kind
    assert run_worker(folder) is State.done


def test_it_is_offered_and_its_mistakes_are_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(rf"^    {kind} +Use to", capsys.readouterr().out, re.MULTILINE)
    with pytest.raises(ConfigError, match=rf"Did you mean balancer={kind}\?"):
        compose_run(f"balancer={kind}x")
    if kind == "sqrt":
        with pytest.raises(ConfigError, match=r"balancer\.rate=-1\.0 is refused: it must be > 0"):
            compose_run("balancer=sqrt", "balancer.rate=-1")


def test_its_value_by_hand(kind: str) -> None:
    """Loads (6, 1, 1, 0) of mean 2: e = (-2, .5, .5, 1). Mean probabilities (.75, .25): .1 (.5625 + .0625)."""
    run = balancers.run_with(kind)
    balancer = run.balancer.build(run, 1, 4)
    balancer.update(torch.tensor([[6, 1, 1, 0]]))
    if kind == "sqrt":
        expected = 1e-3 * torch.tensor([-(2**0.5), 0.5**0.5, 0.5**0.5, 1.0])
        torch.testing.assert_close(balancer.state_dict()["bias_LE"][0], expected)
    else:
        record = balancers.record_of_probs([[1.0, 0.0], [0.5, 0.5]])
        assert balancer.loss([record]).item() == pytest.approx(0.0625)  # type: ignore[union-attr]


# What is wrong with the example, the edit that makes it so, and the check that must notice.
BROKEN: dict[str, tuple[str, str, Callable[[RunConfig], None]]] = {
    "the wrong sign": ("self.bias_LE += ", "self.bias_LE -= ", balancers.full_collapse_is_countered),
    "no step": ("self.config.rate *", "0 *", balancers.full_collapse_is_countered),
    "a drift": ("error_LE = 1 -", "error_LE = torch.arange(4) -", balancers.perfect_balance_is_left_alone),
    "state that is not saved": (
        'self.register_buffer("bias_LE", torch.zeros(num_layers, num_experts))',
        "self.bias_LE = torch.zeros(num_layers, num_experts)",
        balancers.state_dict_is_all_of_its_state,
    ),
    "a ranking that moves state": (
        "return scores_TE + self.bias_LE[layer]",
        "self.bias_LE += 1; return scores_TE + self.bias_LE[layer]",
        balancers.only_training_steps_move_state,
    ),
    "a ranking that changes the scores": (
        "return scores_TE + self.bias_LE[layer]",
        "scores_TE += self.bias_LE[layer]; return scores_TE",
        balancers.weights_do_not_depend_on_its_state,
    ),
    "a look at the whole sequence": (
        "return scores_TE + self.bias_LE[layer]",
        "return scores_TE - scores_TE.mean(0)",
        balancers.no_position_sees_a_later_one,
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_contract_notices(fault: str, add: Callable[[str, str, str], str]) -> None:
    source, yaml = NEW["sqrt"]
    right, wrong, check = BROKEN[fault]
    assert source.count(right) == 1
    add("sqrt", source.replace(right, wrong), yaml)
    with pytest.raises((AssertionError, RuntimeError)):
        check(balancers.run_with("sqrt", "router=softmax_topk"))


def test_the_contract_notices_a_loss_without_its_gradient(add: Callable[[str, str, str], str]) -> None:
    source, yaml = NEW["squared"]
    add(
        "squared", source.replace("r.probs_TE.mean(0)", "(r.probs_TE / r.probs_TE.detach() + r.probs_TE).mean(0)"), yaml
    )
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        balancers.loss_has_the_gradient_of_finite_differences(balancers.run_with("squared"))
