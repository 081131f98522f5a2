"""QK-norm: against a slow float64 oracle, with and without compiled kernels, and absent unless it is asked for.

Axes: B sequences, S positions, N heads, C head size, D width, Q = 3D query, key and value rows.
"""

from __future__ import annotations

import math

import pytest
import torch
from helpers import compose_run, make_run, with_gains
from torch import Tensor
from torch.testing import assert_close

from moe_sweeps.config.groups import EngineConfig, KernelChoice, ModelConfig, MoEExpertsConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.identity import canonical_form, run_id
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.kernels import Kernels, KernelsUnavailable, load
from moe_sweeps.launch.probe import random_tokens
from moe_sweeps.model.transformer import Attention, Transformer, build_model, rotary_tables
from moe_sweeps.optim.groups import expected_roles, parameter_groups
from moe_sweeps.optim.lr_split import MatchedConfig, Role
from moe_sweeps.sweep.trace import trace

VOCAB = 61


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    try:
        return load()
    except KernelsUnavailable as error:
        pytest.skip(str(error))


def _run(choice: KernelChoice = KernelChoice.torch, **model: object) -> RunConfig:
    settings: dict[str, object] = {"layers": 2, "width": 32, "heads": 4, "init_std": 0.2, "qk_norm": True}
    return make_run(
        model=ModelConfig(**(settings | model)),  # type: ignore[arg-type]
        experts=MoEExpertsConfig(num_experts=4, top_k=2, ffn_hidden=24),
        engine=EngineConfig(kernels=choice),
    )


def _attention(model: Transformer, layer: int) -> Attention:
    found = model.get_submodule(f"layers.{layer}.attention")
    assert isinstance(found, Attention)
    return found


