"""Every balancer with every optimizer, eager and compiled: twenty steps on the device, as the CPU takes them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers import CPU
from on_device import DEVICE, MARKS, STEPS, losses, trainer

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.data.memmap import TokenData

pytestmark = MARKS
BALANCERS, OPTIMIZERS = sorted(REGISTRY["balancer"]), sorted(REGISTRY["optimizer"])


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory, real_data: TokenData) -> object:
    """The losses of (balancer, optimizer) on the CPU in float32, each trained once."""

    @cache
    def of(balancer: str, optimizer: str) -> list[float]:
        folder = tmp_path_factory.mktemp("cpu")
        return losses(trainer(real_data, folder, CPU, f"balancer={balancer}", f"optimizer={optimizer}"))

    return of


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")  # what inductor imports
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("balancer", BALANCERS)
@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_twenty_steps(
    way: str, balancer: str, optimizer: str, references: object, folders: Path, real_data: TokenData
) -> None:
    torch._dynamo.reset()  # or graphs of earlier cases count towards the limit of recompilations
    line = (f"balancer={balancer}", f"optimizer={optimizer}", f"engine.compile={str(way == 'compiled').lower()}")
    one = trainer(real_data, folders, DEVICE, *line)
    assert one.compiling.on == (way == "compiled")
    found = losses(one)
    assert len(found) == STEPS
    assert all(math.isfinite(loss) for loss in found)
    assert callable(references)
    assert found == pytest.approx(references(balancer, optimizer), rel=0.02)
    assert found[-1] < found[0]
