"""Every arm of every built-in sweep takes a step at scale=smoke."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_sweeps.launch.probe import random_tokens
from moe_sweeps.paths import SWEEPS
from moe_sweeps.sweep.manipulation import first_of_each_arm
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.sweep.trace import trace

STEPPED: set[str] = set()  # sweeps share arms; each takes its step once a process


@pytest.mark.parametrize("name", sorted(p.stem for p in SWEEPS.glob("*.yaml")))
def test_every_arm_takes_a_step(folders: Path, name: str) -> None:
    for planned in first_of_each_arm(make_plan([f"sweep={name}", "scale=smoke"])):
        if planned.run_id in STEPPED:
            continue
        found = trace(planned.run, random_tokens(planned.run), 1)
        assert list(found.channels["loss"]) == [1], planned.label
        STEPPED.add(planned.run_id)
