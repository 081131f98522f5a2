"""Sizes by formula: the talk's published numbers, and built models."""

from __future__ import annotations

import pytest
from helpers import make_run

from moe_sweeps.config.groups import DenseFFNConfig, ExpertsConfig, ModelConfig, MoEExpertsConfig, TrainerConfig
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import build_model


def test_the_talks_model() -> None:
    model, trainer = ModelConfig(layers=24, width=768, heads=12), TrainerConfig(seq_len=512)
    e8 = sizes(make_run(model=model, trainer=trainer, experts=MoEExpertsConfig(ffn_hidden=2048)), 50304)
    assert f"{e8.params_total / 1e6:.1f}" == "1001.4"
    assert f"{e8.params_active / 1e6:.1f}" == "321.9"
    assert f"{e8.flops_per_token / 1e9:.3f}" == "2.045"
    e16 = sizes(
        make_run(model=model, trainer=trainer, experts=MoEExpertsConfig(ffn_hidden=2048, num_experts=16)), 50304
    )
    assert f"{e16.params_total / 1e6:.1f}" == "1907.5"


@pytest.mark.parametrize(
    "experts",
    [
        MoEExpertsConfig(ffn_hidden=24),
        MoEExpertsConfig(ffn_hidden=40, num_experts=3, top_k=3),
        MoEExpertsConfig(ffn_hidden=8, num_experts=32, top_k=1),
        DenseFFNConfig(ffn_hidden=24),
        DenseFFNConfig(ffn_hidden=10, active_experts=5),
    ],
    ids=str,
)
@pytest.mark.parametrize(("layers", "width", "vocab"), [(1, 16, 50), (3, 64, 512)])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_formula_equals_the_built_model(
    experts: ExpertsConfig, layers: int, width: int, vocab: int, qk_norm: bool
) -> None:
    run = make_run(model=ModelConfig(layers=layers, width=width, qk_norm=qk_norm), experts=experts)
    found = sizes(run, vocab)
    active = matmul = total = 0.0
    for name, param in build_model(run, vocab).named_parameters():
        share = 1.0
        if isinstance(experts, MoEExpertsConfig) and ".experts." in name:
            share = experts.top_k / experts.num_experts
        total += param.numel()
        active += param.numel() * share
        matmul += param.numel() * share if param.dim() > 1 else 0
    assert (found.params_total, found.params_active, found.matmul_params_active) == (total, active, matmul)
    assert found.flops_per_token == 6 * matmul + 12 * layers * 128 * width


def test_the_dense_baseline_has_the_active_parameters_of_the_mixture() -> None:
    moe, dense = sizes(make_run(), 2048), sizes(make_run(experts=DenseFFNConfig()), 2048)
    router = 4 * 8 * 64
    assert moe.params_active - dense.params_active == router
    assert dense.params_total == dense.params_active
