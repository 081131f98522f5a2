"""What many tests share."""

from __future__ import annotations

from typing import Any

from moe_sweeps.balancing import AuxConfig, NoBalancerConfig
from moe_sweeps.config.compose import compose
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
from moe_sweeps.sweep.grid import single

# A run of about a second, for tests of the machinery around training.
TINY = (
    "scale=smoke",
    "model.width=16",
    "experts.ffn_hidden=16",
    "schedule.warmup_steps=4",
    "trainer.steps=24",
    "trainer.batch_size=4",
    "trainer.micro_batch_size=2",
    "trainer.seq_len=32",
    "trainer.log_every=4",
    "trainer.eval_every=8",
    "trainer.eval_batch_size=16",
    "trainer.eval_sequences=32",
    "trainer.final_eval_sequences=64",
    "trainer.checkpoint_every=5",
    "launch.threads=1",
)


def compose_run(*overrides: str) -> RunConfig:
    """The run of a command line."""
    return compose(single(overrides))


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
