"""Several processes that train one run together: the one owner of everything that passes between them.

The processes are replicas. Each computes the gradients of its slice of the global batch; what they share is summed or
averaged here. One process alone needs no process group: every method is then the identity.

Started by torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) or as tasks of a SLURM step (SLURM_PROCID,
SLURM_STEP_NUM_TASKS, ...). A launcher must end all processes when one of them fails: torchrun does, srun does with
--kill-on-bad-exit=1. On the CPU the others notice by themselves, by the connections that close.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from moe_sweeps.errors import ConfigError, MoeSweepsError, RunFolderError
from moe_sweeps.sharding import is_sharded, reduce_gradients

# The first rank may prepare data before it joins the others.
JOIN_TIMEOUT = timedelta(hours=24)
_FAILURE, _FIRST_IS_HERE = "failure", "first-is-here"


class Store(Protocol):
    """What is used of torch's key-value stores."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among the processes of one run, and the ways in which they speak with each other.

    All of them must call the methods that communicate, in the same order. Results are the same bits everywhere.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # place among the processes of this machine
    local_size: int = 1
    store: Store | None = field(default=None, compare=False, repr=False)  # once joined

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Ranks:
        """The place that torchrun or SLURM gave to this process; alone where neither did.

        Raises:
            MoeSweepsError: a variable is missing, or is not what it should be.
        """
        try:
            if "RANK" in environ:
                size = int(environ["WORLD_SIZE"])
                local = int(environ.get("LOCAL_RANK", environ["RANK"]))
                return cls(int(environ["RANK"]), size, local, int(environ.get("LOCAL_WORLD_SIZE", size)))
            if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
                return cls._from_slurm(environ)
        except (KeyError, ValueError) as error:
            fix = "Start with `python -m torch.distributed.run` or srun, or unset RANK."
            raise MoeSweepsError(f"the environment of this process gives it no place: {error!r}. {fix}") from error
        return cls()

    @classmethod
    def _from_slurm(cls, environ: Mapping[str, str]) -> Ranks:
        """Variables of the step, not of the job: a batch script is one process, however many tasks it asks for."""
        node = int(environ.get("SLURM_NODEID", "0"))
        per_node = expand_counts(environ["SLURM_STEP_TASKS_PER_NODE"])
        size = int(environ["SLURM_STEP_NUM_TASKS"])
        return cls(int(environ["SLURM_PROCID"]), size, int(environ["SLURM_LOCALID"]), per_node[node])

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size}"

    # --- coming and going -----------------------------------------------------------------------------------------

    @contextmanager
    def joined(self) -> Iterator[Ranks]:
        """The processes meet, and part at the end; after an error nobody waits for the others."""
        if self.size == 1:
            yield self
            return
        for name, value in meeting_point(os.environ).items():
            os.environ.setdefault(name, value)
        store, _, _ = next(rendezvous("env://", self.rank, self.size, timeout=JOIN_TIMEOUT))
        if self.is_first:
            store.set(_FIRST_IS_HERE, "yes")
        store.wait([_FIRST_IS_HERE], JOIN_TIMEOUT)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)
        yield replace(self, store=store)
        self.meet()
        dist.destroy_process_group()

    def own_device(self, device: torch.device) -> torch.device:
        """The device of this process: its own among the machine's, where they are GPUs."""
        if self.size == 1 or device.type != "cuda":
            return device
        own = torch.device("cuda", self.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(own)
        return own

    # --- slices ---------------------------------------------------------------------------------------------------

    def share_of(self, count: int) -> slice:
        """This process's contiguous slice of `count` things; the slices cover them in order of rank."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def require_even_split(self, batch_size: int, micro_batch_size: int) -> None:
        """Raise ConfigError unless every process gets the same number of whole micro-batches."""
        if batch_size % (self.size * micro_batch_size) == 0:
            return
        rule = f"{self.size} processes with micro-batches of {micro_batch_size} need a multiple of "
        rule += f"{self.size * micro_batch_size} sequences"
        fits = [m for m in range(1, micro_batch_size) if batch_size % (self.size * m) == 0]
        other = f", or trainer.micro_batch_size={fits[-1]}" if fits else ""
        raise ConfigError("trainer.batch_size", batch_size, rule, f"Use such a multiple{other}.")

    def require_size(self, size: int) -> None:
        """Raise ConfigError unless a run that was trained by `size` processes goes on with as many."""
        if size != self.size:
            rule = f"the run was begun with {size}, and goes on exactly with as many alone"
            fix = f"Start it with {size}, or move its checkpoints away; it then starts over."
            raise ConfigError("the number of processes", self.size, rule, fix)

    def require_agreement(self, what: str, number: int) -> None:
        """Raise RunFolderError unless all processes read the same `number`."""
        found = [int(n.item()) for n in self.gather(torch.tensor(number))]
        if len(set(found)) > 1:
            raise RunFolderError(f"the processes of this run disagree on {what}: {found}. Do they share the folder?")

    # --- tensors --------------------------------------------------------------------------------------------------

    def sum(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each tensor summed over the processes, in its own dtype, all in one message.

        It travels in float64, so integers are exact up to 2^53.
        """
        if self.size == 1 or not values:
            return dict(values)
        message = torch.cat([value.detach().to(torch.float64).flatten() for value in values.values()])
        dist.all_reduce(message)
        parts = message.split([value.numel() for value in values.values()])
        return {k: part.view(v.shape).to(v.dtype) for (k, v), part in zip(values.items(), parts, strict=True)}

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each floating-point tensor averaged over the processes, as in `sum`."""
        if self.size == 1:
            return dict(values)
        return {name: value / self.size for name, value in self.sum(values).items()}

    def from_first(self, tensor: Tensor) -> Tensor:
        """The first rank's tensor; the others' have its shape and dtype."""
        if self.size == 1:
            return tensor
        received = tensor.clone()
        dist.broadcast(received, src=0)
        return received

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, of one shape and dtype, in order of rank."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor.contiguous())
        return found

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. Does not wait for a GPU."""
        return self.any_of_each(flag)[0]

    def any_of_each(self, *flags: bool) -> tuple[bool, ...]:
        """The same for several flags, in one message."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int64)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(bool(n) for n in found.tolist())

    def meet(self) -> None:
        """Wait until all processes have come here."""
        self.any(False)

    def word_of_first(self, name: str, word: str) -> str:
        """The word that the first rank says; what the others say does not count. Each `name` is used once."""
        if self.store is None:
            return word
        if self.is_first:
            self.store.set(name, word)
        return self.store.get(name).decode()

    # --- gradients ------------------------------------------------------------------------------------------------

    def replicated(self, model: nn.Module) -> nn.Module:
        """`model` as it is called in training: a backward pass then averages gradients over the processes.

        A sharded model does that itself.

        DistributedDataParallel changes its buckets after the first backward pass, and with three processes or more the
        place in a bucket decides in which order a gradient is summed. Let one pass go by before training, or a resumed
        run differs in the last bits from one that never stopped.
        """
        if self.size == 1 or is_sharded(model):
            return model
        return DistributedDataParallel(model, gradient_as_bucket_view=True)

    def averaging(self, replicated: nn.Module, when: bool) -> AbstractContextManager[None]:
        """The context of one micro-batch: gradients are averaged at its end only `when` it is the step's last."""
        if is_sharded(replicated):
            reduce_gradients(replicated, when)
        if when or not isinstance(replicated, DistributedDataParallel):
            return nullcontext()
        found: AbstractContextManager[None] = replicated.no_sync()
        return found

    # --- failures -------------------------------------------------------------------------------------------------

    def tell_failure(self, words: str) -> bool:
        """Tell the others why this process fails. False: another one told its reason before, or is gone already."""
        if self.store is None:
            return True
        with suppress(RuntimeError):  # the process that keeps the store may be gone
            if not self.store.check([_FAILURE]):
                self.store.set(_FAILURE, words)
                return True
        return False

    def told_failure(self) -> str | None:
        """Why the first process that failed did so, or None where nobody told."""
        with suppress(RuntimeError):
            if self.store is not None and self.store.check([_FAILURE]):
                return self.store.get(_FAILURE).decode()
        return None


ALONE = Ranks()


def lost_a_peer(error: BaseException) -> bool:
    """Whether an error says that another process is gone, by its connections, rather than why."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(re.search(r"by peer|Broken pipe|gloo", str(error)))


def expand_counts(text: str) -> list[int]:
    """SLURM's counts by node: "2(x3),1" is [2, 2, 2, 1]."""
    found: list[int] = []
    for part in text.split(","):
        count, _, times = part.rstrip(")").partition("(x")
        found += [int(count)] * int(times or 1)
    return found


def first_host(nodelist: str) -> str:
    """The first host of a SLURM node list: "gpu[07-09,12],login" is gpu07."""
    first = re.split(r",(?![^\[]*\])", nodelist)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def meeting_point(environ: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for the tasks of a SLURM step: its first node, a port that follows from its id."""
    if "RANK" in environ or "SLURM_STEP_NODELIST" not in environ:
        return {}
    place = int(environ.get("SLURM_JOB_ID", "0")) * 31 + int(environ.get("SLURM_STEP_ID", "0"))
    return {"MASTER_ADDR": first_host(environ["SLURM_STEP_NODELIST"]), "MASTER_PORT": str(20000 + place % 12000)}
