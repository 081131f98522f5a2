"""engine=native: this project's own model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from moe_sweeps.model.transformer import Transformer
from moe_sweeps.model.transformer import build_model as build_transformer

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


def build_model(run: RunConfig, vocab_size: int, end_of_text_id: int | None, device: torch.device) -> Transformer:
    """The model that `run` describes, on `device`, with the weights that `run.seed` gives."""
    return build_transformer(run, vocab_size, end_of_text_id).to(device)
