"""What a training step makes the host wait for, and how many operations and bytes it takes: a dispatch mode.

A GPU works through a queue. The host waits for it where it reads a tensor's numbers, and where it copies from memory
that is not pinned. On a CPU nothing waits, but the operations that would are the same ones.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.optim.tensors import tensors_in
from moe_sweeps.paths import REPOSITORY

aten = torch.ops.aten
SOURCES = str(REPOSITORY / "src" / "moe_sweeps") + "/"
# Their results' shapes depend on values, or they read their own error codes.
WAITING = frozenset(
    [
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "equal",
        "_linalg_eigh",
        "_linalg_check_errors",
        "linalg_inv_ex",
        "multinomial",
        "is_nonzero",
    ]
)
# Operations that move or compute nothing.
FREE = frozenset(
    [
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "expand",
        "alias",
        "detach",
        "select",
        "slice",
        "split",
        "device",
        "split_with_sizes",
        "unsqueeze",
        "squeeze",
        "permute",
        "as_strided",
        "unbind",
        "empty",
        "empty_like",
        "new_empty",
        "new_empty_strided",
        "empty_strided",
        "_record_function_enter_new",
        "_record_function_exit",
        "is_pinned",
        "_pin_memory",
        "lift_fresh",
        "_reshape_alias",
        "numel",
        "sym_size",
        "diagonal",
        "movedim",
        "promote_types",
    ]
)


NUMBER = 16  # rows of each expert in a micro-batch of helpers.TINY, so that a loop over experts has a split to make


class Watch(TorchDispatchMode):
    """Records waits of the host, operations and bytes of what runs inside.

    `device`: that whose values the host waits for. A tensor on a fake GPU has no values, so that a stand-in is returned
    for one that is read: True or NUMBER, and 0 once it was copied.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.waits: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        given = [tensor for tensor in tensors_in([args, kwargs]) if isinstance(tensor, Tensor)]
        here = [tensor for tensor in given if tensor.device.type == self.device]
        if name == "_local_scalar_dense" and here:
            self._wait("reads a number")
        if name == "_local_scalar_dense" and isinstance(given[0], FakeTensor):
            return given[0].dtype is torch.bool or (NUMBER if here else 0)
        if here and (name in WAITING or _picks_by_mask(name, args)):
            self._wait(name)
        result = func(*args, **kwargs)
        self._copies(name, args, kwargs, here, result)
        if name not in FREE:
            self.operations[name] += 1
            self.bytes[name] += sum(_bytes(tensor) for tensor in [*given, *tensors_in(result)])
        return result

    def _copies(self, name: str, args: Any, kwargs: Any, here: list[Tensor], result: Any) -> None:
        """A copy to the host waits, and so does one from it that is not asynchronous."""
        if self.device == "cpu" or name not in ("_to_copy", "copy_", "copy"):
            return
        to = result.device.type if isinstance(result, Tensor) else self.device
        if here and to == "cpu":
            self._wait("copies to the host")
        source = args[0] if name == "_to_copy" else args[1]
        waits = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        if to == self.device and source.device.type == "cpu" and waits:
            self._wait("copies from the host")

    def _wait(self, what: str) -> None:
        self.waits[f"{_place()} {what}"] += 1


def _picks_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether it is x[mask] or x[mask] = tensor, which look for the places first."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
    return bool(masks) and not (name.startswith("index_put") and args[2].numel() == 1)


def _bytes(tensor: Tensor) -> int:
    """Bytes that are read or written of it: of an expanded tensor those that there are."""
    shape = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return int(torch.Size(shape).numel()) * tensor.itemsize


def _place() -> str:
    """The innermost function of the package that is being executed; of the backward pass, `autograd`."""
    for frame in _frames(sys._getframe(1)):
        file = frame.f_code.co_filename
        if file.startswith(SOURCES):
            return f"{Path(file).relative_to(SOURCES)}:{frame.f_code.co_qualname}"
    return "autograd"


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def watched(device: str, work: Callable[[], object]) -> Watch:
    """What `work` did."""
    watch = Watch(device)
    with watch:
        work()
    return watch


def tokens(run: RunConfig) -> TokenData:
    """Random tokens for a few steps of `run`."""
    count = max(100_000, 8 * run.trainer.tokens_per_step)
    ids = np.random.default_rng(0).integers(run.data.vocab_size, size=count).astype(np.uint16)
    splits = {name: {"domains": [{"name": "all", "start": 0, "end": count}]} for name in ("train", "val")}
    meta = {"vocab_size": run.data.vocab_size, "fingerprint": "", "domains": ["all"], "end_of_text_id": 0}
    return TokenData(Path(), meta | {"splits": splits}, ids, ids)
