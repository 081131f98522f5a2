"""Training on a CUDA device: bfloat16 autocast, grouped experts, resume. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import TINY, compose_run

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import Interrupted
from moe_sweeps.freeze import freeze
from moe_sweeps.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"),
]


class Silent:
    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...


def trainer(data: TokenData, device: str, *line: str) -> Trainer:
    run = compose_run(*TINY, *line, f"engine.device={device}")
    return Trainer(run, freeze(run, [], command="test"), data, torch.device(device), Silent())


@pytest.mark.parametrize("line", [["balancer=aux"], ["balancer=lossfree", "router=sigmoid"], ["experts=dense"]])
def test_bfloat16_on_a_gpu_ends_where_float32_on_the_cpu_does(
    folders: Path, real_data: TokenData, line: list[str]
) -> None:
    on_gpu = trainer(real_data, "cuda", *line, f"paths.runs={folders / 'gpu'}")
    assert on_gpu.compute.autocast
    found = on_gpu.train(lambda: False)["val_loss"]
    expected = trainer(real_data, "cpu", *line, f"paths.runs={folders / 'cpu'}").train(lambda: False)["val_loss"]
    assert found == pytest.approx(expected, rel=0.02)


def test_a_run_goes_on_where_it_stopped(folders: Path, real_data: TokenData) -> None:
    stopped = trainer(real_data, "cuda", "balancer=lossfree")
    with pytest.raises(Interrupted):
        stopped.train(lambda: stopped.step == 7)
    resumed = trainer(real_data, "cuda", "balancer=lossfree")
    resumed.train(lambda: False)
    assert resumed.step == 24
    assert [r["step"] for r in resumed.journal.metrics.records() if r["split"] == "train"] == [4, 8, 12, 16, 20, 24]