def _oracle(attention: Attention, x_SD: Tensor, config: ModelConfig) -> Tensor:
    """One sequence, one position and one head at a time, by the formulas."""
    size, norms = config.head_dim, attention.qk_norm
    assert norms is not None
    q_SD, k_SD, v_SD = (x_SD @ part_DD.T for part_DD in attention.qkv_QD.detach().chunk(3))

    def normed(x_C: Tensor, gain_C: Tensor) -> Tensor:
        return x_C / (x_C.square().mean() + config.norm_eps).sqrt() * gain_C

    def turned(x_C: Tensor, position: int) -> Tensor:
        found_C = torch.empty_like(x_C)
        for j in range(size // 2):
            angle = position * config.rope_theta ** (-2 * j / size)
            a, b = x_C[j], x_C[j + size // 2]
            found_C[j] = a * math.cos(angle) - b * math.sin(angle)
            found_C[j + size // 2] = a * math.sin(angle) + b * math.cos(angle)
        return found_C

    rows = []
    for s in range(len(x_SD)):
        heads = []
        for n in range(config.heads):
            part = slice(n * size, (n + 1) * size)
            q_C = turned(normed(q_SD[s, part], norms.query_norm.weight.detach()), s)
            keys = [turned(normed(k_SD[t, part], norms.key_norm.weight.detach()), t) for t in range(s + 1)]
            weights_S = torch.stack([q_C @ k_C / math.sqrt(size) for k_C in keys]).softmax(0)
            heads.append(weights_S @ v_SD[: s + 1, part])
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ attention.out_DD.detach().T


def test_attention_equals_the_formulas() -> None:
    run = _run(norm_eps=1e-3, rope_theta=500.0)
    attention = _attention(with_gains(build_model(run, VOCAB).double()), 0)
    x_BSD = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exponents = torch.arange(0, 8, 2, dtype=torch.float64) / 8
    angles_SC = torch.outer(torch.arange(7, dtype=torch.float64), 500.0**-exponents).repeat(1, 2)
    found_BSD = attention(x_BSD, (angles_SC.cos(), angles_SC.sin())).detach()
    expected_BSD = torch.stack([_oracle(attention, x_SD, run.model) for x_SD in x_BSD])
    assert_close(found_BSD, expected_BSD, rtol=1e-11, atol=1e-12)


def test_kernels_and_torch_agree(kernels: Kernels) -> None:
    with_, without = (
        with_gains(build_model(_run(choice), VOCAB)) for choice in (KernelChoice.auto, KernelChoice.torch)
    )
    assert with_.kernels is kernels
    tokens_BS = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(0))
    losses = [model(tokens_BS, tokens_BS.roll(-1)).loss for model in (with_, without)]
    assert_close(*losses, rtol=1e-6, atol=0)
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(with_.named_parameters(), without.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        assert float(theirs.grad.abs().max()) > 0, name
        assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5 * float(theirs.grad.abs().max()), msg=name)


def test_the_size_of_queries_and_keys_does_not_matter() -> None:
    model = build_model(_run(norm_eps=1e-12), VOCAB).double()
    tokens_BS = torch.arange(20).view(2, 10)
    before = model(tokens_BS).logits_BSV.detach()
    for layer in range(2):
        _attention(model, layer).qkv_QD.data[:64] *= 100
    assert_close(model(tokens_BS).logits_BSV.detach(), before, rtol=1e-6, atol=1e-8)


def test_autocast_keeps_its_type() -> None:
    model = build_model(_run(), VOCAB)
    rotary = rotary_tables(6, model.config, torch.zeros(1))
    with torch.autocast("cpu", torch.bfloat16):
        found_BSD = _attention(model, 0)(torch.zeros(1, 6, 32), rotary)
    assert found_BSD.dtype is torch.bfloat16
    assert found_BSD.isfinite().all()


def test_document_mask_sees_normed_queries() -> None:
    """The masked path, with a mask that hides nothing but the future, is the unmasked one."""
    attention = _attention(with_gains(build_model(_run(), VOCAB).double()), 1)
    x_BSD = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rotary = rotary_tables(9, _run().model, x_BSD)
    causal_BSS = torch.ones(2, 9, 9, dtype=torch.bool).tril()
    assert_close(attention(x_BSD, rotary, causal_BSS), attention(x_BSD, rotary), rtol=1e-12, atol=1e-12)


def test_gains_start_at_one_and_are_norms() -> None:
    run = _run()
    model = build_model(run, VOCAB)
    gains = {n: p for n, p in model.named_parameters() if "qk_norm" in n}
    assert {n.split(".", 2)[2] for n in gains} == {
        "attention.qk_norm.query_norm.weight",
        "attention.qk_norm.key_norm.weight",
    }
    assert all(torch.equal(p, torch.ones(8)) for p in gains.values())
    groups = {g.role: g for g in parameter_groups(model, MatchedConfig(), expected_roles(True))}
    assert gains.keys() <= set(groups[Role.norm].names)
    assert groups[Role.norm].as_torch(1.0, 0.1)["weight_decay"] == 0


@pytest.mark.parametrize(
    "line",
    [
        ["optimizer=muon"],
        ["optimizer=soap"],
        ["optimizer=shampoo"],
        ["experts=dense"],
        ["model.heads=1"],
        ["trainer.precision=bfloat16"],
        ["balancer=expert_choice"],
    ],
    ids=" ".join,
)
def test_every_kind_of_run_trains_with_it(line: list[str]) -> None:
    run = compose_run("scale=smoke", "model.qk_norm=true", *line)
    losses = trace(run, random_tokens(run), 3).channels["loss"]
    assert len(losses) == 3
    assert all(math.isfinite(x) for x in losses.values())


def test_without_it_the_model_and_the_id_are_as_before() -> None:
    plain = build_model(_run(qk_norm=False), VOCAB)
    normed = build_model(_run(), VOCAB)
    weights = dict(plain.named_parameters())
    assert not any("qk_norm" in name for name in weights)
    shared = {n: p for n, p in normed.named_parameters() if "qk_norm" not in n}
    assert shared.keys() == weights.keys()
    assert all(torch.equal(p, weights[n]) for n, p in shared.items())
    off, on = _run(qk_norm=False), _run()
    assert "qk_norm" not in canonical_form(off)["model"]
    assert canonical_form(on)["model"]["qk_norm"] is True
    assert run_id(off) != run_id(on)
    # The id of a run from before this knob existed.
    assert run_id(compose_run("scale=smoke_v1", "balancer=lossfree", "model.qk_norm=false")) == "bed0be19ef29"


@pytest.mark.parametrize("value", ["maybe", "2", "[true]"])
def test_what_is_no_bool_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="qk_norm"):
        compose_run(f"model.qk_norm={value}")
