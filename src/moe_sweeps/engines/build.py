"""The model of a run, built by the engine that its config chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from moe_sweeps.config.groups import Parallel
from moe_sweeps.engines.megatron.config import MegatronConfig
from moe_sweeps.model.transformer import Transformer, build_model

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


def is_filled_in_place(run: Run, on_gpu: bool, processes: int) -> bool:
    """Whether a process builds the model without memory, puts it in its place, and gives it its weights there.

    So it does where it keeps a part of it, or keeps it on a GPU: the host then holds a layer at a time, not a whole
    model for each process. Megatron's modules are built on the host.
    """
    if isinstance(run.engine, MegatronConfig):
        return False
    return on_gpu or (run.engine.parallel is Parallel.fsdp and processes > 1)


def build_engine_model(
    run: Run, vocab_size: int, end_of_text_id: int | None, device: torch.device, *, empty: bool = False
) -> Transformer:
    """The model that `run` describes. Its initial weights follow from `run.seed`, whatever the engine.

    The caller moves it to `device`, which Megatron's modules must know when they are built. `end_of_text_id` is the
    token that ends a document, for `data.mask_documents`. `empty`: on the meta device, for `fill`.
    """
    if empty:
        with torch.device("meta"):  # where a draw of initial weights costs nothing
            return build_model(run, vocab_size, end_of_text_id)
    if isinstance(run.engine, MegatronConfig):
        from moe_sweeps.engines.megatron.model import build_megatron_model  # the package may not be installed

        return build_megatron_model(run, vocab_size, end_of_text_id, device)
    # The trainer moves it to the device, whole or sharded: a sharded model need not fit there whole.
    return build_model(run, vocab_size, end_of_text_id)


def engine_record(run: Run, device: torch.device) -> dict[str, Any]:
    """What provenance.json keeps about the engine; empty for the native one, which is this project's code."""
    if not isinstance(run.engine, MegatronConfig):
        return {}
    from moe_sweeps.engines.megatron import shim

    return {"engine": shim.record(device)}
