"""Configs of the groups that have no code of their own: sizes, training length, machine, folders.

Components with behaviour (balancers, routers, learning-rate splits, optimizers, schedules, data) keep their config
beside that behaviour. Everything here is plain data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, Component, Unread, component, knob, readers_of
from moe_sweeps.errors import ConfigError
from moe_sweeps.host.devices import Device

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


class Precision(Choice):
    """Arithmetic of the model outside the router, which is always float32."""

    auto = "auto", "float32 on CPU, bfloat16 autocast on GPU"
    float32 = "float32"
    bfloat16 = "bfloat16"
    mixed = "mixed", "as bfloat16 on GPU; on CPU float32 with dense products in bfloat16"


class ExpertBackend(Choice):
    """How the experts' matrix products are executed; the results agree to rounding."""

    auto = "auto", "grouped where the shapes allow it, else loop"
    grouped = "grouped"
    loop = "loop"


class Parallel(Choice):
    """What the processes of one run share out; the results agree to rounding."""

    ddp = "ddp", "the batch: each has the whole model"
    fsdp = "fsdp", "the model, too: each keeps a part of parameters, gradients and optimizer state"


class KernelChoice(Choice):
    """What runs between the matrix products of a model in float32 on CPU; the results agree to rounding."""

    auto = "auto", "compiled where there is a C++ compiler, or where there was one before, else torch"
    compiled = "compiled", "for the processor's fastest instructions"
    avx512 = "avx512", "compiled for AVX-512"
    avx2 = "avx2", "compiled for AVX2, and torch's own dense products, as in earlier versions"
    torch = "torch"


class RouterNoise(Choice):
    """Noise on the logits in training; evaluation has none."""

    none = "none"
    fixed = "fixed", "z + noise_std * N(0, 1)"
    learned = "learned", "z + softplus(x W_noise) * N(0, 1), W_noise learned from 0 (arXiv 1701.06538)"


class AuxNormalization(Choice):
    """What "coefficient 0.1" means; docs/definitions.md has the conversions."""

    switch = "switch", "coef * mean over layers of L_norm"
    megatron = "megatron", "coef * sum over layers of L_norm"
    talk = "talk", "coef * mean over layers of sum_i (c_i/T) P_i"


# Tokens over which the loads f of the auxiliary loss are counted. Not a class, because "global" is a keyword, so the
# members are explained at the knob `aux.scope`.
AuxScope = Enum("AuxScope", ["micro", "sequence", "global"])


@component("model", "llama")
@dataclass(slots=True)
class ModelConfig(Component):
    """LLaMA-style decoder: RMSNorm, rotary positions, SwiGLU, no biases, tied embedding."""

    kind: str = "llama"
    layers: int = knob(4, ge=1, doc="number of transformer blocks")
    width: int = knob(64, ge=1, doc="width of the residual stream")
    heads: int = knob(4, ge=1, doc="attention heads; they must divide the width")
    norm_eps: float = knob(1e-5, gt=0, doc="added to the mean square in RMSNorm")
    rope_theta: float = knob(10000.0, gt=0, doc="base of the rotary frequencies")
    init_std: float = knob(0.02, gt=0, doc="standard deviation of the initial weights")
    qk_norm: bool = knob(
        False,
        neutral=False,
        doc=(
            "RMSNorm of each head's queries and keys before the rotation, with one learned gain per layer for queries "
            "and one for keys (arXiv 2302.05442 with RMSNorm, as in Qwen3, arXiv 2505.09388)"
        ),
    )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    def check(self, run: Run) -> Iterator[ConfigError]:
        if self.width % self.heads:
            rule = f"the width ({self.width}) must be divisible by the number of heads"
            yield ConfigError("model.heads", self.heads, rule, f"Use a divisor of {self.width}.")
        elif self.head_dim % 2:
            rule = f"rotary positions need an even head size, and {self.width}/{self.heads} = {self.head_dim} is odd"
            yield ConfigError("model.heads", self.heads, rule, "Change model.heads or model.width.")


@dataclass(slots=True)
class ExpertsConfig(Component):
    """The feed-forward networks of all layers."""

    ffn_hidden: int = knob(176, ge=1, doc="hidden width of one SwiGLU expert")

    @property
    def is_moe(self) -> bool:
        """Whether there is a router."""
        return isinstance(self, MoEExpertsConfig)


