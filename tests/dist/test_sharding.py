"""A run that is sharded over its processes (FSDP2) is the run that replicas of it train, in a share of the memory.

Axes: E experts, B sequences, S positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from dist.processes import run_on_ranks
from dist.training import Job, jobs, made, some_steps
from helpers import CPU, compose_run, make_run
from torch import Tensor, nn

from moe_sweeps.config.groups import EngineConfig, Parallel
from moe_sweeps.experiment.schema import problems
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.transformer import build_model, weights_digest
from moe_sweeps.optim.build import state_bytes
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.distributed.sharding import is_part, own_part, own_rows, part_of, shard, total_norm, whole
from moe_sweeps.training.trainer import Trainer

FSDP = "engine.parallel=fsdp"
# Nine validation windows in batches of four: one of two processes has one batch, the other two.
UNEVEN = "trainer.eval_batch_size=4"
GRAD_CLIP, CLIP_VALUE, CLIP_NORM = 0.05, 1e-4, 1e-3
CLIPPED = [f"trainer.grad_clip={GRAD_CLIP}", f"router.clip_value={CLIP_VALUE}", f"router.clip_norm={CLIP_NORM}"]
ARMS = [
    ["balancer=aux", "aux.scope=global", *CLIPPED],
    ["balancer=lossfree", "balancer.update=magnitude", "router=sigmoid"],
    ["balancer=aux_lossfree", "lr_split=batch_fraction", "lr_split.scale_decay=false"],
    ["balancer=none", "lr_split=ideal_normalized", "lr_split.control=shuffled", "experts.num_experts=5"],
    ["experts=dense", "lr_split=static", "lr_split.embedding=0.5"],
]


def on(line: list[str], parallel: str) -> list[str]:
    return [*line, UNEVEN, f"engine.parallel={parallel}"]


def test_two_processes_that_share_the_model_train_what_replicas_and_one_process_do(
    folders: Path, real_data: TokenData
) -> None:
    """Loads are the same integers, the bias the same floats; norms and what follows from them round differently."""
    alone = some_steps(ALONE, jobs(folders, "one", *(on(arm, "ddp") for arm in ARMS)), real_data.folder)
    replicas, _ = run_on_ranks(some_steps, 2, jobs(folders, "two", *(on(a, "ddp") for a in ARMS)), real_data.folder)
    first, second = run_on_ranks(
        some_steps, 2, jobs(folders, "shared", *(on(a, "fsdp") for a in ARMS)), real_data.folder
    )
    for arm, found, other, *expected in zip(ARMS, first, second, alone, replicas, strict=True):
        assert all(torch.equal(tensor, other["state"][name]) for name, tensor in found["state"].items()), arm
        assert found["val"].loss == other["val"].loss
        for reference in expected:
            assert_same(arm, found, reference)
    assert min(values["grad_norm"].item() for values in first[0]["values"]) > GRAD_CLIP


def assert_same(arm: list[str], found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, tensor in found["state"].items():
        exact = name == "bias_LE"
        torch.testing.assert_close(
            tensor, expected["state"][name], rtol=0 if exact else 2e-4, atol=0 if exact else 2e-5, msg=f"{arm} {name}"
        )
    assert len(found["loads"]) == len(expected["loads"])
    assert all(map(torch.equal, found["loads"], expected["loads"])), arm
    for one, two in zip(expected["values"], found["values"], strict=True):
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6, msg=f"{arm} {name}")
    assert found["val"].loss == pytest.approx(expected["val"].loss, rel=1e-6)
    assert found["val"].tokens == expected["val"].tokens == 9 * 32


def gradients(ranks: Ranks, work: list[Job], data: Path) -> list[dict[str, Tensor]]:
    """The norm of the first step of each run, and its gradients as they are left, whole."""
    found = []
    for job in work:
        trainer = made(ranks, job, data)
        values = trainer.gradients.accumulate(trainer._own_batch(), progress=0.0).values
        grads = {n: whole(p.grad).clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        found.append({"grad_norm": values["grad_norm"]} | grads)
    return found


PLAIN = ["balancer=aux", "trainer.grad_clip=0"]
PRECISIONS = [[*PLAIN, f"trainer.precision={precision}"] for precision in ("float32", "bfloat16")]


def test_gradients_are_those_of_replicas_bit_for_bit(folders: Path, real_data: TokenData) -> None:
    """A sum of two floats has no order. In bfloat16 that holds as long as router, norms and embedding stay float32."""
    replicas, _ = run_on_ranks(gradients, 2, jobs(folders, "two", *PRECISIONS), real_data.folder)
    shared, _ = run_on_ranks(
        gradients, 2, jobs(folders, "shared", *([*line, FSDP] for line in PRECISIONS)), real_data.folder
    )
    for ours, theirs in zip(shared, replicas, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"grad_norm"}:
            assert torch.equal(ours[name], theirs[name]), name
        torch.testing.assert_close(ours["grad_norm"], theirs["grad_norm"], rtol=1e-5, atol=0)
    assert not torch.equal(shared[0]["embedding.weight"], shared[1]["embedding.weight"])


def test_gradients_are_clipped_to_the_norm_of_the_whole(folders: Path, real_data: TokenData) -> None:
    """The router's entries, then its norm, then the norm of all; three processes have parts of unequal size."""
    free, limited = ([*PLAIN, "trainer.batch_size=12"], ["balancer=aux", *CLIPPED, "trainer.batch_size=12"])
    unclipped, alone = gradients(ALONE, jobs(folders, "one", free, limited), real_data.folder)
    ((shared,), *_) = run_on_ranks(gradients, 3, jobs(folders, "shared", [*limited, FSDP]), real_data.folder)
    routers = [name for name in alone if ".router." in name]
    assert max(unclipped[name].abs().max().item() for name in routers) > CLIP_VALUE
    assert norm_of({name: unclipped[name].clamp(-CLIP_VALUE, CLIP_VALUE) for name in routers}) > CLIP_NORM
    assert norm_of(shared) == pytest.approx(GRAD_CLIP, rel=1e-5)
    for name, grad in alone.items():
        torch.testing.assert_close(shared[name], grad, rtol=2e-4, atol=1e-8, msg=name)
    assert shared["grad_norm"].item() == pytest.approx(alone["grad_norm"].item(), rel=1e-5)


