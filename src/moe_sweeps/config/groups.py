"""Configs of the groups that have no code of their own: sizes, training length, machine, folders.

Components with behaviour (balancers, routers, learning-rate splits, optimizers, schedules, data) keep their config
beside that behaviour. Everything here is plain data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, Component, Unread, component, knob
from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


class Precision(Enum):
    """Arithmetic of the model outside the router, which is always float32."""

    auto = "auto"  # float32 on CPU, bfloat16 autocast on GPU
    float32 = "float32"
    bfloat16 = "bfloat16"


class Device(Enum):
    """Where a run is trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class ExpertBackend(Enum):
    """How the experts' matrix products are executed; the results agree to rounding."""

    auto = "auto"  # grouped where the shapes allow it, else loop
    grouped = "grouped"
    loop = "loop"


class Parallel(Enum):
    """What the processes of one run share out; the results agree to rounding."""

    ddp = "ddp"  # the batch: each has the whole model
    fsdp = "fsdp"  # the model, too: each keeps a part of parameters, gradients and optimizer state


class KernelChoice(Enum):
    """What runs between the matrix products of a model in float32 on CPU; the results agree to rounding."""

    auto = "auto"  # compiled where there is a C++ compiler, or where there was one before, else torch
    compiled = "compiled"
    torch = "torch"


@component("model", "llama")
@dataclass(slots=True)
class ModelConfig(Component):
    """LLaMA-style decoder: RMSNorm, rotary positions, SwiGLU, no biases, tied embedding."""

    kind: str = "llama"
    layers: int = knob(4, ge=1)  # transformer blocks
    width: int = knob(64, ge=1)  # of the residual stream
    heads: int = knob(4, ge=1)  # of attention; they divide the width
    norm_eps: float = knob(1e-5, gt=0)  # added to the mean square in RMSNorm
    rope_theta: float = knob(10000.0, gt=0)  # base of the rotary frequencies
    init_std: float = knob(0.02, gt=0)  # standard deviation of initial weights

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        if self.width % self.heads:
            rule = f"the width ({self.width}) must be divisible by the number of heads"
            yield ConfigError("model.heads", self.heads, rule, f"Use a divisor of {self.width}.")
        elif self.head_dim % 2:
            rule = f"rotary positions need an even head size, and {self.width}/{self.heads} = {self.head_dim} is odd"
            yield ConfigError("model.heads", self.heads, rule, "Change model.heads or model.width.")


@dataclass(slots=True)
class ExpertsConfig(Component):
    """What stands in the place of every feed-forward network."""

    ffn_hidden: int = knob(176, ge=1)  # hidden width of one SwiGLU expert

    @property
    def is_moe(self) -> bool:
        return isinstance(self, MoEExpertsConfig)


@component("experts", "moe")
@dataclass(slots=True)
class MoEExpertsConfig(ExpertsConfig):
    """`num_experts` SwiGLU experts of hidden size `ffn_hidden`, of which each token uses `top_k`."""

    kind: str = "moe"
    num_experts: int = knob(8, ge=1)  # of each layer
    top_k: int = knob(2, ge=1)  # experts that compute a token

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        if self.top_k > self.num_experts:
            rule = f"a token cannot use more experts than there are ({self.num_experts})"
            yield ConfigError("experts.top_k", self.top_k, rule, f"Use experts.top_k<={self.num_experts}.")


@component("experts", "dense")
@dataclass(slots=True)
class DenseFFNConfig(ExpertsConfig):
    """One SwiGLU of hidden size `active_experts * ffn_hidden`: the active parameters of a top-k MoE, no router."""

    kind: str = "dense"
    active_experts: int = knob(2, ge=1)  # the dense FFN is so many times `ffn_hidden` wide


@component("trainer", "default")
@dataclass(slots=True)
class TrainerConfig(Component):
    """Length, batch and rhythm of training. One update uses `batch_size` sequences over all ranks and micro-batches."""

    GONE: ClassVar[frozenset[str]] = frozenset(
        {"eval_batches"}
    )  # eval_sequences counts what a batch size cannot change
    kind: str = "default"
    steps: int = knob(2000, ge=1)  # optimizer updates
    batch_size: int = knob(8, ge=1)  # sequences an update, over all processes
    micro_batch_size: int = knob(8, ge=1)  # sequences of one forward and backward pass
    seq_len: int = knob(128, ge=1)  # tokens of a sequence
    grad_clip: float = knob(1.0, ge=0)  # global norm; 0 turns clipping off
    precision: Precision = knob(Precision.auto)
    log_every: int = knob(20, ge=1, infra=True)  # steps between lines of metrics.jsonl
    eval_every: int = knob(250, ge=1, infra=True)  # steps between evaluations
    eval_batch_size: int = knob(32, ge=1, infra=True)  # sequences at a time; changes no result but its rounding
    eval_sequences: int = knob(256, ge=1, infra=True)  # of evaluations during training, spread over the validation set
    final_eval_sequences: int | None = knob(None, ge=1, neutral=None)  # null: the whole validation set
    # Steps and minutes between checkpoints, whichever come first. null and null: as often as costs little (saving.py).
    checkpoint_every: int | None = knob(None, ge=1, infra=True)
    checkpoint_minutes: float | None = knob(None, gt=0, infra=True)  # the same by the clock
    keep_checkpoints: int = knob(2, ge=1, infra=True)  # the newest so many
    # Evaluate, save and stop after this step; without it, or with a later one, the run goes on from there. The schedule
    # is that of all steps, so where a run stopped on its way changes no result.
    stop_at: int | None = knob(None, ge=1, infra=True)
    monitor: bool = knob(True, infra=True)  # routing.jsonl
    # Every n-th step is timed by its parts; 0: none. An n that divides an optimizer's period favours its dear steps.
    time_every: int = knob(1, ge=0, infra=True)
    # The router has collapsed after so many steps with MaxVio above this share of its maximum; see health.py.
    collapse_threshold: float = knob(0.9, gt=0, lt=1, neutral=0.9)
    collapse_patience: int = knob(100, ge=1, neutral=100)  # steps in a row
    stop_on_collapse: bool = knob(False, neutral=False)  # end the run there; else it is marked and goes on

    @property
    def micro_batches(self) -> int:
        return self.batch_size // self.micro_batch_size

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.seq_len

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        if self.batch_size % self.micro_batch_size:
            rule = f"the batch of {self.batch_size} sequences must split into micro-batches of equal size"
            fix = f"Use a divisor of {self.batch_size}."
            yield ConfigError("trainer.micro_batch_size", self.micro_batch_size, rule, fix)

    def unread(self, run: RunConfig) -> dict[str, Unread]:
        health = ("collapse_threshold", "collapse_patience", "stop_on_collapse")
        return {} if run.experts.is_moe else dict.fromkeys(health, DENSE_HAS_NO_ROUTER)


