"""Steps of the trainer with a compiled model: the same losses and weights as without, for every option.

Each case compiles C++ for some ten seconds. So one case tries an option of each kind, and together they try all.
"""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from helpers import CPU, Silent, compose_run
from torch import Tensor
from watching import tokens

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.kernels.build import compiler
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.trainer import Trainer

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler, which torch.compile needs")

# One layer, two micro-batches a step, three steps: the third finds the code that the first two left.
SMALL = ["scale=smoke", "model.layers=1", "model.width=16", "model.heads=2", "experts.ffn_hidden=16"]
SMALL += ["model.init_std=0.2", "data.vocab_size=512", "trainer.seq_len=16", "trainer.batch_size=4"]
SMALL += ["trainer.micro_batch_size=2", "trainer.steps=24", "schedule.warmup_steps=4"]
SMALL += ["engine.kernels=torch", "trainer.precision=float32"]
STEPS = 3
EPS = torch.finfo(torch.float32).eps
SOON = {"shampoo": "optimizer.precondition_frequency=2", "soap": "optimizer.precondition_frequency=1"}
OTHERS = [["data.mask_documents=true"], ["model.qk_norm=true"], ["experts.num_experts=16"], ["router.temperature=2"]]


def cases() -> list[list[str]]:
    """Command lines in which every option of every kind occurs."""
    kinds = {group: list(REGISTRY[group]) for group in ("balancer", "router", "optimizer", "lr_split")}
    count = max(len(options) for options in kinds.values())
    columns = [islice(cycle([f"{group}={kind}" for kind in options]), count) for group, options in kinds.items()]
    lines = [list(line) for line in zip(*columns, strict=True)]
    soon = [[SOON[kind] for kind in SOON if f"optimizer={kind}" in line] for line in lines]
    for line in lines:
        if "balancer=expert_choice" in line:  # with others it is refused (tests/unit/balancing/test_refusals.py)
            line[1] = "router=softmax_topk"
    return [line + more + other for line, more, other in zip(lines, soon, cycle(OTHERS), strict=False)]


def trained(folder: Path, *line: str, nudge: float = 0.0) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some steps, and the weights after them; the first weights are times 1 + `nudge` N(0, 1)."""
    run = compose_run(*SMALL, *line)
    trainer = Trainer(run, RunDir(folder), tokens(run), CPU, Silent())
    for param in trainer.model.parameters():
        param.data *= 1 + nudge * torch.randn(param.shape, generator=torch.Generator().manual_seed(0))
    losses = [float(trainer._timed_step()["loss"]) for _ in range(STEPS)]
    return losses, {name: param.detach() for name, param in trainer.model.named_parameters()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its own parts
@pytest.mark.parametrize("line", cases(), ids=" ".join)
def test_a_compiled_model_trains_as_the_model_does(line: list[str], tmp_path: Path) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    losses, weights = trained(tmp_path, *line, "engine.compile=true")
    counts = torch._dynamo.utils.counters
    assert counts["stats"]["unique_graphs"] == 1  # whole, and not traced anew in a later step
    assert not counts["graph_break"]
    expected, wanted = trained(tmp_path, *line, "engine.compile=false")
    assert expected[0] != pytest.approx(expected[-1], rel=1e-4)
    if any(f"optimizer={kind}" in line for kind in SOON):  # eigenvectors follow from the last digits
        moved, _ = trained(tmp_path, *line, "engine.compile=false", nudge=EPS)
        for loss, own, other in zip(losses, expected, moved, strict=True):
            assert loss == pytest.approx(own, abs=max(1e-5 * own, 4 * abs(other - own)))
    else:
        assert losses == pytest.approx(expected, rel=1e-5)
        for name, weight in wanted.items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-6, msg=name)


def test_every_option_is_tried() -> None:
    tried = {setting for line in cases() for setting in line}
    assert tried >= {f"{group}={kind}" for group in ("balancer", "router", "optimizer") for kind in REGISTRY[group]}
    assert tried >= {setting for settings in OTHERS for setting in settings}
