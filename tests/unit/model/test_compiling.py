"""torch.compile: when, and that a traced model computes what the model computes. No C++ is compiled here."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import compose_run, make_run
from torch.testing import assert_close

from moe_sweeps.config.groups import EngineConfig, KernelChoice, ModelConfig, MoEExpertsConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.compiling import Compiling, compiling
from moe_sweeps.model.grouped import grouped_linear
from moe_sweeps.model.transformer import build_model

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def _with(run: RunConfig, compile: bool | None) -> RunConfig:
    return dataclasses.replace(run, engine=dataclasses.replace(run.engine, compile=compile))


def test_it_pays_for_long_runs_on_a_gpu_alone() -> None:
    talk, proxy = compose_run("scale=talk"), compose_run()
    assert compiling(talk, 50304, GPU).on
    assert not compiling(talk, 50304, CPU).on
    assert not compiling(proxy, 2048, GPU).on
    assert "1,200 steps: compiling does not pay" in compiling(proxy, 2048, GPU).why
    assert not compiling(talk, 50304, GPU, processes=2).on


@pytest.mark.parametrize("noise", ["router.input_jitter=0.1", "router.input_dropout=0.1", "router.noise=fixed"])
def test_random_numbers_stay_those_of_torch(noise: str) -> None:
    assert not compiling(compose_run("scale=talk", noise), 50304, GPU).on


@pytest.mark.parametrize("wanted", [True, False])
def test_what_was_asked_for_is_done(wanted: bool) -> None:
    run = _with(compose_run(), wanted)
    assert compiling(run, 2048, CPU) == Compiling(wanted, f"engine.compile={str(wanted).lower()}")


def test_a_run_goes_on_as_it_began() -> None:
    Compiling(True, "").load_state_dict(True)
    with pytest.raises(ConfigError, match=r"started compiled, and here it would resume not compiled \(on CPU\)"):
        Compiling(False, "on CPU").load_state_dict(True)


# torch's own tracing of autograd functions makes an instance of one, and warns of it.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_the_whole_model_is_one_graph_that_gives_the_same_loss_and_gradients() -> None:
    run = make_run(
        model=ModelConfig(layers=1, width=16, heads=2, init_std=0.2),
        experts=MoEExpertsConfig(num_experts=4, top_k=2, ffn_hidden=16),
        engine=EngineConfig(kernels=KernelChoice.torch),
    )
    model = build_model(run, 96)
    tokens_BS = torch.randint(96, (2, 16), generator=torch.Generator().manual_seed(0))
    traced = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    found = []
    for call in (model, traced):
        loss = call(tokens_BS, tokens_BS.roll(-1)).loss
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.detach().abs().max()))


def test_the_operator_equals_a_loop_and_passes_torchs_own_checks() -> None:
    x_PI = torch.randn(10, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight_EOI = torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    ends_E = torch.tensor([4, 4, 10], dtype=torch.int32)
    wanted = torch.cat([x_PI[:4] @ weight_EOI[0].T, x_PI[4:] @ weight_EOI[2].T])
    found = grouped_linear(x_PI, weight_EOI, ends_E)
    assert_close(found, wanted)
    direction = torch.randn_like(wanted)
    assert_close(
        torch.autograd.grad((found * direction).sum(), [x_PI, weight_EOI]),
        torch.autograd.grad((wanted * direction).sum(), [x_PI, weight_EOI]),
    )
    torch.library.opcheck(grouped_linear, (x_PI, weight_EOI, ends_E), test_utils=("test_schema", "test_faketensor"))
