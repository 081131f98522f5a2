"""Every parameter has one role; between learning-rate arms only the learning rate differs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers import make_run

from moe_sweeps.config.groups import DenseFFNConfig
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.model.transformer import build_model
from moe_sweeps.optim.build import AdamWConfig
from moe_sweeps.optim.groups import expected_roles, parameter_groups, role_of
from moe_sweeps.optim.lr_split import (
    BatchFractionConfig,
    Control,
    IdealNormalizedConfig,
    LrSplitConfig,
    MatchedConfig,
    Role,
    RoleMultipliers,
    StaticConfig,
)

ARMS: list[Any] = [
    *(cls() for cls in REGISTRY["lr_split"].values()),
    *(cls(expert=0.5, router=0.1) for cls in REGISTRY["lr_split"].values() if issubclass(cls, RoleMultipliers)),
    StaticConfig(router=0.1, embedding=2.0, norm=3.0, dense=4.0),
    BatchFractionConfig(sqrt=True, ema=0.9, scale_decay=False),
    IdealNormalizedConfig(control=Control.shuffled, max_ratio=2.0),
]


def groups(lr_split: LrSplitConfig, **overrides: Any) -> list[Any]:
    run = make_run(**overrides)
    return parameter_groups(build_model(run, 512), lr_split, expected_roles(run.experts.is_moe))


@pytest.mark.parametrize("overrides", [{}, {"experts": DenseFFNConfig()}], ids=["moe", "dense"])
def test_the_roles_partition_the_parameters(overrides: dict[str, Any]) -> None:
    model = build_model(make_run(**overrides), 512)
    expected = expected_roles("experts" not in overrides)
    found = parameter_groups(model, MatchedConfig(), expected)
    names = [name for group in found for name in group.names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert {group.role for group in found} == expected


def test_roles_by_hand() -> None:
    assert role_of("layers.3.moe.experts.up_EHD") is Role.expert
    assert role_of("layers.3.moe.router.weight_ED") is Role.router
    assert role_of("layers.3.attention.qkv_QD") is Role.dense
    assert role_of("layers.3.ffn.up_HD") is Role.dense
    assert role_of("layers.3.attention_norm.weight") is Role.norm
    assert role_of("layers.3.ffn_norm.weight") is Role.norm
    assert role_of("final_norm.weight") is Role.norm
    assert role_of("embedding.weight") is Role.embedding


def test_a_parameter_without_a_role_is_an_error() -> None:
    with pytest.raises(MoeSweepsError, match="must have exactly one role, and matches none"):
        role_of("mystery")
    with pytest.raises(MoeSweepsError, match="matches expert, router"):
        role_of("layers.0.experts.router.x")


def test_an_empty_or_unexpected_role_is_an_error() -> None:
    dense = build_model(make_run(experts=DenseFFNConfig()), 512)
    with pytest.raises(MoeSweepsError, match="the role expert has no parameters"):
        parameter_groups(dense, MatchedConfig(), expected_roles(is_moe=True))
    with pytest.raises(MoeSweepsError, match="the role expert is not expected"):
        parameter_groups(build_model(make_run(), 512), MatchedConfig(), expected_roles(is_moe=False))


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ARMS, 2)))
def test_only_the_learning_rate_differs_between_arms(one: LrSplitConfig, other: LrSplitConfig) -> None:
    optimizers = [AdamWConfig().build(groups(arm)) for arm in (one, other)]
    for first, second in zip(*(o.param_groups for o in optimizers), strict=True):
        assert first.keys() == second.keys()
        shared = first.keys() - {"params", "lr", "peak_lr"}
        assert {k: first[k] for k in shared} == {k: second[k] for k in shared}
        for p, q in zip(first["params"], second["params"], strict=True):
            assert torch.equal(p, q)


def test_learning_rates_and_decay_by_role() -> None:
    optimizer = AdamWConfig(base_lr=0.01, weight_decay=0.1).build(groups(StaticConfig(expert=0.5, router=0.1)))
    found = {g["role"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert found == {
        "expert": (0.005, 0.1),
        "router": (0.001, 0.1),
        "dense": (0.01, 0.1),
        "embedding": (0.01, 0.0),
        "norm": (0.01, 0.0),
    }


def test_adamw_against_the_formula_in_float64() -> None:
    """Two steps by hand: m, v with bias correction, decoupled decay."""
    torch.manual_seed(0)
    config = AdamWConfig(base_lr=0.1, weight_decay=0.2)
    model = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(3, 2), "ffn": torch.nn.Linear(2, 2, bias=False)})
    wrapped = torch.nn.Module()
    wrapped.add_module("embedding", model["embedding"])
    wrapped.add_module("layers", torch.nn.ModuleDict({"ffn": model["ffn"]}))
    wrapped.add_module("final_norm", torch.nn.LayerNorm(2, bias=False))
    optimizer = config.build(parameter_groups(wrapped, MatchedConfig(), expected_roles(is_moe=False)))
    weight = model["ffn"].weight
    assert isinstance(weight, torch.nn.Parameter)
    expected, m, v = weight.detach().double().clone(), torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
    for step in (1, 2):
        gradient = torch.randn(2, 2)
        weight.grad = gradient.clone()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient.double() ** 2
        update = m / (1 - 0.9**step) / ((v / (1 - 0.95**step)).sqrt() + 1e-8)
        expected = expected - 0.1 * 0.2 * expected - 0.1 * update
        torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-6, atol=1e-7)
