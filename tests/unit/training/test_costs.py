"""What a run cost: every summary has its speed, its MFU and its peak memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import CPU, make_run

from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.host.hardware import peak_memory
from moe_sweeps.host.peak import Peak
from moe_sweeps.model.precision import Compute
from moe_sweeps.training import costs as costs_module
from moe_sweeps.training.clock import Clock
from moe_sweeps.training.costs import costs

SPENT = Clock(train_seconds=2.0, wall_seconds=3.0)
RUN = make_run(trainer=TrainerConfig(batch_size=4, micro_batch_size=2, seq_len=32))


@pytest.mark.parametrize(("autocast", "processes", "share"), [(False, 1, 1.0), (False, 2, 0.5), (True, 2, 0.5)])
def test_speed_and_its_share_of_what_the_devices_can_do(
    autocast: bool, processes: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_token = costs(RUN, 2048, 100, SPENT, Compute(CPU, False))["flops_per_token"]
    peaks = {torch.float32: 6400.0 * per_token, torch.bfloat16: 12800.0 * per_token}
    monkeypatch.setattr(costs_module, "peak_of", lambda device, dtype: Peak({"torch_mm": 1.0, "onednn": peaks[dtype]}))
    found = costs(RUN, 2048, 100, SPENT, Compute(CPU, autocast), processes)
    # 100 steps of 4 x 32 tokens in 2 s
    assert (found["tokens"], found["tokens_per_second"], found["seconds_per_step"]) == (12_800, 6400.0, 0.02)
    assert (found["share_of_peak"], found["peak_gflops_torch_mm"]) == (share, 0.0)
    assert found["peak_gflops"] == found["peak_gflops_onednn"] > 0
    assert found["peak_memory_bytes"] == peak_memory(CPU)


def test_the_peak_of_a_process_grows_with_what_it_touches() -> None:
    before = peak_memory(CPU)
    assert 2**24 < before < 2**40
    touched = np.ones(before // 8 + 2**23)  # as much as the most so far, and 64 MiB
    assert peak_memory(CPU) > before + 2**25
    assert touched[-1] == 1


@pytest.mark.parametrize(("autocast", "peak"), [(True, 2.0), (False, 1.0)])
def test_a_gpu_is_measured_in_the_precision_of_the_run(
    autocast: bool, peak: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {torch.float32: 1e9, torch.bfloat16: 2e9}
    monkeypatch.setattr(costs_module, "peak_of", lambda device, dtype: Peak({"torch_mm": peaks[dtype]}))
    found = costs_module.share_of_peak(1e9, Compute(torch.device("cuda"), autocast))
    assert found == {"peak_gflops": peak, "peak_gflops_torch_mm": peak, "share_of_peak": 1 / peak}
