"""The memory that a run needs, from its config alone: for plans, and for the memory that a job requests.

Weights, gradients and the optimizer's state are counted tensor by tensor. This part is certain, because in every step
all three exist at once. The memory of activations is an estimate; benchmarks/memory.py measures how good it is.

What one process holds of the three, of n processes that train a run:

    engine.parallel=ddp             all of them, also with engine.expert_parallel: Megatron gets whole parameters
    engine.parallel=fsdp            an n-th of each; with several micro-batches a process, whole gradients between them

T tokens of one micro-batch, D width, F hidden size of one expert, K experts of a token, E experts, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from moe_sweeps.config.groups import ExpertsConfig, MoEExpertsConfig, Parallel, Precision
from moe_sweeps.engines.build import is_filled_in_place
from moe_sweeps.host.devices import Device
from moe_sweeps.model.transformer import Transformer
from moe_sweeps.optim.lr_split import LoadBasedConfig
from moe_sweeps.training.stepper import groups_of

if TYPE_CHECKING:
    from moe_sweeps.experiment.schema import RunConfig

FLOAT32, BFLOAT16 = 4, 2  # bytes
# Of one process besides its model: Python, torch and temporary tensors on a CPU.
PROCESS = 350_000_000
# A GPU's context and the workspaces of its libraries.
GPU_CONTEXT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process of a run on its device: RAM, or a GPU's memory."""

    on_gpu: bool
    weights: int  # of this process's part of the model
    gradients: int
    optimizer: int
    whole_weights: int  # of the whole model
    building: int  # what lies in RAM at once while the model is built
    gathered: int  # layers of a sharded model that a pass holds whole: the current one and the next
    largest: int  # the largest tensor, which saving and loading need once more
    tensors: int  # how many parameters, as tensors, the model has
    working: int  # temporary tensors of the optimizer's step; estimated, as the two below
    activations: int  # of one micro-batch
    evaluation: int  # temporary tensors of one batch
    accumulates: bool  # whether gradients are summed over several micro-batches

    @property
    def certain(self) -> int:
        """The least that training needs."""
        return self.weights + self.gradients + self.optimizer

    @property
    def estimate(self) -> int:
        """The most that exists at one time: in a backward pass, in the optimizer's step, or while saving."""
        # With one micro-batch, gradients take the place of activations; with several, both exist from the second on.
        several = self.gradients if self.accumulates else 0
        training = max(several + self.activations + self.gathered, self.gradients + self.working)
        passing = max(training, self.evaluation + self.gathered, self.largest)
        return self.weights + self.optimizer + passing + (GPU_CONTEXT if self.on_gpu else PROCESS)

    @property
    def certain_ram(self) -> int:
        """The least RAM: all of the above on a CPU; with a GPU what lies there while the model is built."""
        return self.building if self.on_gpu else max(self.certain, self.building)

    @property
    def estimate_ram(self) -> int:
        """RAM of the host. With a GPU, tensors pass through it one at a time while they are saved."""
        return PROCESS + self.building + self.largest if self.on_gpu else self.estimate


def run_memory(run: RunConfig, processes: int = 1, *, on_gpu: bool | None = None) -> Memory:
    """The memory of one of `processes` of `run`. `on_gpu`: by default from engine.device, where auto means a CPU."""
    gpu = run.engine.device is Device.cuda if on_gpu is None else on_gpu
    shards = processes if run.engine.parallel is Parallel.fsdp else 1
    kept, accumulates = _kept(_Key(run, shards)), run.trainer.micro_batches > processes
    in_place = is_filled_in_place(run, gpu, processes)
    return Memory(
        on_gpu=gpu,
        weights=kept.own,
        # torch sums the gradients of a sharded model whole, and shares them out after the last micro-batch.
        gradients=kept.whole if accumulates else kept.own,
        optimizer=kept.optimizer,
        whole_weights=kept.whole,
        building=kept.unit + (0 if gpu else kept.own) if in_place else kept.whole,
        gathered=2 * kept.unit if shards > 1 else 0,
        largest=kept.largest,
        tensors=kept.tensors,
        working=kept.working,
        activations=_activations(run, kept.whole, gpu),
        evaluation=_evaluation(run),
        accumulates=accumulates,
    )


