"""The model of a run, built by the engine that its config names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from moe_sweeps.engines import native
from moe_sweeps.engines.megatron.config import MegatronConfig
from moe_sweeps.model.transformer import Transformer

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


def build_model(run: RunConfig, vocab_size: int, end_of_text_id: int | None, device: torch.device) -> Transformer:
    """The model that `run` describes, with the weights that `run.seed` gives whatever the engine.

    It is to be moved to `device`, which Megatron's parts must know from the beginning.
    `end_of_text_id` is what `data.mask_documents` tells documents apart by.
    """
    if isinstance(run.engine, MegatronConfig):
        from moe_sweeps.engines.megatron import model as megatron  # the package may not be installed

        return megatron.build_model(run, vocab_size, end_of_text_id, device)
    return native.build_model(run, vocab_size, end_of_text_id)


def engine_record(run: RunConfig, device: torch.device) -> dict[str, Any]:
    """What provenance.json says of the engine that trains; empty for the native one, which is this project's code."""
    if not isinstance(run.engine, MegatronConfig):
        return {}
    from moe_sweeps.engines.megatron import shim

    return {"engine": shim.record(device)}
