"""The config of engine=megatron, and every setting that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from moe_sweeps.balancing import BiasTarget, LossFreeConfig
from moe_sweeps.config.groups import (
    AuxScope,
    EngineConfig,
    ExpertBackend,
    MoEExpertsConfig,
    Parallel,
    Precision,
    RouterNoise,
)
from moe_sweeps.config.registry import component, knob
from moe_sweeps.engines.megatron import shim
from moe_sweeps.errors import ConfigError
from moe_sweeps.host.devices import Device
from moe_sweeps.model.router import SigmoidConfig, SoftmaxTopkConfig, TopkSoftmaxConfig

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run

BALANCERS = ("none", "aux", "lossfree", "aux_lossfree")
NATIVE = "Use engine=native, which does."


@component("engine", "megatron")
@dataclass(slots=True)
class MegatronConfig(EngineConfig):
    """The model computed by megatron-core: its attention, router, dispatcher, experts and cross-entropy.

    Unlike engine=native it is part of a run's identity, because its sums round differently. Knobs that are
    infrastructure in the native engine are so here, too. `expert_backend` `loop` is SequentialMLP, `grouped` the
    grouped GEMM of Transformer Engine on a GPU, and `auto` the latter where it is installed.
    """

    INFRA: ClassVar[bool] = False
    kind: str = "megatron"
    device: Device = knob(Device.auto, infra=True)
    expert_backend: ExpertBackend = knob(ExpertBackend.auto, infra=True)
    expert_parallel: int = knob(1, ge=1, infra=True, doc="processes that share the experts of a layer among them")
    tensor_parallel: int = knob(1, ge=1, infra=True, doc="must be 1: tensor parallelism is not supported")

    def check(self, run: Run) -> Iterator[ConfigError]:
        found = shim.problem(on_cpu=self._on_cpu(run))
        if found:
            yield found
        yield from self._machine(run)
        if run.trainer.precision is Precision.mixed and self._on_cpu(run):
            rule = "on CPU its products are those of the native engine, which Megatron does not have"
            yield ConfigError("trainer.precision", "mixed", rule, "Use precision=bfloat16, or engine=native.")
        if isinstance(run.experts, MoEExpertsConfig):
            yield from _router(run)
            yield from _picks(run, run.experts)
            yield from _balancer(run)

    def _on_cpu(self, run: Run) -> bool:
        """Whether the run is known to train on a CPU. For a job on a cluster that is decided there."""
        here = run.launch.kind == "local" and self.device is Device.auto and shim.is_needed()
        return here or self.device is Device.cpu

    def _machine(self, run: Run) -> Iterator[ConfigError]:
        if self.tensor_parallel > 1:
            without = "" if torch.cuda.is_available() else "Megatron's MoE needs CUDA for it, which is not here, and "
            rule = (
                f"{without}every process of a run trains on sequences of its own, while tensor parallelism shares them"
            )
            yield ConfigError("engine.tensor_parallel", self.tensor_parallel, rule, "Use engine.expert_parallel.")
        if self.parallel is not Parallel.ddp:
            rule = "Megatron gets whole parameters at every call"
            yield ConfigError("engine.parallel", self.parallel.value, rule, "Use engine.parallel=ddp or engine=native.")
        if self.compile:
            rule = "Megatron compiles functions of its own, on a GPU"
            yield ConfigError("engine.compile", True, rule, "Leave it out, or use engine=native.")
        if self.expert_backend is ExpertBackend.grouped and not can_fuse(self._on_cpu(run)):
            rule = "Megatron's grouped GEMM needs Transformer Engine and a GPU, and one of them is missing"
            fix = "Use engine.expert_backend=auto, which falls back to the loop over experts."
            yield ConfigError("engine.expert_backend", self.expert_backend.value, rule, fix)
        experts = run.experts.num_experts if isinstance(run.experts, MoEExpertsConfig) else 1
        if experts % self.expert_parallel:
            rule = f"it must divide the number of experts, which is {experts}"
            yield ConfigError("engine.expert_parallel", self.expert_parallel, rule, "Use a divisor.")


def can_fuse(on_cpu: bool) -> bool:
    """Whether Transformer Engine's kernels can be used."""
    return not on_cpu and shim.installed_version("transformer-engine") is not None


def _router(run: Run) -> Iterator[ConfigError]:
    router = run.router
    if not isinstance(router, TopkSoftmaxConfig | SoftmaxTopkConfig | SigmoidConfig):
        yield ConfigError("router", router.kind, "Megatron's router has no such gate", NATIVE)
    if router.temperature != 1:
        yield ConfigError("router.temperature", router.temperature, "Megatron does not divide logits", NATIVE)
    if router.input_dropout:
        rule = "Megatron's router drops nothing of its input"
        yield ConfigError("router.input_dropout", router.input_dropout, rule, NATIVE)
    if router.noise is not RouterNoise.none:
        rule = "Megatron's router puts no noise on its logits"
        yield ConfigError("router.noise", router.noise.value, rule, NATIVE)


def _picks(run: Run, experts: MoEExpertsConfig) -> Iterator[ConfigError]:
    """With one pick, a normalised weight is 1 by definition, which Megatron refuses or does not follow."""
    if experts.top_k == 1 and not (isinstance(run.router, SoftmaxTopkConfig) and not run.router.renormalize):
        rule = f"for one pick Megatron does not normalise weights as router={run.router.kind} does"
        yield ConfigError("experts.top_k", 1, rule, "Use router=softmax_topk or engine=native.")


def _balancer(run: Run) -> Iterator[ConfigError]:
    balancer = run.balancer
    if balancer.kind not in BALANCERS:
        yield ConfigError("balancer", balancer.kind, f"Megatron here has {', '.join(BALANCERS)}", NATIVE)
    if "aux" in balancer.READS and run.aux.scope is AuxScope["global"]:
        rule = "Megatron's global loss averages the counts of the micro-batches so far, not those of the whole step"
        yield ConfigError("aux.scope", run.aux.scope.name, rule, "Use aux.scope=micro or sequence, or engine=native.")
    if not isinstance(balancer, LossFreeConfig):
        return
    if not isinstance(run.router, SigmoidConfig):
        rule = f"stock Megatron adds an expert bias to sigmoid scores alone, and router={run.router.kind} has softmax"
        yield ConfigError("balancer", balancer.kind, rule, "Use router=sigmoid, or engine=native, which does it.")
    elif balancer.bias_on is BiasTarget.logits:
        rule = "Megatron adds the expert bias to scores"
        yield ConfigError("balancer.bias_on", balancer.bias_on.value, rule, "Use scores, or engine=native.")
