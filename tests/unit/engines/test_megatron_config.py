"""engine=megatron: what is refused and how, what its settings become, and that other runs keep their ids."""

from __future__ import annotations

from contextlib import nullcontext
from unittest.mock import create_autospec

import pytest
import torch
from helpers import compose_run
from megatron_helpers import both, needs_megatron

from moe_sweeps.engines.megatron import shim
from moe_sweeps.engines.megatron.settings import balancing_settings, transformer_settings
from moe_sweeps.engines.megatron.weights import megatron_weights
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.identity import canonical_form, run_id
from moe_sweeps.model.compiling import compiling

REFUSED = [
    (["balancer=lossfree"], "balancer", "engine=native, which does it"),
    (["router=softmax_topk", "balancer=aux_lossfree"], "balancer", "engine=native"),
    (["balancer=quantile"], "balancer", "engine=native"),
    (["balancer=expert_choice"], "balancer", "engine=native"),
    (["router=sigmoid", "balancer=lossfree", "balancer.bias_on=logits"], "balancer.bias_on", "engine=native"),
    (["aux.scope=global"], "aux.scope", "engine=native"),
    (["router.temperature=2"], "router.temperature", "engine=native"),
    (["router.input_dropout=0.1"], "router.input_dropout", "engine=native"),
    (["router.noise=fixed"], "router.noise", "engine=native"),
    (["router.noise=learned"], "router.noise", "engine=native"),
    (["experts.top_k=1"], "experts.top_k", "router=softmax_topk"),
    (["experts.top_k=1", "router=sigmoid"], "experts.top_k", "router=softmax_topk"),
    (["engine.parallel=fsdp"], "engine.parallel", "engine.parallel=ddp"),
    (["engine.compile=true"], "engine.compile", "engine=native"),
    (["trainer.precision=mixed", "engine.device=cpu"], "trainer.precision", "engine=native"),
    (["engine.tensor_parallel=2"], "engine.tensor_parallel", "engine.expert_parallel"),
    (["engine.expert_parallel=3"], "engine.expert_parallel", "divisor"),
    (["experts=dense", "engine.expert_parallel=2"], "engine.expert_parallel", "divisor"),
    (["engine.expert_backend=grouped", "engine.device=cpu"], "engine.expert_backend", "engine.expert_backend=auto"),
]


@needs_megatron
@pytest.mark.parametrize(("line", "field", "fix"), REFUSED, ids=[" ".join(line) for line, _, _ in REFUSED])
def test_what_megatron_does_not_do_is_refused_by_its_field(line: list[str], field: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run("engine=megatron", *line)
    assert caught.value.field == field
    assert fix in caught.value.fix
    native = [word for word in line if not word.startswith("engine.")]
    compose_run(*native)  # the native engine does it


def test_without_the_package_the_refusal_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "PACKAGE", "no-such-package")
    monkeypatch.setattr(shim, "installed_version", lambda package="no-such-package": None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[megatron\]'"):
        compose_run("engine=megatron")
    compose_run("engine=native")


def test_the_shim_refuses_versions_that_it_was_never_tried_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "installed_version", lambda package=shim.PACKAGE: "0.99.0")
    with pytest.raises(ConfigError, match=r"0\.99\.0 is installed"):
        compose_run("engine=megatron", "engine.device=cpu")
    assert shim.problem(on_cpu=False) is None


@needs_megatron
def test_where_cuda_is_present_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    shim.prepare()  # imported by now, as on a CPU
    seen: list[str] = []

    def note(what: str) -> None:
        seen.append(what)

    def uncompiled(wanted: bool) -> nullcontext[None]:
        note(f"uncompiled {wanted}")
        return nullcontext()

    monkeypatch.setattr(shim, "_patch", lambda: note("replaced"))
    monkeypatch.setattr(shim, "_uncompiled", uncompiled)
    monkeypatch.setattr(shim, "problem", lambda on_cpu: note(f"refuses by version {on_cpu}"))
    monkeypatch.setattr(shim, "is_needed", lambda: False)
    shim.prepare()
    assert seen == ["refuses by version False", "uncompiled False"]
    monkeypatch.setattr(shim, "is_needed", lambda: True)
    shim.prepare()
    assert seen[2:] == ["refuses by version True", "uncompiled True", "replaced"]


