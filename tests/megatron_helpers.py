"""What the tests of engine=megatron share."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, compose_run

from moe_sweeps.balancing import Balancer, build_balancer
from moe_sweeps.engines.build import build_engine_model
from moe_sweeps.engines.megatron.shim import installed_version
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.transformer import Transformer

needs_megatron = pytest.mark.skipif(
    installed_version() is None, reason="megatron-core is not installed: pip install -e '.[megatron]'"
)
VOCAB = 256


def both(*line: str) -> dict[str, tuple[RunConfig, Transformer, Balancer]]:
    """Engine -> the run of `line`, its model and its balancer. Both engines begin with the same weights."""
    found = {}
    for engine in ("native", "megatron"):
        run = compose_run(f"engine={engine}", *line)
        found[engine] = run, build_engine_model(run, VOCAB, 0, CPU), build_balancer(run)
    return found


def batch(seed: int = 1, sequences: int = 4, length: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs and targets, (B, S) each."""
    tokens = torch.randint(0, VOCAB, (sequences, length + 1), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]
