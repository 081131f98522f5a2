"""Tensors that lie in a file instead of in memory, for a state that is larger than one process has memory for."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from moe_sweeps.host.files import disk_full_is_said, temporary_beside


class TensorFile:
    """A file in `folder` that takes one tensor after another. It has no name after the block.

    The tensors are mapped into memory, so that the system may evict what is not in use. The space of the file is freed
    with the last of them.
    """

    def __init__(self, folder: Path) -> None:
        self._path = temporary_beside(folder / "spool")
        self._end = 0

    def __enter__(self) -> TensorFile:
        self._file = self._path.open("w+b", buffering=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def keep(self, tensor: Tensor) -> Tensor:
        """A tensor on the CPU with the values of `tensor`, in the file.

        Raises:
            DiskFull: there is no space for it.
        """
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if not flat.numel():
            return flat.reshape(tensor.shape)
        content = flat.view(torch.uint8).numpy().data
        start = -(-self._end // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._write(content, start)
        # Private to this process: writing to the tensor does not change the file.
        mapped = mmap.mmap(self._file.fileno(), content.nbytes, offset=start, access=mmap.ACCESS_COPY)
        return torch.frombuffer(mapped, dtype=tensor.dtype).reshape(tensor.shape)

    def _write(self, content: memoryview, start: int) -> None:
        with disk_full_is_said(self._path, content.nbytes):
            self._file.seek(start)
            left = content
            while left:
                left = left[self._file.write(left) :]
        self._end = start + content.nbytes
