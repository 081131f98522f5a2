"""The size of a run's checkpoint, by arithmetic: nothing is trained and nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from moe_sweeps.balancing import build_balancer
from moe_sweeps.distributed.ranks import ALONE
from moe_sweeps.optim.tensors import tensors_in
from moe_sweeps.training.memory import run_memory

if TYPE_CHECKING:
    from moe_sweeps.experiment.schema import RunConfig

# Of the archive for each parameter: it and what an optimizer keeps for it are about four tensors, each with a header, a
# place in the index, padding to 64 bytes, and an entry in the pickle.
PER_PARAMETER = 4 * 420
# Random states (5 kB), averages of the journal, the pickle of what is not a tensor.
REST = 12_000


def checkpoint_bytes(run: RunConfig) -> int:
    """Bytes of one checkpoint of `run`: weights, the optimizer's state, the balancer's, and what holds them together.

    However many processes train it, its checkpoint is whole.
    """
    memory = run_memory(run)
    with torch.device("meta"):
        balancer = build_balancer(run, ALONE)
    of_balancer = sum(tensor.nbytes for tensor in tensors_in(balancer.state_dict()))
    return memory.whole_weights + memory.optimizer + of_balancer + PER_PARAMETER * memory.tensors + REST
