"""What helps a router learn: each knob against its formula, in training alone, off by default.

Axes: T tokens, D width, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import compose_run, make_run
from torch import Tensor

from moe_sweeps.config.groups import ModelConfig, MoEExpertsConfig, RouterNoise
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.identity import run_id, unread_knobs
from moe_sweeps.model.router import Router, RouterInit, TopkSoftmaxConfig
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import build_model
from moe_sweeps.optim.groups import expected_roles, parameter_groups
from moe_sweeps.optim.lr_split import MatchedConfig, Role
from moe_sweeps.training.gradients import clip_router_gradients

T, D, E = 4000, 8, 4


@pytest.fixture(autouse=True)
def _same_draws() -> Iterator[None]:
    """Noise draws from torch's own generator, whose state is that of the tests before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(**knobs: Any) -> Router:
    router = Router(D, E, 2, TopkSoftmaxConfig(**knobs))
    router.init_weights(1.0, torch.Generator().manual_seed(0))
    return router


def inputs(seed: int = 1) -> Tensor:
    return torch.randn(T, D, generator=torch.Generator().manual_seed(seed))


ACTIVE = [
    {"temperature": 2.0},
    {"input_jitter": 0.1},
    {"input_dropout": 0.3},
    {"noise": RouterNoise.fixed},
    {"noise": RouterNoise.learned},
]
IN_TRAINING_ALONE = ACTIVE[1:]


def test_temperature_divides_the_logits() -> None:
    x_TD = inputs()
    torch.testing.assert_close(build(temperature=4.0)(x_TD).logits_TE, build()(x_TD).logits_TE / 4)


@pytest.mark.parametrize("knobs", IN_TRAINING_ALONE, ids=str)
def test_noise_is_for_training_alone(knobs: dict[str, Any]) -> None:
    x_TD, router = inputs(), build(**knobs)
    assert not torch.equal(router(x_TD).logits_TE, build()(x_TD).logits_TE)
    router.eval()
    assert torch.equal(router(x_TD).logits_TE, build()(x_TD).logits_TE)


def test_the_fixed_noise_has_its_standard_deviation() -> None:
    noise_TE = build(noise=RouterNoise.fixed, noise_std=0.3)(inputs()).logits_TE - build()(inputs()).logits_TE
    assert noise_TE.std().item() == pytest.approx(0.3, rel=0.03)
    assert abs(noise_TE.mean().item()) < 0.01


def test_the_learned_noise_begins_at_softplus_of_zero_and_learns() -> None:
    """Its scale is softplus(x W_noise) (arXiv 1701.06538): ln 2 while W_noise is 0; then larger where x W is larger."""
    router = build(noise=RouterNoise.learned)
    routing = router(inputs())
    noise_TE = (routing.logits_TE - build()(inputs()).logits_TE).detach()
    assert noise_TE.std().item() == pytest.approx(math.log(2), rel=0.03)
    routing.weights_TK[:, 0].sum().backward()
    assert router.noise_ED.grad is not None
    assert router.noise_ED.grad.abs().sum() > 0
    with torch.no_grad():
        router.noise_ED[0] = 5.0
    x_TD = torch.ones(T, D)
    spread_E = router(x_TD).logits_TE.std(dim=0)
    assert spread_E[0].item() == pytest.approx(40.0, rel=0.05)  # softplus(8 * 5)
    assert spread_E[1].item() == pytest.approx(math.log(2), rel=0.05)


def test_jitter_multiplies_the_input_by_one_give_or_take() -> None:
    """E[jitter] = 1 and its variance is j^2/3, so a logit of a constant input varies by j^2/3 * sum w^2."""
    router, x_TD = build(input_jitter=0.3), torch.ones(T, D)
    logits_TE = router(x_TD).logits_TE.detach()
    torch.testing.assert_close(logits_TE.mean(0), router.weight_ED.sum(1).detach(), atol=0.03, rtol=0)
    expected_E = (0.3**2 / 3 * router.weight_ED.detach().square().sum(1)).sqrt()
    torch.testing.assert_close(logits_TE.std(0), expected_E, rtol=0.05, atol=0)


