"""Several processes train one run: the same experiment as one process with the same global batch.

Axes: L MoE layers, E experts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dist.processes import run_on_ranks
from dist.training import Job, jobs, made, some_steps
from torch import Tensor

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed.ranks import ALONE, Ranks

ARMS = [
    ["balancer=aux", "aux.scope=sequence"],
    ["balancer=aux", "aux.scope=global"],
    ["balancer=lossfree"],
    ["balancer=lossfree", "balancer.update=magnitude", "router=sigmoid"],
    ["balancer=aux_lossfree", "aux.scope=global"],
    ["balancer=quantile"],
    ["balancer=expert_choice"],
    ["balancer=none", "lr_split=batch_fraction"],
    ["experts=dense"],
]


def test_two_processes_train_what_one_does(folders: Path, real_data: TokenData) -> None:
    """Loads are the same integers and the bias the same floats; what a sum rounds may differ in its last digits."""
    alone = some_steps(ALONE, jobs(folders, "one", *ARMS), real_data.folder)
    first, second = run_on_ranks(some_steps, 2, jobs(folders, "two", *ARMS), real_data.folder)
    for arm, expected, found, other in zip(ARMS, alone, first, second, strict=True):
        for name, tensor in found["state"].items():
            assert torch.equal(tensor, other["state"][name]), (arm, name, "the replicas differ")
            exact = name == "bias_LE"
            torch.testing.assert_close(
                tensor,
                expected["state"][name],
                rtol=0 if exact else 2e-4,
                atol=0 if exact else 2e-5,
                msg=f"{arm} {name}",
            )
        for one, two in zip(expected["loads"], found["loads"], strict=True):
            assert torch.equal(one, two), arm
        for one, two in zip(expected["values"], found["values"], strict=True):
            assert one.keys() == two.keys()
            for name in one:
                torch.testing.assert_close(two[name], one[name], rtol=2e-6, atol=1e-6, msg=f"{arm} {name}")
        assert found["val"].loss == pytest.approx(expected["val"].loss, rel=1e-6)
        assert found["val"].tokens == expected["val"].tokens == 9 * 32
        assert found["val"].accuracy == pytest.approx(expected["val"].accuracy)
        if expected["val"].load_LE is not None:
            assert torch.equal(found["val"].load_LE, expected["val"].load_LE)
            assert torch.equal(found["val"].domain_load_DLE, expected["val"].domain_load_DLE)
    assert first[2]["state"]["bias_LE"].abs().sum() > 0


def step_gradients(ranks: Ranks, work: list[Job], data: Path) -> list[tuple[float, dict[str, Tensor]]]:
    """The auxiliary loss of the first step of each run, and the gradients of the routers, unclipped."""
    found = []
    for job in work:
        trainer = made(ranks, job, data)
        values = trainer.gradients.accumulate(trainer._own_batch(), progress=0.0).values
        grads = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        found.append((values["aux_loss"].item(), {n: g for n, g in grads.items() if ".router." in n}))
    return found


@pytest.mark.parametrize("micro", [1, 4])
def test_the_scope_decides_what_a_split_changes(folders: Path, real_data: TokenData, micro: int) -> None:
    """Sequence and global scope: neither micro-batches nor processes count. Scope micro: the micro-batch does."""
    scopes = ("sequence", "global", "micro")
    lines = [["balancer=aux", f"aux.scope={scope}", "trainer.grad_clip=0"] for scope in scopes]
    whole = [[*line, "trainer.micro_batch_size=8"] for line in lines]
    split = [[*line, f"trainer.micro_batch_size={micro}"] for line in lines]
    expected = step_gradients(ALONE, jobs(folders, "whole", *whole), real_data.folder)
    same_split = step_gradients(ALONE, jobs(folders, "split", *split), real_data.folder)
    found, _ = run_on_ranks(step_gradients, 2, jobs(folders, "two", *split), real_data.folder)
    for scope, (aux, grads), (one, one_grads), (two, two_grads) in zip(
        scopes, expected, same_split, found, strict=True
    ):
        assert two == pytest.approx(one, rel=1e-6)
        assert (two == pytest.approx(aux, rel=1e-6)) is (scope != "micro")
        for name, grad in grads.items():
            torch.testing.assert_close(two_grads[name], one_grads[name], rtol=1e-4, atol=1e-7)
            assert torch.allclose(two_grads[name], grad, rtol=1e-4, atol=1e-7) is (scope != "micro")


def bias_after_one_step(ranks: Ranks, work: list[Job], data: Path) -> Tensor:
    trainer = made(ranks, work[0], data)
    trainer._train_step()
    return dict(trainer.balancer.named_buffers())["bias_LE"]


def test_the_talk_s_bias_follows_the_first_process(folders: Path, real_data: TokenData) -> None:
    """Updated at every micro-step from the first rank's counts (docs/definitions.md, section 6), the same everywhere."""
    line = ["balancer=lossfree", "balancer.update_every=micro_step", "balancer.bias_on=logits", "balancer.rate=0.05"]
    ours = made(ALONE, jobs(folders, "one", [*line, "trainer.batch_size=4"])[0], real_data.folder)
    whole = made(ALONE, jobs(folders, "whole", line)[0], real_data.folder)
    ours.gradients.accumulate(whole.batches.batch(0, slice(0, 4)), progress=0.0)  # the first rank's half
    expected = dict(ours.balancer.named_buffers())["bias_LE"]
    first, second = run_on_ranks(bias_after_one_step, 2, jobs(folders, "two", line), real_data.folder)
    assert torch.equal(first, second)
    assert torch.equal(first, expected)
    whole._train_step()
    assert not torch.equal(first, dict(whole.balancer.named_buffers())["bias_LE"])