@component("experts", "moe")
@dataclass(slots=True)
class MoEExpertsConfig(ExpertsConfig):
    """`num_experts` SwiGLU experts of hidden size `ffn_hidden`, of which each token uses `top_k`."""

    kind: str = "moe"
    num_experts: int = knob(8, ge=1, doc="experts in each layer")
    top_k: int = knob(2, ge=1, doc="experts that process each token")

    def check(self, run: Run) -> Iterator[ConfigError]:
        if self.top_k > self.num_experts:
            rule = f"a token cannot use more experts than there are ({self.num_experts})"
            yield ConfigError("experts.top_k", self.top_k, rule, f"Use experts.top_k<={self.num_experts}.")


@component("experts", "dense")
@dataclass(slots=True)
class DenseFFNConfig(ExpertsConfig):
    """One SwiGLU of hidden size `active_experts * ffn_hidden`: the active parameters of a top-k MoE, no router."""

    kind: str = "dense"
    active_experts: int = knob(2, ge=1, doc="the dense FFN is this many times `ffn_hidden` wide")


@component("aux", "default")
@dataclass(slots=True)
class AuxConfig(Component):
    """The auxiliary load-balancing loss. A top-level group, so that one line can sweep it beside other balancers."""

    kind: str = "default"
    coef: float = knob(
        0.1, ge=0, doc="coefficient of the loss; its effect depends on the normalization (docs/definitions.md)"
    )
    normalization: AuxNormalization = knob(
        AuxNormalization.talk, doc="what a coefficient is multiplied by (docs/definitions.md has the conversions)"
    )
    scope: AuxScope = knob(
        AuxScope.micro,
        doc=(
            "tokens over which the loads f are counted. micro: each micro-batch on each rank. sequence: each "
            "sequence, P too, then the mean over sequences (arXiv 2412.19437). global: all micro-batches and "
            "ranks of an optimizer step, while P stays that of the micro-batch (arXiv 2501.11873)"
        ),
    )

    def unread(self, run: Run) -> dict[str, Unread]:
        if not run.experts.is_moe:
            return {"": DENSE_HAS_NO_ROUTER}
        return {} if "aux" in run.balancer.READS else {"": Unread(f"balancer={run.balancer.kind}", readers_of("aux"))}

    def canonical(self, run: Run) -> AuxConfig:
        """A coefficient of 0 gives 0, whatever the normalization."""
        return self if self.coef else AuxConfig(kind=self.kind, coef=0.0)


