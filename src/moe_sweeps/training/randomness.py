"""The random number generators that training draws from: for router noise, jitter and dropout.

Each process of a run has its own stream. So a run that draws random numbers depends on the number of processes, and one
that draws none depends on it through rounding alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.distributed.ranks import Ranks


def seed_streams(seed: int, ranks: Ranks) -> None:
    """Seed this process's stream: with `seed` itself on the first rank, on others with a hash of it and the rank."""
    digest = hashlib.sha256(f"{seed}:rank {ranks.rank}".encode()).digest()
    torch.manual_seed(seed if ranks.is_first else int.from_bytes(digest[:7], "big"))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators in this process."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@dataclass(frozen=True, slots=True)
class RandomStreams:
    """The generators of all processes, as a part of a checkpoint. All processes must call both methods."""

    device: torch.device
    ranks: Ranks

    def state_dict(self) -> list[dict[str, Tensor]]:
        """`random_state` of every process, in order of rank."""
        names, own = zip(*random_state(self.device).items(), strict=True)
        by_name = [self.ranks.gather(state) for state in own]
        return [dict(zip(names, states, strict=True)) for states in zip(*by_name, strict=True)]

    def load_state_dict(self, state: list[dict[str, Tensor]] | dict[str, Tensor]) -> None:
        """The inverse of `state_dict`. A checkpoint of the time before there were several processes has one state.

        Raises:
            ConfigError: the checkpoint was written by another number of processes.
        """
        states = [state] if isinstance(state, dict) else state
        self.ranks.require_size(len(states))
        restore_random_state(states[self.ranks.rank], self.device)
