"""Sharding of a run over its processes: each keeps a part of every parameter, its gradient and its optimizer state.

This is torch's fully sharded data parallelism (FSDP2, arXiv 2304.11277). It changes only where numbers are stored: a
layer's parameters are gathered while it computes, and each process receives its part of the averaged gradients.
A sharded parameter, its gradient and its moments are DTensors. The functions here give such a tensor whole, or this
process's part as a plain tensor. They return a tensor that is not sharded as it is, so that callers need not
distinguish.

A part is a range of the first dimension: rows of a matrix, experts of a stack (E, ...).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from moe_sweeps.config.groups import Parallel

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

# The parts of a layer whose parameters are used in matrix products alone, which autocast computes in bfloat16. Router,
# norms and embedding are used in float32.
NARROW_PARTS = ("attention", "ffn", "moe.experts")


def place(model: nn.Module, device: torch.device, parallel: Parallel, size: int, *, autocast: bool) -> None:
    """Move `model` to `device`: whole, or this process's part of it where `parallel` is fsdp over `size` processes.

    A model on the meta device gets memory there, and no values.
    """
    if parallel is Parallel.fsdp and size > 1:
        shard(model, device, size, autocast=autocast)
    elif is_empty(model):
        model.to_empty(device=device)
    else:
        model.to(device)


def is_empty(model: nn.Module) -> bool:
    """Whether `model` has shapes alone."""
    return any(param.is_meta for param in model.parameters())


def shard(model: nn.Module, device: torch.device, size: int, *, autocast: bool) -> None:
    """Shard `model`, the same in all processes or on the meta device, and move this process's part to `device`.

    Each of `model.layers` is gathered by itself, the rest of the model (tied embedding, last norm) as one. Under
    `autocast` a layer's large matrices are gathered in bfloat16, in which they are used; gradients are summed in
    float32. All processes must call this.
    """
    # Imported here because it takes one or two seconds, and most runs are not sharded.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (size,))
    narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    layers = model.get_submodule("layers")
    for layer in layers.children():
        parts = dict(layer.named_modules())
        for name in NARROW_PARTS:
            if autocast and name in parts:
                fully_shard(parts[name], mesh=mesh, mp_policy=narrow)
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if is_empty(model):
        model.to_empty(device=device)
    register_fsdp_forward_method(model, "routings")
    for module in model.modules():
        if device.type == "cpu" and is_sharded(module):
            _sharded(module).set_force_sum_reduction_for_comms(True)  # not every build of gloo has means


def is_sharded(model: nn.Module) -> bool:
    """Whether `model` went through `shard`. Then all processes must run its forward passes together."""
    module = sys.modules.get("torch.distributed.fsdp")
    return module is not None and isinstance(model, module.FSDPModule)


def reduce_gradients(model: nn.Module, when: bool) -> None:
    """Let the next backward pass through a sharded model average gradients only `when` it is the step's last.

    Before that every process accumulates whole gradients.
    """
    _sharded(model).set_requires_gradient_sync(when)
    _sharded(model).set_is_last_backward(when)


def _sharded(model: nn.Module) -> FSDPModule:
    assert is_sharded(model)
    return model  # type: ignore[return-value]


# --- tensors ----------------------------------------------------------------------------------------------------------


def is_part(value: object) -> TypeGuard[DTensor]:
    """Whether `value` is a sharded tensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """This process's part of `tensor`, as a plain tensor in the same memory; it may have no rows."""
    return tensor.to_local() if is_part(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of `tensor`, in every process. All processes must call this."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def own_rows(value: Tensor, like: Tensor) -> Tensor:
    """The rows of `value` that match this process's part of `like`. Every process has all of `value`."""
    if not is_part(like):
        return value
    most = -(-len(like) // like.device_mesh.size())  # as torch.chunk does: the last parts may be short or empty
    start = like.device_mesh.get_local_rank() * most
    return value[start : start + most]


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """A copy of `value`, which every process has, sharded as `like` is.

    Raises:
        ValueError: the shapes differ.
    """
    if not is_part(like):
        return value
    if value.shape != like.shape:
        raise ValueError(f"a tensor of shape {tuple(value.shape)} stands for one of shape {tuple(like.shape)}")
    from torch.distributed.tensor import DTensor

    own = own_rows(value, like).to(like.device, copy=True)
    return DTensor.from_local(
        own, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all `tensors` as one vector, a scalar. All processes must call this, and get the same bits."""
    tensors = list(tensors)
    norm = nn.utils.get_total_norm([own_part(tensor) for tensor in tensors])
    shards = [tensor for tensor in tensors if is_part(tensor)]
    if not shards:
        return norm
    assert len(shards) == len(tensors)
    square = norm.to(torch.float64).square()
    dist.all_reduce(square, group=shards[0].device_mesh.get_group())
    return square.sqrt().to(norm.dtype)


# --- states -----------------------------------------------------------------------------------------------------------


def whole_state(state: Any, keep: Callable[[Tensor], Tensor] | None) -> Any:
    """Nested containers with `keep(tensor)` in place of each sharded tensor, or None without `keep`.

    `keep` gets the whole tensor. All processes must call this, one of them with `keep`. Only one tensor at a time is
    whole on the device.
    """
    if is_part(state):
        found = whole(state)
        return keep(found) if keep else None
    if isinstance(state, Mapping):
        return {key: whole_state(value, keep) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole_state(value, keep) for value in state)
    return state


def on_device(state: Any, device: torch.device, but: Sequence[str] = ()) -> Any:
    """Nested containers with copies of their tensors on `device`, except below the keys `but`."""
    if isinstance(state, Tensor):
        return state.to(device, copy=True)
    if isinstance(state, Mapping):
        return {key: value if key in but else on_device(value, device, but) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(on_device(value, device, but) for value in state)
    return state


def load_model(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the whole `state` into `model`, sharded or not, one tensor at a time.

    Raises:
        RuntimeError: a name or a shape differs.
    """
    if not is_sharded(model):
        model.load_state_dict(state)
        return
    own = model.state_dict()
    if own.keys() != state.keys():
        raise RuntimeError(f"only one of the two has {', '.join(sorted(own.keys() ^ state.keys()))}")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise RuntimeError(f"{name} has shape {tuple(tensor.shape)}, and not {tuple(state[name].shape)}")
        own_part(tensor).copy_(own_rows(state[name], tensor))


def part_of_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The whole `state` of `optimizer` with copies of its tensors, sharded as their parameters are.

    torch's optimizers keep the tensors that they are given, which would stay in a checkpoint's file without the copy.
    """
    params = [param for group in optimizer.param_groups for param in group["params"]]
    kept = {
        index: {name: _part_like(value, params[index]) for name, value in of_param.items()}
        for index, of_param in state["state"].items()
    }
    return {**state, "state": kept}


def _part_like(value: Any, param: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.shape != param.shape:
        return value.clone()
    return part_of(value, param) if is_part(param) else value.to(param.device, copy=True)
