"""Every registered learning-rate split keeps what every split must keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contracts import lr_splits

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.experiment.schema import RunConfig


@pytest.mark.parametrize("check", lr_splits.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", sorted(REGISTRY["lr_split"]))
def test_every_split_keeps_the_contract(kind: str, check: Callable[[RunConfig], None]) -> None:
    check(lr_splits.run_with(kind))
