"""optimizer.decay_all: weight decay of norms and of the tied embedding, which the talk's load-based rates had."""

from __future__ import annotations

import pytest
import torch
from helpers import TINY, compose_run

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.experiment.identity import canonical_form, run_id, unread_knobs
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.transformer import build_model
from moe_sweeps.training.stepper import Stepper

DECAY = 0.1
every_optimizer = pytest.mark.parametrize("kind", sorted(REGISTRY["optimizer"]))


def run_with(kind: str, *more: str) -> RunConfig:
    steps = "trainer.steps=400"  # Shampoo refuses a run that ends before its first roots
    return compose_run(*TINY, steps, f"optimizer={kind}", f"optimizer.weight_decay={DECAY}", *more)


def decays(run: RunConfig) -> dict[str, float]:
    """Role -> the weight decay that the optimizer was given."""
    return {g["role"]: g["weight_decay"] for g in Stepper(run, build_model(run, 512)).optimizer.param_groups}


@every_optimizer
def test_norms_and_embedding_are_decayed_with_it_alone(kind: str) -> None:
    every = dict.fromkeys(("expert", "router", "dense", "embedding", "norm"), DECAY)
    assert decays(run_with(kind)) == every | {"embedding": 0.0, "norm": 0.0}
    assert decays(run_with(kind, "optimizer.decay_all=true")) == every
    own = decays(run_with(kind, "optimizer.decay_all=true", "router.weight_decay=0.5"))
    assert own == every | {"router": 0.5}


@every_optimizer
def test_a_step_without_gradient_shrinks_them_by_lr_times_decay(kind: str) -> None:
    """p <- p (1 - lr decay): of all parameters with it, of matrices of experts, router and dense roles without."""
    for decay_all in (False, True):
        run = run_with(kind, f"optimizer.decay_all={decay_all}")
        model = build_model(run, 512)
        stepper = Stepper(run, model)
        for step in (0, 1):  # SOAP's first one moves nothing
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
            rate = stepper.step(step, None).base
        for name, p in model.named_parameters():
            kept = name == "embedding.weight" or name.endswith("norm.weight")
            share = 1.0 if kept and not decay_all else 1 - rate * DECAY
            torch.testing.assert_close(p.detach(), before[name] * share, rtol=1e-6, atol=0, msg=name)
            assert not torch.equal(p.detach(), before[name]) or share == 1.0, name


def test_it_is_outside_the_identity_at_its_neutral_value_and_inside_at_the_other() -> None:
    plain, off, on = (compose_run(*line) for line in ([], ["optimizer.decay_all=false"], ["optimizer.decay_all=true"]))
    assert "decay_all" not in canonical_form(plain)["optimizer"]
    assert run_id(off) == run_id(plain) != run_id(on)


@every_optimizer
def test_decay_that_there_is_none_of_reaches_nothing(kind: str) -> None:
    none = run_with(kind, "optimizer.weight_decay=0")
    all_of_none = run_with(kind, "optimizer.weight_decay=0", "optimizer.decay_all=true")
    assert run_id(none) == run_id(all_of_none)
    assert unread_knobs(none)["optimizer.decay_all"] == ("optimizer.weight_decay=0", "any weight decay above 0")
