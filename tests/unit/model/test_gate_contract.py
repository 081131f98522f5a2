"""Every registered gate keeps what every gate must keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contracts import gates
from helpers import compose_run

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.model.router import RouterConfig


@pytest.mark.parametrize("check", gates.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", sorted(REGISTRY["router"]))
def test_every_gate_keeps_the_contract(kind: str, check: Callable[[RouterConfig], None]) -> None:
    check(compose_run(f"router={kind}").router)
