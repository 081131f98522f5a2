"""What cannot fit on a device is refused with the settings that would fit, and these do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers import CPU, compose_run
from megatron_helpers import needs_megatron

from moe_sweeps.errors import ConfigError
from moe_sweeps.training.memory import run_memory
from moe_sweeps.training.too_large import OTHERWISE, require_bytes, require_device

GB = 10**9
E128 = ("scale=talk_e128", "trainer.precision=bfloat16")


def fix_of(*line: str, most: float = 80 * GB, processes: int = 1) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        require_bytes(compose_run(*line), processes, int(most), "a GPU has")
    return caught.value


@pytest.mark.parametrize(("optimizer", "needs"), [("shampoo", "128.0"), ("soap", "120.0")])
def test_a_large_state_is_refused_by_the_name_of_its_optimizer(optimizer: str, needs: str) -> None:
    error = fix_of(*E128, f"optimizer={optimizer}")
    assert (error.field, error.value) == ("optimizer", optimizer)
    assert f"needs at least {needs} GB of memory (weights 14.8 GB, gradients 14.8 GB, optimizer" in error.rule
    assert error.rule.endswith("and a GPU has 80.0 GB")
    assert error.fix.startswith("These would fit with optimizer=adamw, or with optimizer=adamw engine.parallel=fsdp ")
    require_bytes(compose_run(*E128, "optimizer=adamw"), 1, 80 * GB, "")


@pytest.mark.parametrize(("most", "processes", "share"), [(40, 2, 20), (24, 4, 10), (12, 8, 5)])
def test_the_number_of_processes_that_it_names_is_enough_and_half_is_not(most: int, processes: int, share: int) -> None:
    error = fix_of(*E128, most=most * GB)
    micro = f"trainer.micro_batch_size={share}"
    assert (error.field, error.value) == ("scale", "talk_e128")
    assert error.fix == f"These would fit with engine.parallel=fsdp {micro} in {processes} processes with a GPU each."
    run = compose_run(*E128, "engine.parallel=fsdp", micro)
    require_bytes(run, processes, most * GB, "")
    half = compose_run(*E128, "engine.parallel=fsdp", f"trainer.micro_batch_size={2 * share}")
    with pytest.raises(ConfigError):
        require_bytes(half, processes // 2, most * GB, "")


def test_a_byte_decides() -> None:
    run = compose_run(*E128)
    certain = run_memory(run, on_gpu=True).certain
    require_bytes(run, 1, certain, "")
    with pytest.raises(ConfigError):
        require_bytes(run, 1, certain - 1, "")


def test_where_nothing_fits_it_says_so() -> None:
    assert fix_of(*E128, most=GB // 100).fix == OTHERWISE


@needs_megatron
def test_megatrons_experts_are_whole_in_every_process() -> None:
    line = (*E128, "engine=megatron", "engine.device=cpu", "engine.expert_parallel=8", "trainer.micro_batch_size=5")
    error = fix_of(*line, most=40 * GB, processes=8)
    assert "weights 14.8 GB" in error.rule
    assert error.fix == OTHERWISE


def test_a_process_asks_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(total_memory=24 * GB, name="NVIDIA L4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    run = compose_run(*E128)
    require_device(run, CPU)
    with pytest.raises(ConfigError, match=r"and this GPU \(NVIDIA L4\) has 24\.0 GB"):
        require_device(run, torch.device("cuda", 0))
    shared = compose_run(*E128, "engine.parallel=fsdp", "trainer.micro_batch_size=5")
    require_device(shared, torch.device("cuda", 0), processes=8)