@component("trainer", "default")
@dataclass(slots=True)
class TrainerConfig(Component):
    """Length, batch and rhythm of training. One update uses `batch_size` sequences over all ranks and micro-batches."""

    GONE: ClassVar[frozenset[str]] = frozenset(
        {"eval_batches"}
    )  # eval_sequences counts what a batch size cannot change
    kind: str = "default"
    steps: int = knob(2000, ge=1, doc="optimizer updates")
    batch_size: int = knob(8, ge=1, doc="sequences per update, over all processes")
    micro_batch_size: int = knob(8, ge=1, doc="sequences per forward and backward pass")
    seq_len: int = knob(128, ge=1, doc="tokens per sequence")
    grad_clip: float = knob(1.0, ge=0, doc="maximum global norm of the gradients; 0 turns clipping off")
    precision: Precision = knob(Precision.auto, doc="arithmetic of the model; the router always uses float32")
    log_every: int = knob(20, ge=1, infra=True, doc="steps between training records in metrics.jsonl")
    eval_every: int = knob(250, ge=1, infra=True, doc="steps between evaluations")
    eval_batch_size: int = knob(
        32, ge=1, infra=True, doc="sequences per forward pass of an evaluation; affects only rounding"
    )
    eval_sequences: int = knob(
        256, ge=1, infra=True, doc="sequences of an evaluation during training, spread over the validation set"
    )
    final_eval_sequences: int | None = knob(
        None, ge=1, neutral=None, doc="sequences of the last evaluation; null: the whole validation set"
    )
    checkpoint_every: int | None = knob(
        None,
        ge=1,
        infra=True,
        doc=(
            "steps between checkpoints. With checkpoint_minutes, whichever comes first; with neither, as often "
            "as costs little"
        ),
    )
    checkpoint_minutes: float | None = knob(
        None, gt=0, infra=True, doc="minutes between checkpoints; see checkpoint_every"
    )
    keep_checkpoints: int = knob(2, ge=1, infra=True, doc="how many checkpoints are kept, the newest ones")
    stop_at: int | None = knob(
        None,
        ge=1,
        infra=True,
        doc=(
            "evaluate, save and pause after this step. A line without it, or with a later step, resumes the "
            "run. The schedule is that of all steps, so pausing changes no result"
        ),
    )
    monitor: bool = knob(True, infra=True, doc="write routing.jsonl: what the experts do, layer by layer")
    time_every: int = knob(
        1,
        ge=0,
        infra=True,
        doc=(
            "time the parts of every n-th step; 0: none. An n that divides an optimizer's period samples its "
            "expensive steps too often"
        ),
    )
    collapse_threshold: float = knob(
        0.9,
        gt=0,
        lt=1,
        neutral=0.9,
        doc=(
            "a router has collapsed when its MaxVio stays above this share of the maximum for collapse_patience steps"
        ),
    )
    collapse_patience: int = knob(
        100, ge=1, neutral=100, doc="consecutive steps above collapse_threshold that count as collapse"
    )
    stop_on_collapse: bool = knob(
        False, neutral=False, doc="end a run whose router has collapsed; otherwise it is marked and continues"
    )

    @property
    def micro_batches(self) -> int:
        """Forward and backward passes of one optimizer step, over all processes."""
        return self.batch_size // self.micro_batch_size

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step, over all processes."""
        return self.batch_size * self.seq_len

    def check(self, run: Run) -> Iterator[ConfigError]:
        if self.batch_size % self.micro_batch_size:
            rule = f"the batch of {self.batch_size} sequences must split into micro-batches of equal size"
            fix = f"Use a divisor of {self.batch_size}."
            yield ConfigError("trainer.micro_batch_size", self.micro_batch_size, rule, fix)

    def unread(self, run: Run) -> dict[str, Unread]:
        health = ("collapse_threshold", "collapse_patience", "stop_on_collapse")
        return {} if run.experts.is_moe else dict.fromkeys(health, DENSE_HAS_NO_ROUTER)


@component("engine", "native")
@dataclass(slots=True)
class EngineConfig(Component):
    """What builds the model and where it runs."""

    INFRA: ClassVar[bool] = True
    kind: str = "native"
    device: Device = knob(Device.auto, doc="device that trains the run; auto: CUDA if there is a GPU")
    expert_backend: ExpertBackend = knob(
        ExpertBackend.auto, doc="how the experts' matrix products are executed; affects only rounding"
    )
    parallel: Parallel = knob(
        Parallel.ddp,
        infra=True,
        neutral=Parallel.ddp,
        doc="what the processes of one run share out; without effect in a single process",
    )
    kernels: KernelChoice = knob(
        KernelChoice.auto,
        infra=True,
        neutral=KernelChoice.auto,
        doc="what runs between the matrix products in float32 on CPU; affects only rounding",
    )
    compile: bool | None = knob(
        None, infra=True, neutral=None, doc="use torch.compile; null: if it pays off within the run's length"
    )

    def check(self, run: Run) -> Iterator[ConfigError]:
        # 16 bytes. With precision=auto on a GPU it is bfloat16: the model itself then refuses other sizes.
        multiple = 8 if run.trainer.precision is Precision.bfloat16 else 4
        sizes = (run.model.width, run.experts.ffn_hidden)
        if self.expert_backend is ExpertBackend.grouped and any(size % multiple for size in sizes):
            rule = f"grouped GEMM needs model.width and experts.ffn_hidden to be multiples of {multiple}, not {sizes}"
            fix = "Use engine.expert_backend=auto, which falls back to the loop over experts."
            yield ConfigError("engine.expert_backend", self.expert_backend.value, rule, fix)
        if self.compile and self.device is not Device.cuda and run.trainer.precision is Precision.mixed:
            rule = "the products of trainer.precision=mixed on CPU are not known to torch.compile"
            yield ConfigError("engine.compile", "true", rule, "Leave engine.compile out, or use precision=bfloat16.")


@component("launch", "local")
@dataclass(slots=True)
class LaunchConfig(Component):
    """Runs of a sweep on this machine. null means: decided from the number of cores."""

    INFRA: ClassVar[bool] = True
    kind: str = "local"
    workers: int | None = knob(None, ge=1, doc="runs trained at the same time; null: one per core, or per GPU")
    threads: int | None = knob(
        None, ge=1, le=4096, doc="CPU threads of each process; null: its share of the cores, up to 4"
    )
    snapshot: bool = knob(
        False,
        neutral=False,
        doc="train from a copy of the sources made at submission, so that they can be edited meanwhile",
    )
    max_attempts_without_progress: int = knob(
        3, ge=1, neutral=3, doc="give a run up after so many attempts in a row that reached no new checkpoint"
    )
    pack: int = knob(
        1,
        ge=1,
        neutral=1,
        doc=(
            "runs side by side: in one SLURM job, or on one GPU of this machine. Without a GPU `workers` alone decides"
        ),
    )


@component("launch", "slurm")
@dataclass(slots=True)
class SlurmConfig(LaunchConfig):
    """Runs as SLURM jobs, an array for all that ask alike. null means: decided from the run, or left to SLURM."""

    kind: str = "slurm"
    snapshot: bool = knob(
        True, doc="train from a copy of the sources made at submission: jobs may start days after them"
    )
    nodes: int = knob(1, ge=1, doc="nodes per run")
    tasks_per_node: int = knob(1, ge=1, doc="processes of a run on each node")
    cpus_per_task: int | None = knob(None, ge=1, doc="cores per process; null: as many as threads and pack need")
    gpus_per_node: int | None = knob(
        None, ge=0, doc="GPUs on each node; null: one per task, none with engine.device=cpu"
    )
    mem_gb: int | None = knob(None, ge=1, doc="memory of each node in GB; null: estimated from the model")
    gpu_mem_gb: int | None = knob(
        None,
        ge=1,
        neutral=None,
        doc=(
            "memory of one of the cluster's GPUs in GB. A run that cannot fit is then refused when it is planned; "
            "null: not known, and its job refuses it before it builds anything"
        ),
    )
    minutes: int | None = knob(
        None, ge=1, doc="time limit of a job; null: from the estimate, up to the partition's limit"
    )
    partition: str | None = knob(None, doc="partition of the jobs; null: the cluster's default")
    account: str | None = knob(None, doc="account that is charged; null: the user's default")
    qos: str | None = knob(None, doc="quality of service; null: the default")
    constraint: str | None = knob(None, doc="features that a node must have")
    exclude: str | None = knob(None, doc="nodes to leave out")
    sbatch: list[str] = knob(factory=list, doc='more options of sbatch, such as "mail-type=END"')
    srun: list[str] = knob(factory=list, doc='more options of srun, such as "--container-image=..."')
    setup: list[str] = knob(factory=list, doc='shell lines before training, such as "module load cuda"')
    max_parallel: int | None = knob(None, ge=1, doc="jobs of one array that run at the same time; null: all")
    signal_seconds: int = knob(90, ge=1, doc="how long before the time limit SLURM warns the run, which then saves")
    wait: bool = knob(False, doc="follow the runs to their end")
    dry_run: bool = knob(False, doc="print the job scripts, submit nothing")

    def __post_init__(self) -> None:
        # Lists that were set on the command line hold OmegaConf's nodes, which are not strings.
        self.sbatch, self.srun, self.setup = ([str(x) for x in xs] for xs in (self.sbatch, self.srun, self.setup))


@dataclass(slots=True)
class PathsConfig:
    """Folders; relative ones start at the repository root."""

    runs: str = knob("runs", doc="run folders; MOE_SWEEPS_RUNS sets it, too")
    data: str = knob("data", doc="prepared data; MOE_SWEEPS_DATA sets it, too")
    reports: str = knob("reports", doc="tables and reports; MOE_SWEEPS_REPORTS sets it, too")
