"""Load-based splits as settings: which are the same run, and which are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
from helpers import compose_run, make_run

from moe_sweeps.balancing import AuxBalancerConfig
from moe_sweeps.config.groups import DenseFFNConfig
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.experiment.identity import canonical_form, run_id, unread_knobs
from moe_sweeps.experiment.schema import problems
from moe_sweeps.optim.build import AdamWConfig
from moe_sweeps.optim.lr_split import BatchFractionConfig, Control, IdealNormalizedConfig

LOAD_BASED = ["batch_fraction", "ideal_normalized"]


def same(line: list[str], other: list[str]) -> bool:
    return run_id(compose_run(*line)) == run_id(compose_run(*other))


def test_each_arm_of_the_talk_is_one_word() -> None:
    lines = [[f"lr_split={kind}"] for kind in ("matched", *LOAD_BASED)]
    lines += [[f"lr_split={kind}", "lr_split.sqrt=true"] for kind in LOAD_BASED]
    lines += [[f"lr_split={kind}", "lr_split.control=shuffled"] for kind in LOAD_BASED]
    lines += [["lr_split=batch_fraction", "lr_split.control=uniform"]]
    assert len({run_id(compose_run(*line)) for line in lines}) == len(lines)


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("lr_split=ideal_normalized lr_split.control=uniform", ""),  # the mean is 1
        ("lr_split=ideal_normalized lr_split.control=uniform lr_split.ema=0.9 lr_split.scale_decay=false", ""),
        (
            "lr_split=ideal_normalized lr_split.control=uniform lr_split.expert=0.5",
            "lr_split=static lr_split.expert=0.5",
        ),
        ("lr_split=batch_fraction lr_split.control=uniform", "lr_split=static lr_split.expert=0.25"),  # k/E
        (
            "lr_split=batch_fraction lr_split.control=uniform lr_split.expert=2 lr_split.router=0.1",
            "lr_split=static lr_split.expert=0.5 lr_split.router=0.1",
        ),
        ("lr_split=batch_fraction lr_split.control=uniform lr_split.expert=4", ""),
        ("lr_split=batch_fraction lr_split.max_ratio=1", "lr_split=batch_fraction"),  # no share exceeds 1
        ("lr_split=ideal_normalized lr_split.max_ratio=4.5", "lr_split=ideal_normalized"),  # nor E/k
        (
            "lr_split=ideal_normalized lr_split.sqrt=true lr_split.max_ratio=2",
            "lr_split=ideal_normalized lr_split.sqrt=true",
        ),
        ("lr_split=batch_fraction lr_split.expert=0", "lr_split=static lr_split.expert=0"),
        ("lr_split=batch_fraction lr_split.expert=0 lr_split.sqrt=true", "lr_split=static lr_split.expert=0"),
    ],
)
def test_settings_of_one_meaning_are_one_run(line: str, plain: str) -> None:
    assert same(line.split(), plain.split())


@pytest.mark.parametrize(
    ("line", "other"),
    [
        # The mean of square roots, or of clipped ratios, does depend on the loads.
        ("lr_split=ideal_normalized lr_split.control=uniform lr_split.sqrt=true", ""),
        ("lr_split=ideal_normalized lr_split.control=uniform lr_split.max_ratio=2", ""),
        # With decay at the role's rate it is not a static multiplier, which scales decay, too.
        (
            "lr_split=batch_fraction lr_split.control=uniform lr_split.scale_decay=false",
            "lr_split=static lr_split.expert=0.25",
        ),
        ("lr_split=ideal_normalized lr_split.max_ratio=3.9", "lr_split=ideal_normalized"),
        ("lr_split=ideal_normalized lr_split.scale_decay=false", "lr_split=ideal_normalized"),
    ],
)
def test_settings_of_different_meaning_are_not(line: str, other: str) -> None:
    assert not same(line.split(), other.split())


@pytest.mark.parametrize("kind", LOAD_BASED)
def test_where_experts_choose_every_load_is_the_balanced_one(kind: str) -> None:
    chosen = ["balancer=expert_choice"]
    balanced = {"batch_fraction": 0.25, "ideal_normalized": 1.0}[kind]
    static = [*chosen, "lr_split=static", f"lr_split.expert={balanced}"]
    for line in ([], ["lr_split.control=shuffled"], ["lr_split.ema=0.5"]):
        assert same([*chosen, f"lr_split={kind}", *line], static)
    root = [*chosen, "lr_split=static", f"lr_split.expert={balanced**0.5}"]
    assert same([*chosen, f"lr_split={kind}", "lr_split.sqrt=true"], root)


def test_decay_that_there_is_none_of_is_not_scaled() -> None:
    line = ["optimizer.weight_decay=0", "lr_split=ideal_normalized"]
    assert same(line, [*line, "lr_split.scale_decay=false"])
    unread = unread_knobs(compose_run(*line))
    assert unread["lr_split.scale_decay"] == ("optimizer.weight_decay=0", "any weight decay above 0")


@pytest.mark.parametrize("kind", LOAD_BASED)
def test_a_dense_model_has_no_loads_to_follow(kind: str) -> None:
    dense = ["experts=dense"]
    assert same([*dense, f"lr_split={kind}", "lr_split.sqrt=true", "lr_split.expert=0.5"], dense)
    static = [*dense, "lr_split=static", "lr_split.dense=0.5"]
    assert same([*dense, f"lr_split={kind}", "lr_split.dense=0.5"], static)
    assert "lr_split.control" in unread_knobs(compose_run(*dense, f"lr_split={kind}"))


def test_a_load_based_split_is_canonical_with_its_kind() -> None:
    form = canonical_form(compose_run("lr_split=batch_fraction"))["lr_split"]
    assert form["kind"] == "batch_fraction"
    assert form["control"] == "none"


@dataclass(slots=True)
class SquaredConfig(AdamWConfig):
    """Not linear in its learning rate."""

    LINEAR_IN_LR: ClassVar[bool] = False
    kind: str = "squared"


@pytest.fixture
def squared() -> Iterator[SquaredConfig]:
    REGISTRY["optimizer"]["squared"] = SquaredConfig
    yield SquaredConfig()
    del REGISTRY["optimizer"]["squared"]


def test_an_optimizer_that_is_not_linear_is_refused_where_steps_are_scaled(squared: SquaredConfig) -> None:
    for split in (BatchFractionConfig(), IdealNormalizedConfig(control=Control.shuffled)):
        (error,) = problems(make_run(optimizer=squared, lr_split=split, balancer=AuxBalancerConfig()))
        assert (error.field, error.value) == ("lr_split", split.kind)
        assert "that of optimizer=squared is not" in error.rule
        assert "optimizer=adamw" in error.fix
        assert "squared" not in error.fix
    allowed = IdealNormalizedConfig(control=Control.uniform), BatchFractionConfig(expert=0.0)
    for split in allowed:  # nothing is scaled there
        assert not problems(make_run(optimizer=squared, lr_split=split, balancer=AuxBalancerConfig()))
    dense = make_run(optimizer=squared, lr_split=BatchFractionConfig(), experts=DenseFFNConfig())
    assert not problems(dense)
