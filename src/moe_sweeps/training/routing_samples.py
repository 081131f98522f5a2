"""The picks of a fixed sample of validation tokens at each evaluation, from which router saturation is computed.

The sample does not depend on the settings of evaluation, so that a resumed run writes the same files bit for bit.

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
from moe_sweeps.host.files import make_folder, write_atomic
from moe_sweeps.host.reading import read_bytes

SAMPLE_TOKENS = 2048


def sample_inputs_BS(tokens: Tokens, seq_len: int) -> Tensor:
    """Windows spread over the validation set, about `SAMPLE_TOKENS` tokens together: int64 (B, S)."""
    windows = max(1, SAMPLE_TOKENS // seq_len)
    inputs_BS, _ = next(val_batches(tokens, seq_len, windows, windows))
    return inputs_BS


class RoutingSamples:
    """One numpy file of picks, (L, T, K), for each evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, step: int, ids_LTK: Tensor) -> None:
        """Store the picks after `step` updates, (L, T, K)."""
        make_folder(self.folder)
        content = io.BytesIO()
        np.save(content, ids_LTK.cpu().numpy().astype(np.int16), allow_pickle=False)
        write_atomic(self._file(step), content.getbuffer())

    def read(self, step: int) -> Tensor:
        """The picks after `step` updates, int64 (L, T, K)."""
        content = read_bytes(self._file(step))
        return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False).astype(np.int64))

    def steps(self) -> list[int]:
        """Steps that have a file, ascending."""
        names = (p.stem.removeprefix("step-") for p in self.folder.glob("step-*.npy"))
        return sorted(int(name) for name in names if name.isdecimal())  # ignore files that a person put there

    def truncate_after(self, step: int) -> None:
        """Delete the files of later steps."""
        for later in (s for s in self.steps() if s > step):
            self._file(later).unlink()

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.npy"
