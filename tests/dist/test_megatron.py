"""engine=megatron in two processes: replicas, and experts that are shared between them, against one process.

Axes: L MoE layers, E experts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dist.processes import run_on_ranks
from helpers import CPU, TINY, Silent, compose_run
from megatron_helpers import needs_megatron
from torch import Tensor

from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.engines.megatron.model import MegatronTransformer
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.model.transformer import weights_digest
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.trainer import Trainer

pytestmark = needs_megatron
STEPS = 3
LINE = (*TINY, "engine=megatron", "trainer.batch_size=8", "trainer.micro_batch_size=2", "aux.coef=1")
ARMS = [
    ["router=sigmoid", "balancer=lossfree"],
    ["router=topk_softmax", "balancer=aux", "lr_split=batch_fraction", "model.qk_norm=true"],
]
SHARED = "engine.expert_parallel=2"
Job = tuple[RunConfig, Path]


def jobs(folders: Path, name: str, lines: list[list[str]]) -> list[Job]:
    runs = [compose_run(*LINE, f"paths.runs={folders / name}", *line) for line in lines]
    return [(run, freeze(run, [], command="test").path) for run in runs]


def some_steps(ranks: Ranks, work: list[Job], data: Path) -> list[dict[str, Any]]:
    """Initial weights, gradients of the first step, and what a few steps and an evaluation found."""
    found = []
    for run, folder in work:
        trainer = Trainer(run, RunDir(folder), TokenData.open(data), CPU, Silent(), ranks)
        digest = weights_digest(trainer.model)
        trainer.gradients.accumulate(trainer._own_batch(), progress=0.0)
        grads = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        trainer.model.zero_grad()
        loads: list[Tensor] = []
        setattr(trainer.monitor, "add_step", loads.append)  # noqa: B010
        values = []
        for _ in range(STEPS):
            values.append(trainer._train_step())
            trainer.step += 1
        state = trainer.model.state_dict() | trainer.balancer.state_dict()
        # Nine windows: the processes have differing numbers of batches.
        first: dict[str, Any] = {"digest": digest, "grads": grads}
        found.append(first | {"loads": loads, "values": values, "state": state, "val": trainer.evaluate(9)})
    return found


def own_experts(ranks: Ranks, work: list[Job], data: Path) -> list[int]:
    """The experts that this process computes in training."""
    run, folder = work[0]
    trainer = Trainer(run, RunDir(folder), TokenData.open(data), CPU, Silent(), ranks)
    assert isinstance(trainer.model, MegatronTransformer)
    return list(range(8))[trainer.model._skeletons[2].local]


def everything(ranks: Ranks, work: list[Job], data: Path) -> tuple[list[dict[str, Any]], list[int]]:
    return some_steps(ranks, work, data), own_experts(ranks, work[-1:], data)


@pytest.mark.timeout(300)
def test_two_processes_train_what_one_does(folders: Path, real_data: TokenData) -> None:
    """As replicas and with four of the eight experts each: gradients to rounding, loads and bias exactly."""
    alone = some_steps(ALONE, jobs(folders, "one", ARMS), real_data.folder)
    work = jobs(folders, "replicas", ARMS) + jobs(folders, "shared", [[*arm, SHARED] for arm in ARMS])
    (first, own), (second, others) = run_on_ranks(everything, 2, work, real_data.folder, timeout=240)
    assert (own, others) == ([0, 1, 2, 3], [4, 5, 6, 7])
    for expected, found, other in zip([*alone, *alone], first, second, strict=True):
        assert found["digest"] == other["digest"] == expected["digest"]
        for name, tensor in found["state"].items():
            assert torch.equal(tensor, other["state"][name]), f"the replicas differ in {name}"
            rtol, atol = (0.0, 0.0) if name == "bias_LE" else (2e-4, 2e-5)
            torch.testing.assert_close(tensor, expected["state"][name], rtol=rtol, atol=atol)
        for name, grad in expected["grads"].items():
            assert (found["grads"][name] - grad).norm() <= 2e-6 * grad.norm(), name
        for one, two in zip(expected["loads"], found["loads"], strict=True):
            assert torch.equal(one, two)
        for one, two in zip(expected["values"], found["values"], strict=True):
            torch.testing.assert_close(two, one, rtol=2e-6, atol=1e-6)
        assert found["val"].loss == pytest.approx(expected["val"].loss, rel=1e-6)
        assert torch.equal(found["val"].load_LE, expected["val"].load_LE)
    assert first[2]["state"]["bias_LE"].abs().sum() > 0
