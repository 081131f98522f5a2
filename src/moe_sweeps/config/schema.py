"""RunConfig: everything that one training run needs to know, typed and validated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# Importing a component module registers its configs.
from moe_sweeps.balancing import AuxConfig, BalancerConfig
from moe_sweeps.config.groups import (
    EngineConfig,
    ExpertsConfig,
    LaunchConfig,
    ModelConfig,
    Parallel,
    PathsConfig,
    TrainerConfig,
)
from moe_sweeps.config.registry import REGISTRY, Component, broken_bounds, knob
from moe_sweeps.config.search import SearchConfig
from moe_sweeps.config.tracking import TrackingConfig
from moe_sweeps.data.config import DataConfig
from moe_sweeps.engines.megatron.config import MegatronConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import RouterConfig
from moe_sweeps.optim.build import OptimizerConfig
from moe_sweeps.optim.lr_split import LrSplitConfig
from moe_sweeps.optim.schedule import ScheduleConfig


@dataclass(slots=True)
class RunConfig:
    """One training run. The groups hold the component that was chosen; the rest are single knobs."""

    model: ModelConfig
    experts: ExpertsConfig
    router: RouterConfig
    balancer: BalancerConfig
    aux: AuxConfig
    lr_split: LrSplitConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    data: DataConfig
    trainer: TrainerConfig
    engine: EngineConfig
    tracking: TrackingConfig
    launch: LaunchConfig
    search: SearchConfig
    seed: int = knob(0, ge=0)  # of initial weights, and of the batches unless data_seed is set
    data_seed: int | None = knob(None, ge=0)  # null: follows seed
    name: str | None = knob(None, infra=True)  # null: made of scale, experts and balancer
    scale: str = knob("proxy", infra=True)  # sizes, steps and batch in one word; --help lists them
    compat: str = knob("none", infra=True)  # talk: the choices of the talk where they differ (docs/fidelity.md)
    paths: PathsConfig = field(default_factory=PathsConfig, metadata={"infra": True})

    def groups(self) -> Iterator[tuple[str, Component]]:
        """(group name, chosen component) in declaration order."""
        return ((group, getattr(self, group)) for group in GROUP_TYPES)

    @property
    def effective_data_seed(self) -> int:
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def run_name(self) -> str:
        """The readable half of the run folder's name."""
        return self.name or f"{self.scale}-{self.balancer.kind if self.experts.is_moe else 'dense'}"


GROUP_TYPES: dict[str, type[Component]] = {
    "model": ModelConfig,
    "experts": ExpertsConfig,
    "router": RouterConfig,
    "balancer": BalancerConfig,
    "aux": AuxConfig,
    "lr_split": LrSplitConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "data": DataConfig,
    "trainer": TrainerConfig,
    "engine": EngineConfig,
    "tracking": TrackingConfig,
    "launch": LaunchConfig,
    "search": SearchConfig,
}
# Groups that are younger than some frozen configs -> the kind that does what was done before.
KIND_WHERE_ABSENT = {"search": "none"}


def problems(run: RunConfig) -> list[ConfigError]:
    """Every rule that `run` breaks, bounds first: cross-component rules assume that single values make sense."""
    errors = list(broken_bounds("", run)) + list(_name_errors(run))
    for group, config in run.groups():
        errors += _kind_errors(group, config)
        errors += broken_bounds(f"{group}.", config)
    if not errors:
        for _, config in run.groups():
            errors += config.check(run)
        errors += _sharding_errors(run)
    return errors


def validate(run: RunConfig) -> RunConfig:
    """Return `run`, or raise the first `ConfigError` it deserves."""
    for error in problems(run):
        raise error
    return run


def _kind_errors(group: str, config: Component) -> Iterator[ConfigError]:
    declared = type(config).__dataclass_fields__["kind"].default
    if config.kind != declared:
        rule = "the kind is set by choosing an option of the group"
        yield ConfigError(f"{group}.kind", config.kind, rule, f"Write {group}={config.kind} instead.")


def _sharding_errors(run: RunConfig) -> Iterator[ConfigError]:
    """Rules of engine.parallel=fsdp, whichever engine and optimizer there are."""
    if run.engine.parallel is not Parallel.fsdp:
        return
    if run.engine.kind != "native":
        rule = f"engine={run.engine.kind} computes with whole parameters, which nothing would gather for it"
        yield ConfigError("engine.parallel", "fsdp", rule, "Use engine=native, or engine.parallel=ddp.")
    if run.engine.compile:
        rule = "a model whose weights are shared by processes is not compiled here"
        yield ConfigError("engine.compile", True, rule, "Use engine.compile=false, or engine.parallel=ddp.")
    if not run.optimizer.ELEMENTWISE:
        able = [kind for kind, cls in REGISTRY["optimizer"].items() if getattr(cls, "ELEMENTWISE", False)]
        rule = f"optimizer={run.optimizer.kind} works on whole matrices, of which a process would have some rows"
        fix = f"Use optimizer={' or '.join(able)}, or engine.parallel=ddp."
        yield ConfigError("engine.parallel", "fsdp", rule, fix)


def _name_errors(run: RunConfig) -> Iterator[ConfigError]:
    if run.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", run.name):
        rule = "a name is up to 80 letters, digits, '.', '_' or '-', beginning with a letter or digit"
        yield ConfigError("name", run.name, rule, "It becomes part of a folder's name.")


__all__ = ["GROUP_TYPES", "KIND_WHERE_ABSENT", "REGISTRY", "MegatronConfig", "RunConfig", "problems", "validate"]
