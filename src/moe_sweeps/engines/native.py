"""engine=native: this project's own model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_sweeps.model.transformer import Transformer
from moe_sweeps.model.transformer import build_model as build_transformer

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


def build_model(run: RunConfig, vocab_size: int, end_of_text_id: int | None) -> Transformer:
    """The model that `run` describes, on the CPU, with the weights that `run.seed` gives.

    Whether it goes to a device whole or in parts is the trainer's business: a sharded one need not fit there.
    """
    return build_transformer(run, vocab_size, end_of_text_id)
