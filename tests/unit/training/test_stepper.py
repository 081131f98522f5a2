"""Steps of experts with learning rates of their own, against optimizers that have them as groups.

Axes: L layers, E experts.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers import make_run
from torch import Tensor, nn

from moe_sweeps.config.groups import ModelConfig, MoEExpertsConfig
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.transformer import Transformer, build_model
from moe_sweeps.optim.build import AdamWConfig, state_bytes
from moe_sweeps.optim.lr_split import (
    BatchFractionConfig,
    Control,
    IdealNormalizedConfig,
    MatchedConfig,
    StaticConfig,
)
from moe_sweeps.optim.lr_split.ratios import load_ratio_LE
from moe_sweeps.optim.schedule import ConstantConfig, OneCycleCosineConfig
from moe_sweeps.training.stepper import Stepper

L, E, K = 2, 4, 2
BALANCED = torch.full((L, E), 16)


def run_with(lr_split: Any, **overrides: Any) -> RunConfig:
    model = ModelConfig(layers=L, width=8, heads=2)
    experts = MoEExpertsConfig(num_experts=E, top_k=K, ffn_hidden=8)
    return make_run(model=model, experts=experts, lr_split=lr_split, **overrides)


def stepper(lr_split: Any, **overrides: Any) -> tuple[Stepper, Transformer]:
    run = run_with(lr_split, **overrides)
    model = build_model(run, 32)
    return Stepper(run, model), model


def draw_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator) * 10 ** torch.rand((), generator=generator)


def draw_load(step: int) -> Tensor:
    return torch.randint(0, 40, (L, E), generator=torch.Generator().manual_seed(1000 + step))


def train(lr_split: Any, steps: int, load_LE: Tensor | None = None, **overrides: Any) -> Transformer:
    ours, model = stepper(lr_split, **overrides)
    for step in range(steps):
        draw_gradients(model, step)
        ours.step(step, draw_load(step) if load_LE is None else load_LE)
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name


# --- against true groups ----------------------------------------------------------------------------------------------


def separate(model: Transformer) -> tuple[dict[tuple[int, int], list[nn.Parameter]], dict[str, list[nn.Parameter]]]:
    """Every expert of every layer as parameters of its own: (layer, expert) -> its slices, in the order of stacks."""
    found: dict[tuple[int, int], list[nn.Parameter]] = {}
    stacks: dict[str, list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if ".experts." in name:
            stacks[name] = [nn.Parameter(slice_.detach().double().clone()) for slice_ in p]
            for e, slice_ in enumerate(stacks[name]):
                found.setdefault((int(name.split(".")[1]), e), []).append(slice_)
    return found, stacks


@pytest.mark.parametrize("scale_decay", [True, False])
def test_scaled_steps_are_true_learning_rates_of_experts(scale_decay: bool) -> None:
    """50 steps with changing ratios against torch's AdamW in float64 with a group for each expert, decay included."""
    config = AdamWConfig(base_lr=0.01, weight_decay=0.3)
    split = IdealNormalizedConfig(expert=0.7, scale_decay=scale_decay)
    ours, model = stepper(split, optimizer=config, schedule=OneCycleCosineConfig(warmup_steps=10))
    experts, stacks = separate(model)
    groups: list[dict[str, Any]] = [{"params": params, "at": at} for at, params in experts.items()]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    for step in range(50):
        draw_gradients(model, step)
        load_LE = draw_load(step)
        ratio_LE = load_ratio_LE(load_LE, E)
        lr = 0.01 * 0.7 * ours.run.schedule.factor(step, ours.run.trainer.steps)
        for group in optimizer.param_groups:
            ratio = ratio_LE[group["at"]].item()
            group["lr"] = ratio * lr
            # Torch's decay is lr * weight_decay: it follows the expert's rate, or is made to keep to the role's.
            group["weight_decay"] = 0.3 if scale_decay else (0.3 / ratio if ratio else 0.0)
            if not ratio and not scale_decay:
                for p in group["params"]:
                    p.data.mul_(1 - 0.3 * lr)
        for name, p in model.named_parameters():
            for e, slice_ in enumerate(stacks.get(name, [])):
                assert p.grad is not None
                slice_.grad = p.grad[e].double()
        ours.step(step, load_LE)
        optimizer.step()
    for name, slices in stacks.items():
        found = model.get_parameter(name).detach().double()
        torch.testing.assert_close(found, torch.stack([s.detach() for s in slices]), rtol=2e-5, atol=2e-7, msg=name)


def test_whether_decay_is_scaled_matters() -> None:
    one, other = (train(IdealNormalizedConfig(scale_decay=s), 3).state_dict() for s in (True, False))
    assert not torch.equal(one["layers.0.moe.experts.up_EHD"], other["layers.0.moe.experts.up_EHD"])
    assert torch.equal(one["layers.0.moe.router.weight_ED"], other["layers.0.moe.router.weight_ED"])


@pytest.mark.parametrize("optimizer", list(REGISTRY["optimizer"].values()), ids=lambda cls: cls.__name__)
def test_every_linear_optimizer_is_scaled_alike(optimizer: Any) -> None:
    """An expert moves by its ratio of what it would have moved: zero stays, the others in proportion."""
    if not optimizer.LINEAR_IN_LR:
        pytest.skip("refused with load-based splits")
    load_LE = torch.tensor([[0, 32, 8, 24], [16, 16, 16, 16]])
    before = weights(build_model(run_with(MatchedConfig()), 32))
    splits = MatchedConfig(), IdealNormalizedConfig()
    full, scaled = (weights(train(split, 1, load_LE, optimizer=optimizer())) for split in splits)
    for name, old in before.items():
        layer = int(name.split(".")[1]) if ".experts." in name else None
        ratio = torch.ones(()) if layer is None else load_ratio_LE(load_LE, E)[layer].float().view(E, 1, 1)
        expected = old.double() + ratio.double() * (full[name] - old).double()
        torch.testing.assert_close(scaled[name].double(), expected, rtol=1e-6, atol=1e-8, msg=name)


