"""Patches that let megatron-core train on a CPU. With CUDA, none of them is applied.

megatron-core is written for GPUs: its token dispatcher copies counts to the host on a CUDA stream, buffers are created
on `torch.cuda.current_device()`, and small functions are compiled at their first call, which takes 6 to 17 s on a CPU.
The patches were tested with the versions in `TESTED`. Other versions are refused, because a patch that no longer fits
may silently change a result.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from moe_sweeps.errors import ConfigError

PACKAGE = "megatron-core"
TESTED = ("0.16.1", "0.19.2")
INSTALL = "Install it with `pip install -e '.[megatron]'`, or use engine=native."


def installed_version(package: str = PACKAGE) -> str | None:
    """The version of an installed package, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def problem(on_cpu: bool) -> ConfigError | None:
    """Why megatron-core cannot be used here, or None."""
    version = installed_version()
    if version is None:
        return ConfigError("engine", "megatron", f"the package {PACKAGE} is not installed", INSTALL)
    if on_cpu and version not in TESTED:
        rule = f"on a CPU it was tested with {PACKAGE} {' and '.join(TESTED)} alone, and {version} is installed"
        return ConfigError("engine", "megatron", rule, f"Install one of them ({INSTALL[11:-24]}), or use a GPU.")
    return None


def is_needed() -> bool:
    """Whether this machine has no CUDA device."""
    return not torch.cuda.is_available()


def record(device: torch.device) -> dict[str, Any]:
    """What provenance.json keeps: versions, and whether the CPU patches were applied."""
    engine = {"kind": "megatron", "megatron_core": installed_version(), "cpu_shim": is_needed()}
    return engine | {"transformer_engine": installed_version("transformer-engine"), "device": device.type}


def prepare() -> None:
    """Import megatron-core, and on a machine without CUDA apply the patches. A second call changes nothing.

    Raises:
        ConfigError: it is not installed, or the patches were not tested with its version.
    """
    found = problem(on_cpu=is_needed())
    if found:
        raise found
    with _quiet(), _uncompiled(is_needed()):
        import megatron.core.models.gpt.gpt_layer_specs  # noqa: F401  # imports everything that is marked to be compiled
    warnings.filterwarnings("ignore", module=r"megatron\.")  # its warnings at every call concern its own code
    if is_needed():
        _patch()


def _patch() -> None:
    from megatron.core.transformer.moe import moe_utils
    from megatron.core.transformer.moe.token_dispatcher import MoEAlltoAllTokenDispatcher

    if not hasattr(moe_utils, "te_general_gemm"):  # 0.16 defines it only beside Transformer Engine
        moe_utils.te_general_gemm = None
    setattr(torch.cuda, "current_device", _cpu)  # noqa: B010
    MoEAlltoAllTokenDispatcher.cuda_dtoh_stream = object()  # otherwise it creates a CUDA stream
    MoEAlltoAllTokenDispatcher._maybe_dtoh_and_synchronize = _splits_as_lists


def _cpu() -> torch.device:
    return torch.device("cpu")


def _splits_as_lists(dispatcher: Any, point: str, tokens_per_expert: torch.Tensor | None = None) -> Any:
    """The result of the dispatcher's copy to the host: the sizes of its messages as numbers instead of tensors."""
    if point == dispatcher.cuda_dtoh_point:
        for name in ("input_splits", "output_splits", "output_splits_tp"):
            splits = getattr(dispatcher, name)
            if torch.is_tensor(splits):
                setattr(dispatcher, name, splits.tolist())
    return tokens_per_expert


@contextmanager
def _uncompiled(wanted: bool) -> Iterator[None]:
    """While megatron-core is imported, do not compile the functions that it marks for that."""
    if not wanted:
        yield
        return
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCHDYNAMO_DISABLE"]
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings that Apex and other optional packages are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
