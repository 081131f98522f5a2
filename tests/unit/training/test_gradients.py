"""Clipping, and what saves a GPU passes over gradients and weights; the rest is tested with the trainer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from helpers import CPU, TINY, Silent, compose_run
from optimizing import group_by_role, soon
from watching import tokens

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.model.moe import narrow_experts
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.transformer import weights_digest
from moe_sweeps.optim.build import divides_gradients, step_dividing
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training import gradients, stepper
from moe_sweeps.training.gradients import clip_divisor, clip_gradients
from moe_sweeps.training.trainer import Trainer


def test_clipping() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradients(model, 0).item() == 5.0
    assert model.weight.grad.tolist() == [[3.0, 4.0]]
    assert clip_gradients(model, 1.0).item() == 5.0
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]))


def test_a_norm_within_the_limit_changes_no_bit() -> None:
    """As with torch's own clipping, which multiplies by 1 then."""
    for limit in (5.0, 5.000002, 7.0, 4.9999995):
        ours, torchs = (torch.nn.Linear(2, 1, bias=False) for _ in range(2))
        for model in (ours, torchs):
            model.weight.grad = torch.tensor([[3.0, 4.0]])
        clip_gradients(ours, limit)
        torch.nn.utils.clip_grad_norm_(torchs.parameters(), limit)
        assert ours.weight.grad is not None
        assert torchs.weight.grad is not None
        assert ours.weight.grad.tolist() == torchs.weight.grad.tolist()


def test_a_norm_that_is_no_number_is_left_to_torch() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[float("nan"), 4.0]])
    assert torch.isnan(clip_gradients(model, 1.0))
    assert torch.isnan(model.weight.grad).all()


# --- clipping that is left to the optimizer ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.5, 1.0, 5.0, 7.0])
@pytest.mark.parametrize("steps", [1, 3])
def test_an_optimizer_that_divides_steps_as_with_clipped_gradients(limit: float, steps: int) -> None:
    """Against float64, with the norm below and above the limit; dividing and multiplying differ in the last digit."""
    grads = [torch.tensor([[3.0, 4.0]]) * (1 + 0.5 * step) for step in range(steps)]
    ends = []
    for dtype, divides in ((torch.float64, False), (torch.float32, False), (torch.float32, True)):
        model = torch.nn.Linear(2, 1, bias=False)
        model.weight = torch.nn.Parameter(torch.tensor([[3.0, -7.0]], dtype=dtype))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        for grad in grads:
            model.weight.grad = grad.to(dtype, copy=True)
            norm = clip_gradients(model, 0 if divides else limit)
            step_dividing(optimizer, clip_divisor(norm, limit) if divides else None)
        ends.append([model.weight.detach().double(), *moments(optimizer)])
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-6, atol=0)


def moments(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """AdamW's moments in float64. Unlike its steps they depend on the gradients' scale."""
    return [state[name].double() for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]


def test_the_divisor() -> None:
    assert clip_divisor(torch.tensor(0.5), 1.0).item() == 1.0
    assert clip_divisor(torch.tensor(3.0), 1.5).item() == pytest.approx(2.0)
    assert torch.isnan(clip_divisor(torch.tensor(float("nan")), 1.0))


def test_a_divisor_counts_for_one_step() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([param], fused=True)
    param.grad = torch.ones(2)
    step_dividing(optimizer, torch.tensor(2.0))
    assert param.grad.tolist() == [0.5, 0.5]
    step_dividing(optimizer, None)
    assert param.grad.tolist() == [0.5, 0.5]
    assert not hasattr(optimizer, "grad_scale")


@pytest.mark.parametrize("kind", REGISTRY["optimizer"])
def test_only_adamw_on_a_gpu_divides(kind: str) -> None:
    optimizer = soon(kind).build(group_by_role({"embedding.weight": torch.nn.Parameter(torch.ones(4, 4))}))
    assert divides_gradients(optimizer, torch.device("cuda")) == (kind == "adamw")
    assert not divides_gradients(optimizer, CPU)


def _trained(folder: Path, *line: str) -> tuple[list[float], str, Trainer]:
    run = compose_run(*TINY, "engine.kernels=torch", *line)
    trainer = Trainer(run, RunDir(folder), tokens(run), CPU, Silent())
    losses = [float(trainer._timed_step()["loss"]) for _ in range(4)]
    return losses, weights_digest(trainer.model), trainer


@pytest.mark.parametrize("line", [["trainer.grad_clip=0.05"], ["trainer.grad_clip=0.05", "lr_split=batch_fraction"]])
def test_a_run_whose_optimizer_clips_is_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: list[str]
) -> None:
    expected, _, clipped = _trained(tmp_path, *line)
    assert not clipped.gradients.leaves_division
    monkeypatch.setattr(stepper, "divides_gradients", lambda *_: True)
    found, _, trainer = _trained(tmp_path, *line)
    assert trainer.gradients.leaves_division
    assert found == pytest.approx(expected, rel=1e-6)
    pairs = list(zip(moments(trainer.stepper.optimizer), moments(clipped.stepper.optimizer), strict=True))
    assert all((ours - theirs).norm() <= 1e-4 * theirs.norm() for ours, theirs in pairs)
    unclipped = moments(_trained(tmp_path, "trainer.grad_clip=0", *line[1:])[2].stepper.optimizer)
    assert all(ours.norm() > 2 * theirs.norm() for ours, (theirs, _) in zip(unclipped, pairs, strict=True))


@pytest.mark.parametrize("line", [[], ["balancer=aux", "aux.scope=global"], ["balancer=expert_choice"]])
def test_a_run_that_holds_narrow_weights_is_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: list[str]
) -> None:
    """To the last bit, over the two micro-batches of each step."""
    expected = _trained(tmp_path, "trainer.precision=bfloat16", *line)[:2]
    gpu, held = Compute(torch.device("cuda"), True), []

    def narrow(model: torch.nn.Module, compute: Compute) -> AbstractContextManager[None]:
        held.append(compute)
        return narrow_experts(model, gpu)

    monkeypatch.setattr(gradients, "narrow_experts", narrow)
    assert _trained(tmp_path, "trainer.precision=bfloat16", *line)[:2] == expected
    assert len(held) == 4
    _trained(tmp_path, "trainer.precision=bfloat16", "trainer.micro_batch_size=4")
    assert len(held) == 4  # one forward pass a step makes its own
