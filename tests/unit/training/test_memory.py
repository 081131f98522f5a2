"""What a run needs in memory, beside what real optimizers keep and numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from helpers import compose_run
from megatron_helpers import needs_megatron

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import Transformer
from moe_sweeps.optim.build import state_bytes
from moe_sweeps.training.memory import PROCESS, run_memory
from moe_sweeps.training.stepper import Stepper

SMALL = ("scale=smoke", "data.vocab_size=512")


def stepped(run: RunConfig) -> torch.optim.Optimizer:
    """The optimizer of `run` after a step of its model."""
    model = Transformer(run, run.data.vocab_size)
    model.init_weights(0)
    stepper = Stepper(run, model)
    for param in model.parameters():
        param.grad = torch.randn_like(param)
    stepper.optimizer.step()
    return stepper.optimizer


@pytest.mark.parametrize("kind", sorted(REGISTRY["optimizer"]))
@pytest.mark.parametrize("experts", ["e8", "dense"])
def test_the_state_of_every_optimizer_is_known_to_the_byte(kind: str, experts: str) -> None:
    run = compose_run(*SMALL, f"optimizer={kind}", f"experts={experts}")
    assert run_memory(run).optimizer == state_bytes(stepped(run))


def test_the_talks_model() -> None:
    """1.0 billion parameters in float32, their gradients and two moments."""
    run = compose_run("scale=talk")
    found, params = run_memory(run), sizes(run, run.data.vocab_size).params_total
    assert found.weights == found.gradients == found.whole_weights == 4 * params
    assert found.certain == pytest.approx(16 * params, rel=1e-6)
    assert found.largest == 4 * 50304 * 768  # the embedding
    assert found.certain_ram == found.certain


ONE_EACH = ("trainer.batch_size=4", "trainer.micro_batch_size=1")  # a micro-batch for each of four processes


def test_processes_that_share_a_model_keep_rows_of_it() -> None:
    fsdp = "engine.parallel=fsdp"
    alone, shared, replicas = (
        run_memory(compose_run(*SMALL, *ONE_EACH, *line), n) for line, n in (((fsdp,), 1), ((fsdp,), 4), ((), 4))
    )
    assert 0.25 * alone.certain <= shared.certain < 0.27 * alone.certain  # rows that do not divide are rounded up
    assert shared.weights < shared.building < alone.whole_weights  # its part, and a layer
    assert shared.certain_ram == max(shared.certain, shared.building)
    assert replicas.certain == alone.certain
    assert (shared.gathered > 0, replicas.gathered, alone.gathered) == (True, 0, 0)


def test_gradients_that_add_up_are_whole_in_every_process() -> None:
    """torch keeps them unsharded until the last micro-batch; two processes were seen to hold all bytes of them."""
    line = (*SMALL, "engine.parallel=fsdp", "trainer.batch_size=8", "trainer.micro_batch_size=1")
    one, several = (run_memory(compose_run(*line), n) for n in (8, 4))
    assert one.gradients == one.weights < several.gradients == several.whole_weights


OPTIMIZERS = ("adamw", "muon", "shampoo", "soap")
SHARED = ("engine=megatron", "engine.expert_parallel=8")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        *(((f"optimizer={kind}",), 1.0) for kind in OPTIMIZERS),
        (("optimizer=adamw", "engine.parallel=fsdp"), 0.125),  # which refuses the others: they need whole matrices
        *(pytest.param((f"optimizer={kind}", *SHARED), 1.0, marks=needs_megatron) for kind in OPTIMIZERS),
    ],
)
def test_what_a_layout_keeps_of_weights_and_state(line: tuple[str, ...], kept: float) -> None:
    """Of talk_e128 on eight GPUs. Experts that Megatron's processes share are computed there, and kept everywhere."""
    batch = ("trainer.micro_batch_size=5", "trainer.precision=bfloat16")
    run = compose_run("scale=talk_e128", "engine.device=cpu", *batch, *line)
    found, alone = run_memory(run, 8, on_gpu=True), run_memory(run, 1, on_gpu=True)
    assert found.weights == pytest.approx(kept * alone.whole_weights, rel=1e-3)
    assert found.optimizer == pytest.approx(kept * alone.optimizer, rel=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "state"), [("adamw", 29.5e9), ("muon", 14.9e9), ("shampoo", 98.4e9), ("soap", 90.4e9)]
)
def test_the_state_of_talk_e128(optimizer: str, state: float) -> None:
    run = compose_run("scale=talk_e128", f"optimizer={optimizer}")
    assert run_memory(run).optimizer == pytest.approx(state, rel=2e-3)


def test_a_gpu_leaves_the_host_a_layer_of_weights() -> None:
    run = compose_run("scale=talk_e128")
    found = run_memory(run, on_gpu=True)
    layer = 4 * (4 * 768**2 + 2 * 768 + 128 * 768 + 128 * 3 * 768 * 1024)
    assert found.certain_ram == found.building == layer < found.whole_weights / 12
    assert found.estimate_ram == PROCESS + layer + found.largest
    assert found.estimate > found.certain


@needs_megatron
def test_megatron_builds_the_whole_model_on_the_host() -> None:
    found = run_memory(compose_run("scale=talk", "engine=megatron", "engine.device=cpu"), on_gpu=True)
    assert found.certain_ram == found.whole_weights


def test_what_passes_keep_grows_with_the_micro_batch_and_narrows_with_bfloat16() -> None:
    def activations(*line: str) -> int:
        return run_memory(compose_run("scale=talk", *line)).activations

    one, two = (activations("trainer.batch_size=40", f"trainer.micro_batch_size={n}") for n in (20, 40))
    assert 1.9 * one < two < 2 * one
    wide, narrow = (
        run_memory(compose_run("scale=talk", f"trainer.precision={p}"), on_gpu=True) for p in ("float32", "bfloat16")
    )
    assert narrow.activations < 0.7 * wide.activations


def test_gradients_are_there_beside_activations_where_micro_batches_add_up() -> None:
    one, several = (run_memory(compose_run("scale=talk", f"trainer.micro_batch_size={n}")) for n in (40, 20))
    assert (one.accumulates, several.accumulates) == (False, True)
    assert one.estimate == PROCESS + one.weights + one.optimizer + one.activations
    assert several.estimate == PROCESS + several.certain + several.activations


def test_a_learning_rate_is_no_reason_to_count_again() -> None:
    first = run_memory(compose_run(*SMALL, "optimizer.base_lr=1e-3"))
    assert run_memory(compose_run(*SMALL, "optimizer.base_lr=2e-3")) == first