def norm_of(grads: dict[str, Tensor]) -> float:
    squares = [grad.double().square().sum().item() for name, grad in grads.items() if name != "grad_norm"]
    return float(sum(squares) ** 0.5)


def kept_bytes(ranks: Ranks, work: list[Job], data: Path) -> dict[str, int]:
    """Bytes of the memory behind parameters and moments in this process, before and after a step and a resume."""
    trainer = made(ranks, work[0], data)
    found = {"weights": memory_of(trainer.model.parameters())}
    trainer._train_step()
    trainer.save()
    again = made(ranks, work[0], data)
    again._start_or_resume()
    for name, that in (("trained", trainer), ("resumed", again)):
        found[name] = memory_of([*that.model.parameters(), *moments_of(that)])
    found["reported"] = state_bytes(trainer.stepper.optimizer)
    return found


def moments_of(trainer: Trainer) -> list[Tensor]:
    of_params = trainer.stepper.optimizer.state.values()
    return [state[name] for state in of_params for name in ("exp_avg", "exp_avg_sq")]


def memory_of(tensors: Iterable[Tensor]) -> int:
    storages = [own_part(tensor.detach()).untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("size", [2, 3])
def test_each_process_keeps_its_share_of_weights_and_moments(folders: Path, real_data: TokenData, size: int) -> None:
    """The rows of each tensor are cut into `size` parts, the last of which may be short."""
    line = ["balancer=lossfree", "trainer.batch_size=6", "trainer.micro_batch_size=1"]
    work = jobs(folders, "one", line)
    alone = kept_bytes(ALONE, work, real_data.folder)
    found = run_on_ranks(kept_bytes, size, jobs(folders, "shared", [*line, FSDP]), real_data.folder)
    params = build_model(work[0][0], real_data.vocab_size).parameters()
    share = sum(math.ceil(len(p) / size) * p[0].nbytes for p in params)
    assert share < 1.04 * alone["weights"] / size
    assert alone["trained"] == alone["resumed"] == 3 * alone["weights"] > 400_000
    for name, most in (("weights", share), ("trained", 3 * share), ("resumed", 3 * share)):
        assert all(process[name] <= most for process in found), name
        assert sum(process[name] for process in found) >= alone[name], name
    assert {process["reported"] for process in found} == {alone["reported"]}  # what all processes keep together


def states(ranks: Ranks, work: list[Job], data: Path) -> list[Any]:
    """What a checkpoint of each run has after two steps, and the digest of its first weights."""
    found = []
    for job in work:
        trainer = made(ranks, job, data)
        trainer._start()
        for _ in range(2):
            trainer._train_step()
            trainer.step += 1
        digest = RunDir(job[1]).provenance()["pairing"]["initial_weights"]
        found.append((digest, trainer.saver.state_dict(trainer.step)))
    return found


def test_a_checkpoint_is_that_of_replicas(folders: Path, real_data: TokenData) -> None:
    """In all keys, shapes and types, so that either goes on from the other's; and the pairing hash is the same."""
    line = ["balancer=lossfree", "trainer.grad_clip=0", "lr_split=batch_fraction", "lr_split.ema=0.5"]
    work = jobs(folders, "replicas", line) + jobs(folders, "shared", [*line, FSDP])
    (replica, shared), (_, other) = run_on_ranks(states, 2, work, real_data.folder)
    assert shared[0] == replica[0] == other[0] == weights_digest(build_model(work[0][0], real_data.vocab_size))
    ours, theirs = (
        dict(flat({k: v for k, v in s.items() if k not in ("clock", "timer")})) for _, s in (shared, replica)
    )
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        expected = theirs[key]
        if isinstance(value, Tensor):
            assert (value.shape, value.dtype, type(value)) == (expected.shape, expected.dtype, Tensor), key
            assert torch.equal(value, expected) or "grad_norm" in key, key
    assert all(value is None for key, value in flat(other[1]) if "exp_avg" in key)


def flat(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield from flat(value, f"{path}/{key}")
    elif isinstance(state, list):
        for i, value in enumerate(state):
            yield from flat(value, f"{path}/{i}")
    else:
        yield path, state


def test_parts_of_no_rows_and_of_unequal_rows(folders: Path) -> None:
    """A stack of 3 experts over 4 processes, and 5 rows: what each has, that these are the whole, and a step."""
    found = run_on_ranks(parts, 4)
    for rank, (experts, ratios, rows, norm, stepped) in enumerate(found):
        assert experts == ([[rank, rank]] if rank < 3 else [])
        assert ratios == ([float(rank)] if rank < 3 else [])
        assert rows == [[[0, 1], [2, 3], [4], []][rank], [0, 1, 2, 3, 4]]
        assert norm == pytest.approx((2 * (1 + 4) + 30) ** 0.5)
        assert stepped == pytest.approx(
            [-0.5, 0.5, 1.5]
        )  # Adam's first step is the learning rate, whatever the gradient


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.experts_ED = nn.Parameter(torch.arange(3.0).unsqueeze(1).repeat(1, 2))
        self.rows_R = nn.Parameter(torch.arange(5.0))

    def routings(self) -> None: ...


def parts(ranks: Ranks) -> Any:
    model = Small()
    shard(model, CPU, ranks.size, autocast=False)
    experts_ED, rows_R = model.experts_ED.detach(), model.rows_R.detach()
    again_R = part_of(torch.arange(5.0), like=rows_R)
    found = [
        own_part(experts_ED).tolist(),
        own_rows(torch.arange(3.0), like=experts_ED).tolist(),
        [own_part(again_R).tolist(), whole(again_R).tolist()],
        total_norm([experts_ED, rows_R]).item(),
    ]
    model.experts_ED.grad = part_of(torch.full((3, 2), 7.0), like=experts_ED)
    torch.optim.AdamW([model.experts_ED], lr=0.5, weight_decay=0.0, fused=True).step()
    return [*found, whole(experts_ED)[:, 0].tolist()]


@pytest.mark.parametrize("optimizer", ["shampoo", "muon", "soap"])
def test_an_optimizer_of_whole_matrices_is_refused_at_planning(optimizer: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"engine\.parallel=fsdp is refused.*{optimizer}.*Use optimizer=adamw, or eng"
    ):
        compose_run(FSDP, f"optimizer={optimizer}")


@dataclass(slots=True)
class OtherEngineConfig(EngineConfig):
    kind: str = "other"


def test_an_engine_of_whole_parameters_is_refused_at_planning() -> None:
    (error,) = problems(make_run(engine=OtherEngineConfig(parallel=Parallel.fsdp)))
    assert (error.field, str(error.value)) == ("engine.parallel", "fsdp")
    assert "engine=other computes with whole parameters" in str(error)
    assert not problems(make_run(engine=OtherEngineConfig()))


def test_alone_there_is_nothing_to_share(folders: Path, real_data: TokenData) -> None:
    trainer = made(ALONE, jobs(folders, "one", [FSDP])[0], real_data.folder)
    assert not any(is_part(p) for p in trainer.model.parameters())
