"""Runs in processes of their own on one device: side by side, probed, and as the one rank of a process group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import compose_run, without_times
from on_device import DEVICE, MARKS, line_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from moe_sweeps.config.groups import Parallel
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.distributed.sharding import is_part, place, shard, whole
from moe_sweeps.engines.build import build_engine_model
from moe_sweeps.engines.filling import fill
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.launch.local import LocalSweep
from moe_sweeps.launch.probe_process import probe_apart
from moe_sweeps.model.transformer import Transformer, build_model, weights_digest
from moe_sweeps.records.rundir import RunDir, State

pytestmark = MARKS
ON = f"engine.device={DEVICE.type}"


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("real_data")
def test_a_pack_of_runs_on_one_device_is_what_they_are_alone(folders: Path) -> None:
    """Two workers at once, with CUDA MPS where it is installed, and one after the other."""
    found = []
    for name, workers in (("packed", 2), ("alone", 1)):
        lines = [line_of(ON, f"paths.runs={folders / name}", f"seed={seed}") for seed in (0, 1)]
        runs = [freeze(compose_run(*line), [], command="test") for line in lines]
        LocalSweep(list(runs), workers).run(lambda: None)
        assert [one.status().state for one in runs] == [State.done, State.done]
        found.append([without_times(one.summary()) for one in runs])
    for packed, alone in zip(*found, strict=True):
        assert packed["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-4)


@pytest.mark.timeout(600)
def test_a_probe_gives_the_device_back(folders: Path) -> None:
    before = torch.cuda.mem_get_info()[0] if DEVICE.type == "cuda" else 0
    assert probe_apart(compose_run(*line_of(ON)), threads=1).seconds_per_step > 0
    if DEVICE.type == "cuda":
        assert torch.cuda.mem_get_info()[0] >= before - 2**26


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    backend = "cpu:gloo,cuda:nccl" if DEVICE.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dist.destroy_process_group()


def loss_of(model: nn.Module) -> torch.Tensor:
    tokens_BS = (torch.arange(64, device=DEVICE) * 7 % 97).view(2, 32)
    found = model(tokens_BS, tokens_BS).loss
    assert isinstance(found, torch.Tensor)
    return found


def empty(run: RunConfig, vocab: int) -> Transformer:
    return build_engine_model(run, vocab, None, DEVICE, empty=True)


@pytest.mark.usefixtures("group")
def test_one_rank_that_shards_its_model_computes_what_a_whole_one_does(folders: Path, real_data: TokenData) -> None:
    """The model is built empty, sharded, and filled where it lies."""
    run, vocab = compose_run(*line_of("engine.parallel=fsdp", "trainer.precision=float32")), real_data.vocab_size
    ours, theirs = empty(run, vocab), build_model(run, vocab).to(DEVICE)
    shard(ours, DEVICE, 1, autocast=False)
    fill(ours, run, vocab)
    assert all(is_part(param) for param in ours.parameters())
    assert weights_digest(ours) == weights_digest(theirs)
    for model in (ours, theirs):
        loss_of(model).backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None and b.grad is not None:
            torch.testing.assert_close(whole(a.grad), b.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.usefixtures("group")
def test_one_rank_as_a_replica_computes_what_it_does_alone(folders: Path, real_data: TokenData) -> None:
    run, vocab = compose_run(*line_of("trainer.precision=float32")), real_data.vocab_size
    model = empty(run, vocab)
    place(model, DEVICE, Parallel.ddp, 1, autocast=False)
    fill(model, run, vocab)
    alone = loss_of(model).item()
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
    found = loss_of(replica)
    found.backward()
    assert found.item() == pytest.approx(alone, rel=1e-5)
    assert all(param.grad is not None for name, param in model.named_parameters() if "router" not in name)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("real_data")
def test_a_worker_of_one_rank_trains_from_its_folder(folders: Path) -> None:
    run = freeze(compose_run(*line_of(ON)), [], command="test")
    LocalSweep([RunDir(run.path)], 1).run(lambda: None)
    summary = run.summary()
    assert summary is not None
    way = "peak_gflops_data_sheet" if "peak_gflops_data_sheet" in summary else "peak_gflops_torch_mm"
    assert 0 < summary["share_of_peak"] < 1
    assert summary["peak_gflops"] >= summary[way] > 0
