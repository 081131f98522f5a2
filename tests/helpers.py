"""What many tests share."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from moe_sweeps.balancing import NoBalancerConfig
from moe_sweeps.config.fork import ForkConfig
from moe_sweeps.config.groups import (
    AuxConfig,
    EngineConfig,
    LaunchConfig,
    ModelConfig,
    MoEExpertsConfig,
    TrainerConfig,
)
from moe_sweeps.config.search import SearchConfig
from moe_sweeps.config.tracking import TrackingConfig
from moe_sweeps.data.config import CorpusConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment import compose as composing
from moe_sweeps.experiment import fast_compose, options
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.router import TopkSoftmaxConfig
from moe_sweeps.model.transformer import Transformer
from moe_sweeps.optim.build import AdamWConfig
from moe_sweeps.optim.lr_split import MatchedConfig
from moe_sweeps.optim.schedule import OneCycleCosineConfig
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.comparing import without_clock
from moe_sweeps.sweep.grid import single
from moe_sweeps.training.trainer import Trainer

CPU = torch.device("cpu")
# A run of about a second, for tests of the machinery around training.
TINY = (
    "scale=smoke_v1",  # tests know ids of such runs
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
        "search": SearchConfig(),
        "fork": ForkConfig(),
    }
    return RunConfig(**(components | overrides))


def with_gains(model: Transformer) -> Transformer:
    """The model with QK-norm gains that differ from 1 and from each other, so that a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(3)
    for name, param in model.named_parameters():
        if "qk_norm" in name:
            param.data.uniform_(0.5, 1.5, generator=generator)
    return model


def forget_compositions() -> None:
    """For tests that change conf/ or the registry: what was composed before counts no more."""
    for module in (options, fast_compose, composing):
        for cached in vars(module).values():
            if hasattr(cached, "cache_clear") and cached.__module__ == module.__name__:
                cached.cache_clear()


class Silent:
    """An observer that says nothing."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...


def never() -> bool:
    return False


def trainer(run: RunConfig, data: TokenData) -> Trainer:
    """The trainer of a run with a folder of its own."""
    return Trainer(run, freeze(run, [], command="test"), data, CPU, Silent())


def records(folder: RunDir, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The lines of a log, without what depends on the clock."""
    lines = (folder.path / name).read_text().splitlines()
    return [without_clock(json.loads(line)) for line in lines]


def without_times(summary: dict[str, Any] | None) -> dict[str, Any]:
    assert summary is not None
    return without_clock(summary)


QUIET = 0.19  # CPU seconds of `_yardstick` on the slowest machine that these bounds were met on, a Zen 3, quiet


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """CPU seconds of the block on that machine. What runs beside it slows a core down (caches, hyperthreads), and that
    is measured before and after; a faster machine gets no more time."""
    before, started = _yardstick(), time.process_time()
    yield
    took = time.process_time() - started
    slowdown = max(1.0, (before + _yardstick()) / 2 / QUIET)
    assert took < seconds * slowdown, f"{took:.2f} CPU s, where a quiet core is {slowdown:.2f} times as fast"


def _yardstick() -> float:
    """CPU seconds of a fixed piece of plain Python."""
    started, counts = time.process_time(), dict.fromkeys(map(str, range(1000)), 0)
    for i in range(300_000):
        counts[str(i % 1000)] = counts[str(i % 1000)] + i
    return time.process_time() - started
