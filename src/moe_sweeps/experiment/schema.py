"""RunConfig: everything that one training run needs to know, typed and validated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

from moe_sweeps.balancing import BalancerConfig

# Importing a component module registers its configs.
from moe_sweeps.config.fork import ForkConfig
from moe_sweeps.config.groups import (
    AuxConfig,
    EngineConfig,
    ExpertsConfig,
    LaunchConfig,
    ModelConfig,
    Parallel,
    PathsConfig,
    TrainerConfig,
)
from moe_sweeps.config.outside import load_components
from moe_sweeps.config.registry import LARGEST_SEED, REGISTRY, Component, broken_bounds, knob
from moe_sweeps.config.search import SearchConfig
from moe_sweeps.config.tracking import TrackingConfig
from moe_sweeps.data.config import DataConfig
from moe_sweeps.engines.megatron.config import MegatronConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import RouterConfig
from moe_sweeps.optim.build import OptimizerConfig
from moe_sweeps.optim.lr_split import LrSplitConfig
from moe_sweeps.optim.schedule import ScheduleConfig
from moe_sweeps.paths import CONF


@dataclass(slots=True)
class RunConfig:
    """One training run. The groups hold the component that was chosen; the rest are single knobs."""

    model: ModelConfig = knob(doc="sizes of the transformer")
    experts: ExpertsConfig = knob(doc="the feed-forward networks: how many experts, how large, how many a token uses")
    router: RouterConfig = knob(doc="the gate: how scores become picks and weights")
    balancer: BalancerConfig = knob(doc="what keeps the loads of the experts even")
    aux: AuxConfig = knob(doc="the auxiliary load-balancing loss, for balancers that have one")
    lr_split: LrSplitConfig = knob(doc="learning rates of experts, router and the rest, as multiples of one rate")
    optimizer: OptimizerConfig = knob(doc="the update rule")
    schedule: ScheduleConfig = knob(doc="the learning rate over the steps")
    data: DataConfig = knob(doc="the text and its tokenizer")
    trainer: TrainerConfig = knob(doc="length and batch of training; evaluation, logging, checkpoints")
    engine: EngineConfig = knob(doc="what builds the model, and the device it runs on")
    tracking: TrackingConfig = knob(doc="wandb or TensorBoard beside the run folder")
    launch: LaunchConfig = knob(doc="where the runs of a sweep are trained: this machine or SLURM")
    search: SearchConfig = knob(doc="with -m: trials chosen by a sampler instead of a grid")
    fork: ForkConfig = knob(doc="runs that share their first steps, and differ from there on")
    seed: int = knob(
        0,
        ge=0,
        le=LARGEST_SEED,
        doc="seed of the initial weights, and of the batches unless data_seed is set; the replicate axis",
    )
    data_seed: int | None = knob(None, ge=0, le=LARGEST_SEED, doc="seed of the batches; null: the same as seed")
    name: str | None = knob(None, infra=True, doc="first part of the run folder's name; null: scale and balancer")
    scale: str = knob("proxy", infra=True, doc="sizes, steps and batch in one word; --help lists them")
    compat: str = knob("none", infra=True, doc="talk: the choices of the talk where they differ (docs/fidelity.md)")
    paths: PathsConfig = knob(factory=PathsConfig, infra=True, doc="folders of runs, data and reports")

    def groups(self) -> Iterator[tuple[str, Component]]:
        """(group name, chosen component) in declaration order."""
        return ((group, getattr(self, group)) for group in GROUP_TYPES)

    @property
    def effective_data_seed(self) -> int:
        """The seed of the batches."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def first_step(self) -> int:
        """Steps that a trunk has trained before this run begins."""
        return self.fork.step if self.fork.continues and self.fork.step else 0

    @property
    def last_step(self) -> int:
        """The step after which the run ends. A trunk ends early; its schedule is that of all steps."""
        return self.fork.step if self.fork.is_trunk and self.fork.step else self.trainer.steps

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
    "fork": ForkConfig,
}
# Groups that are younger than some frozen configs -> the kind that does what was done before.
KIND_WHERE_ABSENT = {"search": "none", "fork": "default"}


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


# Importing registers the gates that have a module of their own, and what installed packages bring. This stands at the
# end, since those may import what is above. By name: an import of the package would make all that it exports part of
# every run's code version.
MODEL = RouterConfig.__module__.rpartition(".")[0]
for _module in iter_modules(import_module(MODEL).__path__):
    import_module(f"{MODEL}.{_module.name}")
load_components(CONF)

__all__ = ["GROUP_TYPES", "KIND_WHERE_ABSENT", "REGISTRY", "MegatronConfig", "RunConfig", "problems", "validate"]