def test_dropout_keeps_the_mean_and_drops_that_share() -> None:
    router = build(input_dropout=0.25)
    with torch.no_grad():
        router.weight_ED.copy_(torch.eye(E, D))  # logits are the first inputs
    logits_TE = router(torch.ones(T, D)).logits_TE
    assert (logits_TE == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert logits_TE.mean().item() == pytest.approx(1.0, abs=0.03)


def test_the_zero_init_ties_every_logit() -> None:
    routing = build(init=RouterInit.zero)(inputs())
    assert routing.logits_TE.abs().max() == 0
    torch.testing.assert_close(routing.probs_TE, torch.full((T, E), 1 / E))


@pytest.mark.parametrize("knobs", ACTIVE, ids=str)
def test_router_arithmetic_stays_float32(knobs: dict[str, Any]) -> None:
    assert build(**knobs)(inputs().bfloat16()).logits_TE.dtype is torch.float32


def test_a_learned_noise_scale_counts_as_parameters_of_the_router() -> None:
    run = make_run(router=TopkSoftmaxConfig(noise=RouterNoise.learned))
    model = build_model(run, 512)
    assert sizes(run, 512).params_total == sum(p.numel() for p in model.parameters())
    groups = {g.role: g for g in parameter_groups(model, MatchedConfig(), expected_roles(is_moe=True))}
    assert len(groups[Role.router].params) == 2 * run.model.layers


def test_own_weight_decay() -> None:
    model = build_model(make_run(), 512)
    for own, expected in ((None, 0.1), (0.0, 0.0), (0.5, 0.5)):
        groups = parameter_groups(model, MatchedConfig(), expected_roles(is_moe=True), {Role.router: own})
        decay = {g.role: g.as_torch(1.0, 0.1)["weight_decay"] for g in groups}
        assert decay[Role.router] == expected
        assert decay[Role.expert] == 0.1
        assert decay[Role.norm] == 0.0


def test_own_clipping_by_value_then_norm_leaves_the_rest() -> None:
    run = make_run(model=ModelConfig(layers=1, width=8, heads=1), experts=MoEExpertsConfig(num_experts=2, ffn_hidden=8))
    model = build_model(run, 64)
    for param in model.parameters():
        param.grad = torch.full_like(param, 3.0)
    router = model.get_parameter("layers.0.moe.router.weight_ED")
    clip_router_gradients(model, TopkSoftmaxConfig())
    assert router.grad is not None
    assert router.grad.unique().tolist() == [3.0]
    clip_router_gradients(model, TopkSoftmaxConfig(clip_value=2.0))
    assert router.grad.unique().tolist() == [2.0]
    clip_router_gradients(model, TopkSoftmaxConfig(clip_norm=4.0))  # 16 entries of 2: norm 8
    torch.testing.assert_close(router.grad, torch.full_like(router.grad, 1.0), rtol=1e-5, atol=0)
    assert all(p.grad.unique().tolist() == [3.0] for n, p in model.named_parameters() if "router" not in n)  # type: ignore[union-attr]


def test_knobs_at_their_defaults_keep_old_ids_and_count_otherwise() -> None:
    base = run_id(compose_run())
    for line in ("temperature=1.0", "input_jitter=0", "noise=none", "noise_std=0.7", "clip_norm=0"):
        assert run_id(compose_run(f"router.{line}")) == base, line
    for line in ("temperature=2", "input_jitter=0.1", "noise=fixed", "clip_norm=1", "clip_value=1", "weight_decay=0"):
        assert run_id(compose_run(f"router.{line}")) != base, line
    assert unread_knobs(compose_run())["router.noise_std"] == ("router.noise=none", "router.noise=fixed")
    assert "router.noise_std" not in unread_knobs(compose_run("router.noise=fixed"))


@pytest.mark.parametrize("line", ["temperature=0", "input_jitter=1", "input_dropout=-0.1", "noise_std=0", "noise=loud"])
def test_impossible_values_are_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=line.partition("=")[0]):
        compose_run(f"router.{line}")


def test_compat_talk_sets_documented_keys_and_nothing_else() -> None:
    lossfree, plain = compose_run("compat=talk", "balancer=lossfree"), compose_run("balancer=lossfree")
    assert lossfree.router.init is RouterInit.talk
    assert lossfree.router.z_loss == 0
    assert lossfree.balancer.bias_on.value == "logits"  # type: ignore[attr-defined]
    assert lossfree.balancer.update_every.value == "micro_step"  # type: ignore[attr-defined]
    assert plain.balancer.update_every.value == "step"  # type: ignore[attr-defined]
    assert plain.balancer.bias_on.value == "scores"  # type: ignore[attr-defined]
    beside_aux = compose_run("compat=talk")
    assert beside_aux.router.z_loss == 0.01
    assert beside_aux.aux.normalization.value == "talk"
    assert compose_run("compat=talk", "router.init=small").router.init is RouterInit.small
