"""bfloat16 and float32 on a device against float32 on the CPU: every balancer, gate and mask."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import CPU
from on_device import DEVICE, MARKS, ids, losses, trainer

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.data.memmap import TokenData

pytestmark = MARKS
BALANCERS = [(f"balancer={kind}",) for kind in sorted(REGISTRY["balancer"])]
OTHERS = [
    ("balancer=lossfree", "router=sigmoid"),
    ("experts=dense",),
    ("data.mask_documents=true",),
    ("data.mask_documents=true", "model.qk_norm=true"),
    ("engine.expert_backend=loop",),
    ("lr_split=batch_fraction",),
]


@pytest.mark.parametrize("line", [*BALANCERS, *OTHERS], ids=ids([*BALANCERS, *OTHERS]))
def test_float32_takes_the_steps_of_the_cpu(folders: Path, real_data: TokenData, line: tuple[str, ...]) -> None:
    """Sums have another order: a thousandth after twenty steps."""
    float32 = (*line, "trainer.precision=float32")
    found = losses(trainer(real_data, folders / "device", DEVICE, *float32))
    assert found == pytest.approx(losses(trainer(real_data, folders / "cpu", CPU, *float32)), rel=1e-3)


@pytest.mark.parametrize("line", [*BALANCERS, *OTHERS], ids=ids([*BALANCERS, *OTHERS]))
def test_bfloat16_ends_where_float32_on_the_cpu_does(
    folders: Path, real_data: TokenData, line: tuple[str, ...]
) -> None:
    on_device = trainer(real_data, folders / "device", DEVICE, *line)
    assert on_device.compute.autocast == (DEVICE.type == "cuda")
    found = on_device.train(lambda: False)["val_loss"]
    expected = trainer(real_data, folders / "cpu", CPU, *line).train(lambda: False)["val_loss"]
    assert found == pytest.approx(expected, rel=0.02)
