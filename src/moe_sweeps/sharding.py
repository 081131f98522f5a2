"""Sharding of a run over its processes: each keeps a part of every parameter, of its gradient and its optimizer state.

That is torch's fully sharded data parallelism (FSDP2, arXiv 2304.11277). Where numbers live is all that it changes: a
block's parameters are gathered while it computes, and gradients arrive as the parts of their mean over the processes.
A parameter, its gradient and its moments are DTensors then; whoever needs them whole, or this process's part as a plain
tensor, asks here. A tensor that is not sharded passes through every function as it is, so that callers need not ask.

A part is a range of the first dimension: rows of a matrix, experts of a stack (E, ...).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from moe_sweeps.config.groups import Parallel

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

# The parts of a layer whose parameters enter nothing but matrix products, which autocast computes in bfloat16. Router,
# norms and embedding are used in float32.
NARROW_PARTS = ("attention", "ffn", "moe.experts")


def place(model: nn.Module, device: torch.device, parallel: Parallel, size: int, *, autocast: bool) -> None:
    """Move `model` to `device`: whole, or as this process's part where `size` processes share it (`parallel`)."""
    if parallel is Parallel.fsdp and size > 1:
        shard(model, device, size, autocast=autocast)
    else:
        model.to(device)


def shard(model: nn.Module, device: torch.device, size: int, *, autocast: bool) -> None:
    """Share `model`, which is the same in all processes, among them, and move this process's part to `device`.

    Each of `model.layers` is gathered by itself, the rest of the model (tied embedding, last norm) as one. Under
    `autocast` a layer's large matrices travel in bfloat16, in which they are used; gradients are summed in float32.
    All processes must call it.
    """
    # Takes one or two seconds to import, and most runs need none of it.
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
    register_fsdp_forward_method(model, "routings")
    for module in model.modules():
        if device.type == "cpu" and is_sharded(module):
            _sharded(module).set_force_sum_reduction_for_comms(True)  # not every gloo takes means


def is_sharded(model: nn.Module) -> bool:
    """Whether `model` went through `shard`. Its forward pass is then one that all processes do together."""
    module = sys.modules.get("torch.distributed.fsdp")
    return module is not None and isinstance(model, module.FSDPModule)


def reduce_gradients(model: nn.Module, when: bool) -> None:
    """Let the next backward pass through a sharded model end in averaged gradients `when` it is the step's last.

    Before that they add up whole in every process.
    """
    _sharded(model).set_requires_gradient_sync(when)
    _sharded(model).set_is_last_backward(when)


def _sharded(model: nn.Module) -> FSDPModule:
    assert is_sharded(model)
    return model  # type: ignore[return-value]


# --- tensors ----------------------------------------------------------------------------------------------------------


def is_part(value: object) -> TypeGuard[DTensor]:
    """Whether `value` is a tensor of which each process has a part."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """This process's part of `tensor`, as a plain tensor in the same memory; it may have no rows."""
    return tensor.to_local() if is_part(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of `tensor`, in every process; all must ask."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def own_rows(value: Tensor, like: Tensor) -> Tensor:
    """Of `value`, which every process has and whose first dimension is that of `like`, what belongs to its own part."""
    if not is_part(like):
        return value
    most = -(-len(like) // like.device_mesh.size())  # as torch.chunk cuts: the last parts may be short, or empty
    start = like.device_mesh.get_local_rank() * most
    return value[start : start + most]


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """`value`, which every process has, sharded as `like` is; its memory is not kept.

    Raises:
        ValueError: it has another shape.
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
    """The norm of all `tensors` as one vector, a plain scalar: the same bits in every process, which must all ask."""
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


def whole_state(state: Any, keep: bool) -> Any:
    """Nested containers with every sharded tensor whole and on the CPU where `keep`, and None elsewhere; all must ask.

    One tensor at a time is whole on the device.
    """
    if is_part(state):
        found = whole(state)
        return found.cpu() if keep else None
    if isinstance(state, Mapping):
        return {key: whole_state(value, keep) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole_state(value, keep) for value in state)
    return state


def on_device(state: Any, device: torch.device, but: Sequence[str] = ()) -> Any:
    """Nested containers with their tensors on `device`, except below the keys `but`."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, Mapping):
        return {key: value if key in but else on_device(value, device, but) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(on_device(value, device, but) for value in state)
    return state


def load_model(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """`model.load_state_dict` of a whole state."""
    like = model.state_dict()
    parts = {name: part_of(value, like[name]) if name in like else value for name, value in state.items()}
    model.load_state_dict(parts)


def part_of_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole state of `optimizer`, with what it keeps for a sharded parameter, in its shape, sharded likewise."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    kept = {
        index: {name: _part_like(value, params[index]) for name, value in of_param.items()}
        for index, of_param in state["state"].items()
    }
    return {**state, "state": kept}


def _part_like(value: Any, param: Tensor) -> Any:
    is_shaped = isinstance(value, Tensor) and value.shape == param.shape
    return part_of(value, param) if is_shaped else value
