"""The initial weights of a model that is in its place already, whole on a GPU or sharded over processes.

They are drawn on the host, as those of any other model, and have the same bits. Only one layer of the model lies there
at a time: a process that keeps an eighth of it, or has it on a GPU, needs no memory for all of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from moe_sweeps.distributed.sharding import own_part, own_rows
from moe_sweeps.model.transformer import Transformer, build_model

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


@torch.no_grad()
def fill(model: Transformer, run: Run, vocab_size: int) -> None:
    """Give `model`, which has memory but no values, the weights that `run.seed` gives.

    Draws from no global random state. Of a sharded model every process fills its own part.
    """
    there = dict(model.named_parameters())
    for part in _parts(run, vocab_size):
        part.to_empty(device="cpu")
        part.init_weights(run.seed)
        for name, value in part.named_parameters():
            target = there.pop(name).detach()
            own_part(target).copy_(own_rows(value.detach(), target))
        part.to("meta")  # gives its memory back before the next has any
    assert not there, f"no weights for {', '.join(there)}"


def _parts(run: Run, vocab_size: int) -> Iterator[Transformer]:
    """The model on the meta device in parts, each with the names that it has in the whole: what is not a layer, and
    every layer."""
    with torch.device("meta"):
        whole = build_model(run, vocab_size, 0)
    children = dict(whole.named_children())
    layers = children.pop("layers")
    yield _only(whole, children)
    for name, layer in layers.named_children():
        yield _only(whole, {"layers": nn.ModuleDict({name: layer})})


def _only(whole: Transformer, children: dict[str, nn.Module]) -> Transformer:
    part = copy.copy(whole)
    part._modules = dict(children)
    return part