def _activations(run: RunConfig, whole_weights: int, on_gpu: bool) -> int:
    """Bytes that one micro-batch's forward pass keeps for the backward pass, and temporary tensors of the latter."""
    narrow = run.trainer.precision is Precision.bfloat16 or (run.trainer.precision is not Precision.float32 and on_gpu)
    width, tokens = run.model.width, run.trainer.micro_batch_size * run.trainer.seq_len
    picks, hidden, num_experts = _feed_forward(run.experts)
    # Inputs and outputs of two norms, queries, keys and values before and after rotation, twice the attention's output;
    # the experts' input and output, their gate and up rows and the product of these.
    products = 11 * width + picks * (2 * width + 3 * hidden)
    router = 8 * num_experts
    layer = tokens * (products * (BFLOAT16 if narrow else FLOAT32) + (2 * width + router) * FLOAT32)
    backward = tokens * picks * 4 * hidden * FLOAT32  # of the current layer
    head = (
        run.data.vocab_size * width * FLOAT32
    )  # the head's part of the embedding's gradient, which the forward pass computes
    # Copies of the weights in bfloat16. On a CPU, which emulates it, four times as much was measured.
    casts = whole_weights // 2 * (1 if on_gpu else 4) if narrow else 0
    return run.model.layers * layer + backward + head + casts


def _evaluation(run: RunConfig) -> int:
    """Bytes of the current layer's temporary tensors, and of the router's outputs in all layers."""
    tokens = run.trainer.eval_batch_size * run.trainer.seq_len
    picks, hidden, num_experts = _feed_forward(run.experts)
    layer = 4 * run.model.width + picks * (2 * run.model.width + 3 * hidden)
    return tokens * FLOAT32 * (layer + 4 * num_experts * run.model.layers)


def _feed_forward(experts: ExpertsConfig) -> tuple[int, int, int]:
    """(experts that a token uses, hidden size of one, number of experts)."""
    if isinstance(experts, MoEExpertsConfig):
        return experts.top_k, experts.ffn_hidden, experts.num_experts
    return 1, experts.ffn_hidden * getattr(experts, "active_experts", 1), 0


class _Key:
    """The cache key of a run and its number of shards. Equal keys mean that a process keeps the same tensors."""

    def __init__(self, run: RunConfig, shards: int) -> None:
        optimizer = dataclasses.replace(run.optimizer, base_lr=1.0, weight_decay=0.1)
        copies = isinstance(run.lr_split, LoadBasedConfig)
        self.run, self.shards = run, shards
        self._parts = repr((run.model, run.experts, run.router.noise, run.data.vocab_size, optimizer, copies, shards))

    def __hash__(self) -> int:
        return hash(self._parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._parts == other._parts


@dataclass(frozen=True, slots=True)
class _Kept:
    """Bytes of what one process keeps between steps."""

    own: int  # weights
    optimizer: int
    whole: int  # weights of the whole model
    unit: int  # weights of the largest layer, or of what is no layer
    largest: int
    tensors: int
    working: int


@lru_cache(maxsize=1024)
def _kept(key: _Key) -> _Kept:
    run, shards = key.run, key.shards
    with torch.device("meta"):
        model = Transformer(run, run.data.vocab_size, end_of_text_id=0)
    params = list(model.parameters())
    whole = sum(param.nbytes for param in params)
    own = sum(-(-len(param) // shards) * param[0].nbytes for param in params)
    layers = [sum(param.nbytes for param in layer.parameters()) for layer in model.layers]
    split, groups = groups_of(run, model)
    state, working = run.optimizer.footprint(groups)
    if isinstance(split, LoadBasedConfig):  # a step copies the experts
        working += sum(p.nbytes for group in groups if group.role.value == "expert" for p in group.params) // shards
    return _Kept(
        own=own,
        optimizer=state * own // whole,
        whole=whole,
        unit=max(*layers, whole - sum(layers)),
        largest=max(param.nbytes for param in params),
        tensors=len(params),
        working=working,
    )
