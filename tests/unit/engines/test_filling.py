"""A model that gets its weights in its place has the bits of one that is built with them, and of no host's memory."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, compose_run
from torch import Tensor

from moe_sweeps.distributed.sharding import is_empty, place
from moe_sweeps.engines.build import build_engine_model, is_filled_in_place
from moe_sweeps.engines.filling import _parts, fill
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.transformer import Transformer, build_model, weights_digest

VOCAB = 512
LINES = [
    (),
    ("experts=dense",),
    ("model.qk_norm=true", "router.noise=learned"),
    ("router.init=talk", "seed=3"),
    ("router.init=zero", "model.layers=3"),
    ("balancer=expert_choice",),
]


def filled(run: RunConfig) -> Transformer:
    """As a process with a GPU builds it, on the CPU."""
    model = build_engine_model(run, VOCAB, None, CPU, empty=True)
    assert is_empty(model)
    place(model, CPU, run.engine.parallel, 1, autocast=False)
    for param in model.parameters():
        param.data.fill_(float("nan"))
    fill(model, run, VOCAB)
    return model


def loss_of(model: Transformer) -> Tensor:
    tokens_BS = torch.arange(32).view(2, 16)
    torch.manual_seed(0)  # a router may add noise
    found = model(tokens_BS, tokens_BS).loss
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("line", LINES, ids=lambda line: "-".join(line) or "plain")
def test_its_weights_are_those_of_build_model(line: tuple[str, ...]) -> None:
    run = compose_run("scale=smoke", *line)
    built, ours = build_model(run, VOCAB), filled(run)
    assert weights_digest(ours) == weights_digest(built)
    assert [(n, p.requires_grad) for n, p in ours.named_parameters()] == [
        (n, p.requires_grad) for n, p in built.named_parameters()
    ]
    assert torch.equal(loss_of(ours), loss_of(built))


def test_it_draws_from_no_global_state_and_one_layer_is_there_at_a_time() -> None:
    run = compose_run("scale=smoke", "model.layers=5")
    state = torch.get_rng_state()
    fill(build_model(run, VOCAB), run, VOCAB)
    assert torch.equal(torch.get_rng_state(), state)
    parts = list(_parts(run, VOCAB))
    names = [name for part in parts for name, _ in part.named_parameters()]
    assert sorted(names) == sorted(name for name, _ in build_model(run, VOCAB).named_parameters())
    assert len(parts) == 6


def test_who_builds_in_place() -> None:
    plain, shared = compose_run("scale=smoke"), compose_run("scale=smoke", "engine.parallel=fsdp")
    assert [is_filled_in_place(plain, gpu, n) for gpu, n in ((False, 1), (False, 8), (True, 1))] == [False, False, True]
    assert [is_filled_in_place(shared, gpu, n) for gpu, n in ((False, 1), (False, 2), (True, 1))] == [False, True, True]