@component("engine", "native")
@dataclass(slots=True)
class EngineConfig(Component):
    """What builds the model and where it runs."""

    INFRA: ClassVar[bool] = True
    kind: str = "native"
    device: Device = Device.auto  # auto: CUDA where there is one
    expert_backend: ExpertBackend = ExpertBackend.auto
    # Read where several processes train one run.
    parallel: Parallel = knob(Parallel.ddp, infra=True, neutral=Parallel.ddp)
    kernels: KernelChoice = knob(KernelChoice.auto, infra=True, neutral=KernelChoice.auto)
    # torch.compile; null: where it pays within the run's length
    compile: bool | None = knob(None, infra=True, neutral=None)

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        # 16 bytes. Under precision=auto a GPU means bfloat16, which the model itself then refuses.
        multiple = 8 if run.trainer.precision is Precision.bfloat16 else 4
        sizes = (run.model.width, run.experts.ffn_hidden)
        if self.expert_backend is ExpertBackend.grouped and any(size % multiple for size in sizes):
            rule = f"grouped GEMM needs model.width and experts.ffn_hidden to be multiples of {multiple}, not {sizes}"
            fix = "Use engine.expert_backend=auto, which falls back to the loop over experts."
            yield ConfigError("engine.expert_backend", self.expert_backend.value, rule, fix)


@component("launch", "local")
@dataclass(slots=True)
class LaunchConfig(Component):
    """Runs of a sweep on this machine. null means: decided from the number of cores."""

    INFRA: ClassVar[bool] = True
    kind: str = "local"
    workers: int | None = knob(None, ge=1)  # processes at a time; null: one a core, or a GPU
    threads: int | None = knob(None, ge=1)  # of each process; null: its share of the cores, up to 4
    # Train from a copy of the sources as they were at submission, so that they can be edited meanwhile.
    snapshot: bool = knob(False, neutral=False)
    # A run whose worker keeps dying is given up after so many attempts in a row that reached no new checkpoint.
    max_attempts_without_progress: int = knob(3, ge=1, neutral=3)
    # Runs side by side: on SLURM in one job, on this machine on one GPU. Without a GPU `workers` alone decides.
    pack: int = knob(1, ge=1, neutral=1)


@component("launch", "slurm")
@dataclass(slots=True)
class SlurmConfig(LaunchConfig):
    """Runs as SLURM jobs, an array for all that ask alike. null means: decided from the run, or left to SLURM."""

    kind: str = "slurm"
    snapshot: bool = True  # jobs may start days after the sources were edited
    nodes: int = knob(1, ge=1)  # of each run
    tasks_per_node: int = knob(1, ge=1)  # processes of a run on each node
    cpus_per_task: int | None = knob(None, ge=1)  # null: as many as threads and pack need
    gpus_per_node: int | None = knob(None, ge=0)  # null: one a task, none with engine.device=cpu
    mem_gb: int | None = knob(None, ge=1)  # of a node; null: from the model
    minutes: int | None = knob(None, ge=1)  # of a job; null: from the estimate, up to the partition's limit
    partition: str | None = None  # null: the cluster's default
    account: str | None = None  # null: the user's default
    qos: str | None = None  # null: the default
    constraint: str | None = None  # features that a node must have
    exclude: str | None = None  # nodes to leave out
    sbatch: list[str] = field(default_factory=list)  # more options of sbatch: "mail-type=END"
    srun: list[str] = field(default_factory=list)  # more options of srun: "--container-image=..."
    setup: list[str] = field(default_factory=list)  # shell lines before training: "module load cuda"
    max_parallel: int | None = knob(None, ge=1)  # jobs of one array that run at the same time
    signal_seconds: int = knob(90, ge=1)  # the warning that SLURM gives before the time limit
    wait: bool = False  # follow the runs to their end
    dry_run: bool = False  # print the scripts, submit nothing

    def __post_init__(self) -> None:
        # omegaconf leaves its own nodes in lists that were set on the command line; they are no strings.
        self.sbatch, self.srun, self.setup = ([str(x) for x in xs] for xs in (self.sbatch, self.srun, self.setup))


@dataclass(slots=True)
class PathsConfig:
    """Folders; relative ones start at the repository root."""

    runs: str = "runs"
    data: str = "data"
    reports: str = "reports"
