"""How a fixed sample of validation tokens was routed at each evaluation point: what router saturation is computed from.

The sample is the same windows whatever is evaluated, so that a resumed run writes the same files bit for bit.

Axes: L MoE layers, T tokens, K picks per token, B sequences, S positions.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moe_sweeps.data.batches import val_batches
from moe_sweeps.data.memmap import Tokens
from moe_sweeps.files import write_atomic

SAMPLE_TOKENS = 2048


def sample_inputs_BS(tokens: Tokens, seq_len: int) -> Tensor:
    """Whole windows, spread over the validation set, of about `SAMPLE_TOKENS` tokens."""
    windows = max(1, SAMPLE_TOKENS // seq_len)
    inputs_BS, _ = next(val_batches(tokens, seq_len, windows, windows))
    return inputs_BS


class RoutingSamples:
    """The picks of a fixed sample of validation tokens at each evaluation point, one array file (L, T, K) a point."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, step: int, ids_LTK: Tensor) -> None:
        """Keep the picks after `step` updates."""
        self.folder.mkdir(exist_ok=True)
        content = io.BytesIO()
        np.save(content, ids_LTK.cpu().numpy().astype(np.int16), allow_pickle=False)
        write_atomic(self._file(step), content.getbuffer())

    def read(self, step: int) -> Tensor:
        """`ids_LTK`, int64."""
        return torch.from_numpy(np.load(self._file(step), allow_pickle=False).astype(np.int64))

    def steps(self) -> list[int]:
        """Evaluation points that are kept, ascending."""
        return sorted(int(p.stem.removeprefix("step-")) for p in self.folder.glob("step-*.npy"))

    def truncate_after(self, step: int) -> None:
        """Drop later points."""
        for later in (s for s in self.steps() if s > step):
            self._file(later).unlink()

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.npy"