# --- forced balance ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "split",
    [
        IdealNormalizedConfig(),
        IdealNormalizedConfig(sqrt=True, ema=0.9, scale_decay=False, max_ratio=2.0),
        IdealNormalizedConfig(control=Control.shuffled),
        IdealNormalizedConfig(control=Control.uniform, sqrt=True),
    ],
)
def test_ideal_normalized_under_balance_is_matched_to_the_last_bit(split: IdealNormalizedConfig) -> None:
    assert_equal(train(split, 30, BALANCED), train(MatchedConfig(), 30, BALANCED))


def test_batch_fraction_under_balance_is_a_static_multiplier() -> None:
    one, other = train(BatchFractionConfig(), 30, BALANCED), train(StaticConfig(expert=K / E), 30, BALANCED)
    for (name, p), q in zip(one.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(p, q[1], rtol=1e-5, atol=1e-6, msg=name)


def test_a_split_that_no_load_can_change_is_taken_as_what_it_is() -> None:
    assert_equal(train(IdealNormalizedConfig(control=Control.uniform), 5), train(MatchedConfig(), 5))
    assert_equal(train(BatchFractionConfig(control=Control.uniform), 5), train(StaticConfig(expert=K / E), 5))


# --- between arms -----------------------------------------------------------------------------------------------------

ARMS: list[Any] = [
    *(cls() for cls in REGISTRY["lr_split"].values()),
    StaticConfig(expert=0.5, norm=2.0),
    BatchFractionConfig(sqrt=True, ema=0.5, scale_decay=False),
    IdealNormalizedConfig(control=Control.shuffled, expert=0.3, router=0.1),
]


def members(ours: Stepper, model: nn.Module) -> list[list[str]]:
    """The names of each group's parameters."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in ours.optimizer.param_groups]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ARMS, 2)))
def test_in_training_groups_differ_in_their_learning_rate_alone(one: Any, other: Any) -> None:
    pair = [stepper(split) for split in (one, other)]
    for ours, model in pair:
        draw_gradients(model, 0)
        ours.step(0, draw_load(0))
    groups = [ours.optimizer.param_groups for ours, _ in pair]
    assert members(*pair[0]) == members(*pair[1])
    for first, second in zip(*groups, strict=True):
        assert first.keys() == second.keys()
        shared = first.keys() - {"params", "lr", "peak_lr"}
        assert {k: first[k] for k in shared} == {k: second[k] for k in shared}


# --- what was applied -------------------------------------------------------------------------------------------------


def test_the_rates_that_are_reported_are_those_that_were_applied() -> None:
    schedule = OneCycleCosineConfig(warmup_steps=5, router="constant")
    split = BatchFractionConfig(expert=0.5, router=0.1)
    ours, model = stepper(split, optimizer=AdamWConfig(base_lr=0.01), schedule=schedule)
    draw_gradients(model, 0)
    load_LE = torch.tensor([[0, 32, 8, 24], [16, 16, 16, 16]])
    rates = ours.step(2, load_LE)
    factor = schedule.factor(2, ours.run.trainer.steps)
    assert rates.base == pytest.approx(0.01 * factor)
    constant = ConstantConfig(warmup_steps=5).factor(2, ours.run.trainer.steps)
    by_role = {"expert": 0.005, "router": 0.001 * constant / factor, "dense": 0.01, "embedding": 0.01, "norm": 0.01}
    assert rates.by_role == pytest.approx({role: lr * factor for role, lr in by_role.items()})
    assert rates.expert_lr_LE is not None
    expected = [[0, 1, 0.25, 0.75], [0.5] * 4]
    torch.testing.assert_close(rates.expert_lr_LE, torch.tensor(expected).double() * 0.005 * factor)
    assert rates.permutation_LE is None


def test_a_static_split_reports_no_rates_of_single_experts() -> None:
    ours, model = stepper(StaticConfig(expert=0.5))
    draw_gradients(model, 0)
    assert ours.step(0, BALANCED).expert_lr_LE is None


def test_the_state_of_adamw_is_two_moments_and_a_counter_a_parameter() -> None:
    ours, model = stepper(MatchedConfig())
    assert state_bytes(ours.optimizer) == 0
    draw_gradients(model, 0)
    ours.step(0, BALANCED)
    params = list(model.parameters())
    assert state_bytes(ours.optimizer) == sum(2 * 4 * p.numel() for p in params) + 4 * len(params)


@pytest.mark.parametrize("split", [IdealNormalizedConfig(ema=0.9), BatchFractionConfig(control=Control.shuffled)])
def test_the_stepper_resumes_exactly(split: Any) -> None:
    expected = train(split, 8)
    first, model = stepper(split)
    for step in range(4):
        draw_gradients(model, step)
        first.step(step, draw_load(step))
    second, copy = stepper(split)
    copy.load_state_dict(model.state_dict())
    second.load_state_dict(first.state_dict())
    for step in range(4, 8):
        draw_gradients(copy, step)
        second.step(step, draw_load(step))
    assert_equal(copy, expected)
