"""The processes that train one run together: the one owner of all communication between them.

The processes are replicas. Each computes the gradients of its slice of the global batch; sums and means over all of
them are taken here. A single process needs no process group: every method is then the identity.

Processes are started by torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) or as tasks of a SLURM step
(SLURM_PROCID, SLURM_STEP_NUM_TASKS, ...). The launcher must end all processes when one of them fails: torchrun does,
srun does with --kill-on-bad-exit=1. On a CPU the others notice by themselves, because their connections close.

Axes: N matrices of one stack, D their size.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moe_sweeps.distributed.rendezvous import GIVE_UP_SECONDS, POLL_SECONDS, rendezvous
from moe_sweeps.distributed.sharding import is_sharded, reduce_gradients
from moe_sweeps.distributed.slurm import expand_counts, master_address
from moe_sweeps.errors import ConfigError, MoeSweepsError, RunFolderError

log = logging.getLogger(__name__)
_FAILURE = "failure"


class Store(Protocol):
    """The methods of torch's key-value stores that are used here."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's rank among the processes of one run, and the collectives over them.

    All processes must call the collectives, in the same order. Results are the same bits in all of them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine
    local_size: int = 1
    store: Store | None = field(default=None, compare=False, repr=False)  # once joined

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Ranks:
        """The rank that torchrun or SLURM gave to this process; `ALONE` where neither did.

        Raises:
            MoeSweepsError: a variable is missing or malformed.
        """
        try:
            if "RANK" in environ:
                return cls._from_torchrun(environ)
            if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
                return cls._from_slurm(environ)
        except (KeyError, ValueError) as error:
            fix = "Start with `python -m torch.distributed.run` or srun, or unset RANK and SLURM_STEP_NUM_TASKS."
            raise MoeSweepsError(
                f"the environment does not say which rank this process is: {error!r}. {fix}"
            ) from error
        return cls()

    @classmethod
    def _from_torchrun(cls, environ: Mapping[str, str]) -> Ranks:
        rank, size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        if not 0 <= rank < size:
            raise ValueError(f"RANK={rank} is none of the WORLD_SIZE={size} ranks from 0")
        local = int(environ.get("LOCAL_RANK", rank))
        return cls(rank, size, local, int(environ.get("LOCAL_WORLD_SIZE", size)))

    @classmethod
    def _from_slurm(cls, environ: Mapping[str, str]) -> Ranks:
        """From the step's variables, not the job's: a batch script is one process however many tasks it asks for."""
        node = int(environ.get("SLURM_NODEID", "0"))
        per_node = expand_counts(environ["SLURM_STEP_TASKS_PER_NODE"])
        size = int(environ["SLURM_STEP_NUM_TASKS"])
        return cls(int(environ["SLURM_PROCID"]), size, int(environ["SLURM_LOCALID"]), per_node[node])

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size}"

    # --- joining --------------------------------------------------------------------------------------------------

    @contextmanager
    def joined(self, say: Callable[[str], None] = log.warning, patience: float = GIVE_UP_SECONDS) -> Iterator[Ranks]:
        """A process group around the block, with a barrier at its end; after an error nobody waits for the others.

        `say` is told which processes are missing while this one waits, for at most `patience` seconds.

        Raises:
            MoeSweepsError: some process did not come.
        """
        if self.size == 1:
            yield self
            return
        for name, value in master_address(os.environ).items():
            os.environ.setdefault(name, value)
        store = rendezvous(self.rank, self.size, say, patience=patience)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)
        yield replace(self, store=store)
        self.barrier()
        dist.destroy_process_group()

    def own_device(self, device: torch.device) -> torch.device:
        """`device`, or of several GPUs the one of this process, which becomes torch's current one."""
        if self.size == 1 or device.type != "cuda":
            return device
        own = torch.device("cuda", self.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(own)
        return own

    # --- shares ---------------------------------------------------------------------------------------------------

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
        """Raise ConfigError unless a run that was trained by `size` processes is resumed with as many."""
        if size != self.size:
            rule = f"the run was started with {size}, and only with as many does it resume exactly"
            fix = f"Use {size}, or move its checkpoints away; it then starts over."
            raise ConfigError("the number of processes", self.size, rule, fix)

    def require_agreement(self, what: str, number: int) -> None:
        """Raise RunFolderError unless all processes have the same `number`."""
        found = [int(n.item()) for n in self.gather(torch.tensor(number))]
        if len(set(found)) > 1:
            raise RunFolderError(f"the processes of this run disagree on {what}: {found}. Do they share the folder?")

    # --- collectives ----------------------------------------------------------------------------------------------

    def all_reduce(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each tensor summed over the processes, in its own dtype, all in one message.

        The message is float64, so integers are exact up to 2^53.
        """
        if self.size == 1 or not values:
            return dict(values)
        message = torch.cat([value.detach().to(torch.float64).flatten() for value in values.values()])
        dist.all_reduce(message)
        parts = message.split([value.numel() for value in values.values()])
        return {k: part.view(v.shape).to(v.dtype) for (k, v), part in zip(values.items(), parts, strict=True)}

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each floating-point tensor averaged over the processes, as in `all_reduce`."""
        if self.size == 1:
            return dict(values)
        return {name: value / self.size for name, value in self.all_reduce(values).items()}

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The first rank's tensor; those of the others have its shape and dtype."""
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
        """Whether the flag is set in any process. Does not synchronise a GPU."""
        return self.any_of_each(flag)[0]

    def any_of_each(self, *flags: bool) -> tuple[bool, ...]:
        """The same for several flags, in one message."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int64)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(bool(n) for n in found.tolist())

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.any(False)

    def broadcast_text(self, name: str, text: str) -> str:
        """The first rank's text; those of the others are ignored. Each `name` can be used once.

        Raises:
            MoeSweepsError: the first rank ended before it gave one.
        """
        if self.store is None:
            return text
        if self.is_first:
            self.store.set(name, text)
        try:
            while not self.store.check([name]):  # get() would block without handling signals
                time.sleep(POLL_SECONDS)
            return self.store.get(name).decode()
        except RuntimeError as error:
            if lost_a_peer(error):
                raise MoeSweepsError(f"rank 0 ended before it named the {name}; its output says why") from error
            raise

    # --- gradients ------------------------------------------------------------------------------------------------

    def replicated(self, model: nn.Module) -> nn.Module:
        """`model` wrapped for training, so that a backward pass averages gradients over the processes.

        A sharded model does that itself, and is returned as it is.

        DistributedDataParallel rearranges its buckets after the first backward pass. With three processes or more the
        place in a bucket decides the order in which a gradient is summed. Run one backward pass before training, or a
        resumed run differs in the last bits from one that never stopped.
        """
        if self.size == 1 or is_sharded(model):
            return model
        return DistributedDataParallel(model, gradient_as_bucket_view=True)

    def averaging(self, replicated: nn.Module, when: bool) -> AbstractContextManager[None]:
        """The context of one micro-batch: its backward pass averages gradients only `when` it is the step's last."""
        if is_sharded(replicated):
            reduce_gradients(replicated, when)
        if when or not isinstance(replicated, DistributedDataParallel):
            return nullcontext()
        found: AbstractContextManager[None] = replicated.no_sync()
        return found

    # --- failures -------------------------------------------------------------------------------------------------

    def report_failure(self, text: str) -> bool:
        """Tell the others why this process fails. False: another one was first, or the holder of the store is gone."""
        if self.store is None:
            return True
        with suppress(RuntimeError):  # the process that holds the store may be gone
            if not self.store.check([_FAILURE]):
                self.store.set(_FAILURE, text)
                return True
        return False

    def first_failure(self) -> str | None:
        """What the first process that failed reported, or None where none did."""
        with suppress(RuntimeError):
            if self.store is not None and self.store.check([_FAILURE]):
                return self.store.get(_FAILURE).decode()
        return None


ALONE = Ranks()


def lost_a_peer(error: BaseException) -> bool:
    """Whether `error` says only that the connection to another process broke, not what ended that process."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(re.search(r"by peer|Broken pipe|gloo", str(error)))


def share_work(
    ranks: Ranks, matrix_NDD: Tensor, work: Callable[[Tensor], tuple[Tensor, Tensor]], first: int = 0
) -> tuple[Tensor, Tensor]:
    """`work` on a stack of matrices, of which every rank does its share; all of the result on every rank.

    `work` returns a matrix (N, D, D) and a flag, bool (N,), for each matrix that it is given. Matrices are dealt to the
    ranks in turn, beginning with rank `first`, so that stacks of one matrix do not all fall to the same rank.
    """
    if ranks.size == 1:
        return work(matrix_NDD)
    shares = [slice((rank - first) % ranks.size, None, ranks.size) for rank in range(ranks.size)]
    mine_NDD = matrix_NDD[shares[ranks.rank]]
    longest = -(-len(matrix_NDD) // ranks.size)
    own_NDD, own_N = matrix_NDD.new_zeros(longest, *matrix_NDD.shape[1:]), matrix_NDD.new_zeros(longest)
    if len(mine_NDD):
        done_NDD, good_N = work(mine_NDD)
        own_NDD[: len(mine_NDD)], own_N[: len(mine_NDD)] = done_NDD, good_N.to(own_N.dtype)
    all_NDD, all_N = torch.empty_like(matrix_NDD), matrix_NDD.new_empty(len(matrix_NDD))
    for share, theirs_NDD, theirs_N in zip(shares, ranks.gather(own_NDD), ranks.gather(own_N), strict=True):
        count = len(all_N[share])
        all_NDD[share], all_N[share] = theirs_NDD[:count], theirs_N[:count]
    return all_NDD, all_N.bool()