@needs_megatron
def test_a_long_run_on_a_gpu_is_not_compiled_from_outside() -> None:
    gpu = torch.device("cuda")
    assert compiling(compose_run("scale=talk"), 50_304, gpu).on
    assert not compiling(compose_run("scale=talk", "engine=megatron"), 50_304, gpu).on


@needs_megatron
def test_the_engine_is_part_of_identity_and_native_is_its_neutral_value() -> None:
    native, megatron = compose_run("scale=smoke"), compose_run("scale=smoke", "engine=megatron")
    assert "engine" not in canonical_form(native)
    assert canonical_form(megatron)["engine"] == {"kind": "megatron"}
    assert run_id(native) != run_id(megatron)
    elsewhere = compose_run("scale=smoke", "engine=megatron", "engine.device=cpu", "engine.expert_parallel=2")
    assert run_id(elsewhere) == run_id(megatron)


@needs_megatron
@pytest.mark.parametrize(
    ("normalization", "expected"), [("megatron", 0.6), ("switch", 0.6 / 2), ("talk", 0.6 / 2 * 2 / 16)]
)
def test_coefficients_keep_their_meaning(normalization: str, expected: float) -> None:
    """Megatron sums both losses over the 2 layers; `talk` lacks the factor E/k = 16/2."""
    line = ["experts=e16", "aux.coef=0.6", f"aux.normalization={normalization}", "router.z_loss=0.02"]
    found = balancing_settings(compose_run("engine=megatron", *line))
    assert found["moe_aux_loss_coeff"] == pytest.approx(expected)
    assert found["moe_router_load_balancing_type"] == "aux_loss"
    assert found["moe_z_loss_coeff"] == pytest.approx(0.02 / 2)
    assert "moe_router_enable_expert_bias" not in found


@needs_megatron
def test_sizes_and_gates_are_passed_on() -> None:
    line = ["scale=talk", "router=sigmoid", "router.weight_scale=2.5", "balancer=lossfree", "balancer.rate=0.01"]
    found = transformer_settings(compose_run("engine=megatron", *line), fused=True, expert_parallel=4)
    expected = {
        "num_layers": 24,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_moe_experts": 8,
        "moe_ffn_hidden_size": 2048,
        "moe_router_topk": 2,
        "moe_router_score_function": "sigmoid",
        "moe_router_topk_scaling_factor": 2.5,
        "moe_router_enable_expert_bias": True,
        "moe_router_load_balancing_type": "none",
        "moe_grouped_gemm": True,
        "expert_model_parallel_size": 4,
        "qk_layernorm": False,
    }
    assert {name: found[name] for name in expected} == expected


@needs_megatron
@pytest.mark.parametrize("on", [False, True])
def test_norms_of_queries_and_keys_are_passed_on(on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shim.prepare()
    from moe_sweeps.engines.megatron import skeleton

    run = compose_run("engine=megatron", f"model.qk_norm={on}")
    assert transformer_settings(run, fused=True, expert_parallel=1)["qk_layernorm"] is on
    attention = skeleton._layer_spec(8, False, on).submodules.self_attention.submodules
    expected = "WrappedTorchNorm" if on else "IdentityOp"
    assert (attention.q_layernorm.__name__, attention.k_layernorm.__name__) == (expected, expected)
    # Layers of Transformer Engine cannot be built where it is not installed: see what its function is asked for.
    name = "get_gpt_layer_with_transformer_engine_spec"
    spec = create_autospec(getattr(skeleton, name))
    monkeypatch.setattr(skeleton, name, spec)
    skeleton._layer_spec(8, True, on)
    spec.assert_called_once_with(num_experts=8, moe_grouped_gemm=True, qk_layernorm=on)


@needs_megatron
@pytest.mark.parametrize("fused", [False, True])
def test_gains_of_queries_and_keys_have_megatron_s_names(fused: bool) -> None:
    _, model, _ = both("scale=smoke", "model.qk_norm=true")["native"]
    found = megatron_weights(model, fused=fused, local=slice(0, 8), dtype=torch.float32)
    for layer in (0, 1):
        place, ours = f"decoder.layers.{layer}.self_attention", f"layers.{layer}.attention.qk_norm"
        assert found[f"{place}.q_layernorm.weight"] is model.get_parameter(f"{ours}.query_norm.weight")
        assert found[f"{place}.k_layernorm.weight"] is model.get_parameter(f"{ours}.key_norm.weight")