def draws(ranks: Ranks, work: list[Job], data: Path) -> Tensor:
    trainer = made(ranks, work[0], data)
    trainer._start()
    return torch.rand(3)


def test_weights_begin_alike_and_random_streams_do_not(folders: Path, real_data: TokenData) -> None:
    first, second = run_on_ranks(draws, 2, jobs(folders, "two", ["balancer=none"]), real_data.folder)
    torch.manual_seed(0)
    assert torch.equal(first, torch.rand(3))  # as in one process
    assert not torch.equal(first, second)


LR_SPLITS = [
    ["lr_split=static", "lr_split.expert=0.5"],
    ["lr_split=batch_fraction", "lr_split.sqrt=true"],
    ["lr_split=ideal_normalized", "lr_split.ema=0.5"],
    ["lr_split=ideal_normalized", "lr_split.control=shuffled"],
]
OPTIMIZERS = [
    ["optimizer=shampoo", "optimizer.precondition_frequency=2", "optimizer.start_step=2"],
    ["optimizer=muon"],
    ["optimizer=soap", "optimizer.precondition_frequency=2"],
]


def states_after(ranks: Ranks, work: list[Job], data: Path) -> list[dict[str, Tensor]]:
    return [found["state"] for found in some_steps(ranks, work, data)]


def test_replicas_are_bit_identical_for_every_split_and_optimizer(folders: Path, real_data: TokenData) -> None:
    lines = [["balancer=lossfree", *line] for line in (*LR_SPLITS, *OPTIMIZERS)]
    lines.append(["balancer=aux", *LR_SPLITS[1], *OPTIMIZERS[0]])
    first, second = run_on_ranks(states_after, 2, jobs(folders, "two", *lines), real_data.folder)
    assert len(first) == len(lines)
    for line, ours, theirs in zip(lines, first, second, strict=True):
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()), line
    moved = {tuple(ours["embedding.weight"].flatten().tolist()) for ours in first}
    assert len(moved) == len(lines)  # each line trained something of its own
