"""What every learning-rate split must keep, as functions of a run that uses it; `CHECKS` has them all.

Axes: L MoE layers, E experts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from helpers import TINY, compose_run

from moe_sweeps.config.groups import MoEExpertsConfig
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.schema import RunConfig, problems
from moe_sweeps.model.transformer import build_model
from moe_sweeps.optim.lr_split import LrSplitConfig, MatchedConfig, Role
from moe_sweeps.training.stepper import Stepper

VOCABULARY = 64


def run_with(kind: str) -> RunConfig:
    """A small run of `lr_split=kind`."""
    return compose_run(*TINY, f"lr_split={kind}")


def multipliers_are_finite_and_not_negative(run: RunConfig) -> None:
    assert all(math.isfinite(run.lr_split.multiplier(role)) and run.lr_split.multiplier(role) >= 0 for role in Role)


def only_learning_rates_differ_from_the_matched_ones(run: RunConfig) -> None:
    """The same groups with the same members, decay and whatever else an optimizer reads."""
    ours, matched = (_stepper(r).optimizer.param_groups for r in (run, _with(run, MatchedConfig())))
    for one, other in zip(ours, matched, strict=True):
        shared = one.keys() - {"params", "lr", "peak_lr"}
        assert {k: one[k] for k in shared} == {k: other[k] for k in shared}
        assert [tuple(p.shape) for p in one["params"]] == [tuple(p.shape) for p in other["params"]]


def the_plainest_form_is_plain_and_the_same_run(run: RunConfig) -> None:
    plain = run.lr_split.canonical(run)
    again = _with(run, plain)
    assert plain.canonical(again) == plain
    assert problems(again) == []
    assert run_id(again) == run_id(run)


def ratios_are_of_the_loads_alone(run: RunConfig) -> None:
    """One that follows the load gives each expert a finite ratio, none below 0, and its state comes back exactly."""
    ratios = run.lr_split.ratios(run)
    if ratios is None:
        return
    assert isinstance(run.experts, MoEExpertsConfig)
    shape = run.model.layers, run.experts.num_experts
    loads = [torch.randint(1, 100, shape, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    found = [ratios.next(step, load_LE).ratio_LE for step, load_LE in enumerate(loads, start=1)]
    assert all(r.shape == shape and torch.isfinite(r).all() and (r >= 0).all() for r in found)
    other = run.lr_split.ratios(run)
    assert other is not None
    for step, load_LE in enumerate(loads[:2], start=1):
        other.next(step, load_LE)
    resumed = run.lr_split.ratios(run)
    assert resumed is not None
    resumed.load_state_dict(other.state_dict())
    assert torch.equal(resumed.next(3, loads[2]).ratio_LE, found[2])


def a_step_moves_every_role_by_its_multiplier(run: RunConfig) -> None:
    """One AdamW step without decay under even loads: how far a role moves is its multiplier times a common size."""
    without_decay = dataclasses.replace(run, optimizer=dataclasses.replace(run.optimizer, weight_decay=0.0))
    moved = [_moved(r) for r in (without_decay, _with(without_decay, MatchedConfig()))]
    split = run.lr_split.canonical(run)
    for role in Role:
        if role is Role.expert and split.ratios(run) is not None:
            continue  # times its ratio, which is for tests of its own
        torch.testing.assert_close(moved[0][role], split.multiplier(role) * moved[1][role], rtol=1e-4, atol=1e-9)


CHECKS: tuple[Callable[[RunConfig], None], ...] = (
    multipliers_are_finite_and_not_negative,
    only_learning_rates_differ_from_the_matched_ones,
    the_plainest_form_is_plain_and_the_same_run,
    ratios_are_of_the_loads_alone,
    a_step_moves_every_role_by_its_multiplier,
)


# --- parts ------------------------------------------------------------------------------------------------------------


def _with(run: RunConfig, split: LrSplitConfig) -> RunConfig:
    return dataclasses.replace(run, lr_split=split)


def _stepper(run: RunConfig) -> Stepper:
    return Stepper(run, build_model(run, VOCABULARY))


def _moved(run: RunConfig) -> dict[Role, torch.Tensor]:
    """Mean absolute change of each role's parameters in a first step from gradients of one size."""
    assert isinstance(run.experts, MoEExpertsConfig)
    model = build_model(run, VOCABULARY).double()
    stepper = Stepper(run, model)
    before = {id(p): p.detach().clone() for p in model.parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    stepper.step(0, torch.full((run.model.layers, run.experts.num_experts), 16))
    return {
        Role(group["role"]): torch.cat([(p.detach() - before[id(p)]).abs().flatten() for p in group["params"]]).mean()
        for group in stepper.optimizer.param_groups
    }
