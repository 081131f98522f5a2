"""What many tests share."""

from __future__ import annotations

from typing import Any

from moe_sweeps.balancing import AuxConfig, NoBalancerConfig
from moe_sweeps.config.groups import (
    EngineConfig,
    LaunchConfig,
    ModelConfig,
    MoEExpertsConfig,
    TrackingConfig,
    TrainerConfig,
)
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.config import CorpusConfig
from moe_sweeps.model.router import TopkSoftmaxConfig
from moe_sweeps.optim.build import AdamWConfig
from moe_sweeps.optim.lr_split import MatchedConfig
from moe_sweeps.optim.schedule import OneCycleCosineConfig


def make_run(**overrides: Any) -> RunConfig:
    """A RunConfig of default components, without Hydra: make_run(experts=MoEExpertsConfig(num_experts=16), seed=1)."""
    components: dict[str, Any] = {
        "model": ModelConfig(),
        "experts": MoEExpertsConfig(),
        "router": TopkSoftmaxConfig(),
        "balancer": NoBalancerConfig(),
        "aux": AuxConfig(),
        "lr_split": MatchedConfig(),
        "optimizer": AdamWConfig(),
        "schedule": OneCycleCosineConfig(),
        "data": CorpusConfig(),
        "trainer": TrainerConfig(),
        "engine": EngineConfig(),
        "tracking": TrackingConfig(),
        "launch": LaunchConfig(),
    }
    return RunConfig(**(components | overrides))
