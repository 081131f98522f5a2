"""The random number generators that training draws from: router noise, jitter and dropout.

Each process of a run draws a stream of its own. So a run that draws depends on the number of processes, and one that
does not draw is the same for any number, but for rounding.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from moe_sweeps.distributed import Ranks


def seed_streams(seed: int, ranks: Ranks) -> None:
    """Start this process's stream: `seed` itself on the first rank, a number that follows from it on the others."""
    digest = hashlib.sha256(f"{seed}:rank {ranks.rank}".encode()).digest()
    torch.manual_seed(seed if ranks.is_first else int.from_bytes(digest[:7], "big"))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def gather_random_states(device: torch.device, ranks: Ranks) -> list[dict[str, Tensor]]:
    """`random_state` of every process, in order of rank."""
    names, own = zip(*random_state(device).items(), strict=True)
    by_name = [ranks.gather(state) for state in own]
    return [dict(zip(names, states, strict=True)) for states in zip(*by_name, strict=True)]


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
